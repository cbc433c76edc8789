package passthrough

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// pathFD is a counted descriptor. One count belongs to the cache (or to the
// open file that it is part of), one to each request that is using it, so that
// nothing is closed, and its number used again, under a request.
type pathFD struct {
	fd    int
	refs  atomic.Int32
	used  atomic.Bool // since the cache last looked
	owner *inode

	// Guarded by fdCache.mu.
	list       *fdList
	prev, next *pathFD
}

// acquire adds a count, unless the last one is gone already.
func (p *pathFD) acquire() bool {
	for {
		r := p.refs.Load()
		if r <= 0 {
			return false
		}
		if p.refs.CompareAndSwap(r, r+1) {
			return true
		}
	}
}

func (p *pathFD) release() {
	if p.refs.Add(-1) == 0 {
		unix.Close(p.fd) //nolint:errcheck // written data was written by then
	}
}

// grab returns a count of n's descriptor, or nil if it has none.
func (n *inode) grab() *pathFD {
	for {
		p := n.fd.Load()
		if p == nil {
			return nil
		}
		if p.acquire() {
			if !p.used.Load() {
				p.used.Store(true)
			}
			return p
		}
	}
}

// fdCache bounds the O_PATH descriptors that inodes keep. One descriptor for
// each inode ever seen would be half a million after one find(1).
type fdCache struct {
	mu     sync.Mutex
	lru    fdList // second chance, oldest first
	pinned fdList // files without a name: only the descriptor leads to them
}

type fdList struct {
	head pathFD
	n    int
	max  int
}

func (l *fdList) init(n int) {
	l.max = n
	l.head.prev, l.head.next = &l.head, &l.head
}

func (l *fdList) push(p *pathFD) {
	p.list, p.prev, p.next = l, l.head.prev, &l.head
	p.prev.next, p.next.prev = p, p
	l.n++
}

func (l *fdList) remove(p *pathFD) {
	p.prev.next, p.next.prev = p.next, p.prev
	p.list, p.prev, p.next = nil, nil, nil
	l.n--
}

// init sets the cache up for n descriptors, a quarter of them for files that
// were unlinked. A guest that unlinks many files and forgets none would else
// have us run out; beyond the bound the oldest of them becomes stale.
func (c *fdCache) init(n int) {
	c.pinned.init(n / 4)
	c.lru.init(n - n/4)
}

// add puts p into the cache and returns what has to leave it.
func (c *fdCache) add(p *pathFD) *pathFD {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lru.push(p)
	if c.lru.n <= c.lru.max {
		return nil
	}
	return c.victim()
}

// victim takes the oldest entry that was not used lately. Called with c.mu.
func (c *fdCache) victim() *pathFD {
	for range c.lru.n {
		p := c.lru.head.next
		c.lru.remove(p)
		if !p.used.Swap(false) {
			return p
		}
		c.lru.push(p)
	}
	p := c.lru.head.next
	if p == &c.lru.head {
		return nil
	}
	c.lru.remove(p)
	return p
}

// shrink takes up to n entries out, when the process has run out of descriptors.
func (c *fdCache) shrink(n int) []*pathFD {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*pathFD
	for range n {
		p := c.victim()
		if p == nil {
			break
		}
		all = append(all, p)
	}
	return all
}

// pin moves p to the pinned ones and returns the one that has to leave them.
func (c *fdCache) pin(p *pathFD) *pathFD {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.list != &c.lru {
		return nil
	}
	c.lru.remove(p)
	c.pinned.push(p)
	if c.pinned.n <= c.pinned.max {
		return nil
	}
	old := c.pinned.head.next
	c.pinned.remove(old)
	return old
}

func (c *fdCache) remove(p *pathFD) {
	c.mu.Lock()
	if p.list != nil {
		p.list.remove(p)
	}
	c.mu.Unlock()
}

// install gives fd to n and returns a count of it for the caller. Where another
// request was faster, fd is the caller's alone.
func (s *Server) install(n *inode, fd int) *pathFD {
	p := &pathFD{fd: fd, owner: n}
	p.refs.Store(2)
	p.used.Store(true)
	if !n.fd.CompareAndSwap(nil, p) {
		p.refs.Store(1)
		return p
	}
	if old := s.cache.add(p); old != nil {
		s.evict(old)
	}
	if n.gone.Load() {
		s.dropFD(n)
	}
	return p
}

// evict takes a descriptor that left the cache from its inode. What leads back
// to the file, should the name be another by then, is its file handle.
func (s *Server) evict(p *pathFD) {
	n := p.owner
	if t := n.vol.tree; t.mount != nil && n.vol == t.rootVol && !n.gone.Load() && !t.removed.Load() {
		s.mu.Lock()
		have := n.handle != ""
		s.mu.Unlock()
		if !have {
			if h := fileHandle(p.fd); h != "" {
				s.mu.Lock()
				n.handle = h
				s.mu.Unlock()
			}
		}
	}
	if n.fd.CompareAndSwap(p, nil) {
		p.release()
	}
}

// dropFD closes the descriptor of an inode that is not referenced any more.
func (s *Server) dropFD(n *inode) {
	if p := n.fd.Swap(nil); p != nil {
		s.cache.remove(p)
		p.release()
	}
}

// relieve makes room when the process is out of descriptors (err is EMFILE or
// ENFILE) and reports whether trying again makes sense.
func (s *Server) relieve(err error) bool {
	if err != unix.EMFILE && err != unix.ENFILE {
		return false
	}
	all := s.cache.shrink(16)
	for _, p := range all {
		s.evict(p)
	}
	return len(all) > 0
}
