package passthrough

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// file is a file or directory that the guest has open.
type file struct {
	pathFD // the open descriptor: what the guest closes while a request uses it stays open until then
	n      *inode
	id     uint64
	write  bool

	next, prev *file // of the same inode; guarded by Server.mu

	dir dirStream
}

// close gives up the guest's reference.
func (f *file) close() {
	f.dir.mu.Lock()
	f.dir.free()
	f.dir.closed = true
	f.dir.mu.Unlock()
	f.release()
}

// fileTable holds the open files by file handle, which is a slot and how often
// it was used before: a handle that was released never names another file.
type fileTable struct {
	max   int
	n     int
	slots []fileSlot
	free  []uint32
}

type fileSlot struct {
	f   *file
	gen uint32
}

func (t *fileTable) get(fh uint64) *file {
	slot := uint64(uint32(fh))
	if slot >= uint64(len(t.slots)) || t.slots[slot].f == nil || t.slots[slot].f.id != fh {
		return nil
	}
	return t.slots[slot].f
}

func (t *fileTable) add(f *file) error {
	if t.n >= t.max {
		return unix.ENFILE
	}
	var slot uint32
	if len(t.free) > 0 {
		slot = t.free[len(t.free)-1]
		t.free = t.free[:len(t.free)-1]
	} else {
		slot = uint32(len(t.slots))
		t.slots = append(t.slots, fileSlot{})
	}
	t.slots[slot].f = f
	f.id = uint64(t.slots[slot].gen)<<32 | uint64(slot)
	t.n++
	return nil
}

func (t *fileTable) remove(f *file) {
	slot := uint32(f.id)
	t.slots[slot].f = nil
	t.slots[slot].gen++
	t.free = append(t.free, slot)
	t.n--
}

// takeAll removes and returns the files that match.
func (t *fileTable) takeAll(match func(*file) bool) []*file {
	var all []*file
	for _, s := range t.slots {
		if s.f != nil && match(s.f) {
			all = append(all, s.f)
			t.remove(s.f)
		}
	}
	return all
}

// addFile registers fd as an open file of n. On error fd is closed.
func (s *Server) addFile(n *inode, fd int, write bool) (*file, error) {
	f := &file{n: n, write: write}
	f.fd, f.owner = fd, n
	f.refs.Store(1)
	s.mu.Lock()
	err := s.files.add(f)
	if err == nil {
		if f.next = n.files; f.next != nil {
			f.next.prev = f
		}
		n.files = f
	}
	s.mu.Unlock()
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return f, nil
}

// roomForFile says early whether addFile has room: opening has effects.
func (s *Server) roomForFile() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files.n >= s.files.max {
		return unix.ENFILE
	}
	return nil
}

// unlistFile takes f from its inode's list. Called with Server.mu.
func (s *Server) unlistFile(f *file) {
	if f.prev != nil {
		f.prev.next = f.next
	} else if f.n.files == f {
		f.n.files = f.next
	}
	if f.next != nil {
		f.next.prev = f.prev
	}
	f.next, f.prev = nil, nil
}

// file returns the open file of a handle, counted. The caller releases it.
func (s *Server) file(fh uint64) (*file, fuse.Status) {
	s.mu.Lock()
	f := s.files.get(fh)
	if f != nil && !f.acquire() {
		f = nil
	}
	s.mu.Unlock()
	if f == nil {
		return nil, fuse.EBADF
	}
	return f, fuse.OK
}

// releaseFile closes the guest's handle.
func (s *Server) releaseFile(fh uint64) {
	var room [4]*inode
	s.mu.Lock()
	f := s.files.get(fh)
	if f == nil {
		s.mu.Unlock()
		return
	}
	s.files.remove(f)
	s.unlistFile(f)
	dead := s.reap(f.n, room[:0])
	s.mu.Unlock()
	if f.write {
		s.didFile(f.n)
	}
	f.close()
	for _, n := range dead {
		s.dropFD(n)
	}
}

// Release closes a file.
func (s *Server) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { s.releaseFile(in.Fh) }

// ReleaseDir closes a directory.
func (s *Server) ReleaseDir(in *fuse.ReleaseIn) { s.releaseFile(in.Fh) }

// dirStream is the position in an open directory. Requests for one stream take
// turns; nothing else waits for them.
type dirStream struct {
	mu     sync.Mutex
	closed bool
	buf    *[dirBytes]byte // what getdents returned; nil when there is nothing left
	at, n  int             // the part of buf that is not consumed
	off    int64           // the cookie with which the unconsumed part begins
}

func (d *dirStream) free() {
	if d.buf != nil {
		dirBuffers.Put(d.buf)
		d.buf = nil
	}
	d.at, d.n = 0, 0
}
