package passthrough

import (
	"bytes"
	"encoding/binary"
	"os"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"runv/agent/wire"
)

// A change that is made on the host is none to the guest's inotify: FUSE has no
// message for it. So what the guest watches is watched here, too, and for each
// change the agent makes the same one in the guest, by a thread whose requests are
// answered but not carried out:
//
//	host: echo >> f    inotify ──▶ Change ──▶ agent: utimensat(f, mtime)
//	                               SETATTR of that thread ◀──┘
//	                   attributes ──▶ the guest's kernel: IN_MODIFY for its watchers
//
// Nothing of it reaches the host, so that no change is made twice, and none is
// reported that a change in the guest was.

// watchedMask is what is watched for.
const watchedMask = unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_CLOSE_WRITE | unix.IN_CREATE |
	unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO

// Change is one that was made on the host. Paths of directories are relative to
// the root of the file system.
type Change struct {
	Kind      int // of agent/wire: wire.Modified, …
	Dir, Name string
	ToDir, To string
	Mode      uint32 // type of the file, S_IFMT

	dir, toDir uint64 // nodes
}

// maxWatches bounds what is watched on the host for the guest.
const maxWatches = 4096

// ownTime is how long after a request of the guest a change of the same file is
// taken for its effect.
const ownTime = 500 * time.Millisecond

// maxOwn bounds the requests that are remembered.
const maxOwn = 4096

// nameIn is a name in a directory, or with no name a file itself.
type nameIn struct {
	dir  uint64
	name string
}

// watch is the part of a Server that knows what the guest watches.
type watch struct {
	active  chan struct{} // the guest has looked something up; nil: nobody wants to know
	touched atomic.Bool
	on      atomic.Bool   // something is watched
	thread  atomic.Uint32 // of the guest, whose requests are not carried out

	mu    sync.Mutex
	fd    int
	file  *os.File // inotify: fd
	nodes map[int32]*inode
	wds   map[*inode]int32
	own   map[nameIn]time.Time
	fakes map[nameIn]uint32 // what the agent's thread finds: a type, or 0: nothing
}

// EnableWatches has the server say when the guest may have begun to watch files. It
// is called before the guest runs.
func (s *Server) EnableWatches() {
	w := &s.watch
	w.nodes, w.wds = map[int32]*inode{}, map[*inode]int32{}
	w.own, w.fakes = map[nameIn]time.Time{}, map[nameIn]uint32{}
	w.active = make(chan struct{}, 1)
}

// open makes the inotify instance, of which a user has only so many: a guest that
// watches nothing has none. Called with watch.mu.
func (w *watch) open() error {
	if w.file != nil {
		return nil
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("inotify_init1", err)
	}
	w.fd, w.file = fd, os.NewFile(uintptr(fd), "inotify")
	return nil
}

// Activity has a value when the guest has looked something up since Rearm: whoever
// begins to watch a file has looked it up a moment before.
func (s *Server) Activity() <-chan struct{} { return s.watch.active }

// Rearm begins to look for activity again.
func (s *Server) Rearm() { s.watch.touched.Store(false) }

func (w *watch) touch() {
	if w.active != nil && !w.touched.Load() && w.touched.CompareAndSwap(false, true) {
		select {
		case w.active <- struct{}{}:
		default:
		}
	}
}

// Watch sets what the guest watches, and the thread by which its agent repeats
// changes. It returns how many files are watched now; Changes tells of them.
func (s *Server) Watch(nodes []uint64, thread uint32) (int, error) {
	w := &s.watch
	w.thread.Store(thread)
	want := map[*inode]bool{}
	for _, id := range nodes[:min(len(nodes), maxWatches)] {
		if n, code := s.node(id); code.Ok() && n.kind == kindFile {
			want[n] = true
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(want) > 0 {
		if err := w.open(); err != nil {
			return 0, err
		}
	}
	for n, wd := range w.wds {
		if !want[n] {
			unix.InotifyRmWatch(w.fd, uint32(wd)) //nolint:errcheck // the file may be gone
			delete(w.wds, n)
			delete(w.nodes, wd)
		}
	}
	w.on.Store(len(want) > 0)
	s.addWatches(want)
	return len(w.wds), nil
}

// addWatches watches what is not watched yet. Called with watch.mu.
func (s *Server) addWatches(want map[*inode]bool) {
	w := &s.watch
	var add []*inode
	for n := range want {
		if _, ok := w.wds[n]; !ok {
			add = append(add, n)
		}
	}
	if len(add) == 0 {
		return
	}
	inDir(s.proc, func() error { //nolint:errcheck // what cannot be watched is not
		for _, n := range add {
			p, err := s.hold(n)
			if err != nil {
				continue
			}
			var b number
			b.set(p.fd)
			wd, err := unix.InotifyAddWatch(w.fd, b.String(), watchedMask)
			p.release()
			if err == nil {
				w.wds[n], w.nodes[int32(wd)] = int32(wd), n
			}
		}
		return nil
	})
}

// did notes a request of the guest that changes a name in a directory, or a file.
func (w *watch) did(dir uint64, name string) {
	if !w.on.Load() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if len(w.own) >= maxOwn {
		for k, t := range w.own {
			if now.Sub(t) > ownTime {
				delete(w.own, k)
			}
		}
		if len(w.own) >= maxOwn {
			clear(w.own)
		}
	}
	w.own[nameIn{dir, name}] = now
}

// didFile is the same for a file, under the name that it has.
func (s *Server) didFile(n *inode) {
	if !s.watch.on.Load() {
		return
	}
	s.mu.Lock()
	parent, name := n.parent, n.name
	s.mu.Unlock()
	s.watch.did(n.id, "")
	if parent != nil {
		s.watch.did(parent.id, name)
	}
}

// Changes reads what has changed on the host and calls f for each change, one after
// the other, until the server is closed. It is called once Watch has returned that
// something is watched.
func (s *Server) Changes(f func(Change)) {
	buf := make([]byte, 64<<10)
	for {
		n, err := s.watch.file.Read(buf[:len(buf)/2])
		if err != nil {
			return
		}
		if all := parseEvents(buf[:n]); len(all) > 0 && all[len(all)-1].mask&unix.IN_MOVED_FROM != 0 {
			// What it was moved to comes next, if that is watched.
			s.watch.file.SetReadDeadline(time.Now().Add(moveTime)) //nolint:errcheck // inotify can be polled
			more, _ := s.watch.file.Read(buf[n:])
			s.watch.file.SetReadDeadline(time.Time{}) //nolint:errcheck // as above
			n += max(more, 0)
		}
		for _, c := range s.changes(buf[:n]) {
			f(c)
		}
	}
}

// moveTime is how long the second half of a move may come after the first.
const moveTime = 200 * time.Millisecond

// rawEvent is struct inotify_event of inotify(7), with its name.
type rawEvent struct {
	wd           int32
	mask, cookie uint32
	name         string
}

// parseEvents reads what the kernel wrote.
func parseEvents(b []byte) (all []rawEvent) {
	for len(b) >= unix.SizeofInotifyEvent {
		e := rawEvent{
			wd: int32(binary.NativeEndian.Uint32(b)), mask: binary.NativeEndian.Uint32(b[4:]), cookie: binary.NativeEndian.Uint32(b[8:]),
		}
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		if end > len(b) {
			return all
		}
		name, _, _ := bytes.Cut(b[unix.SizeofInotifyEvent:end], []byte{0})
		e.name = string(name)
		all = append(all, e)
		b = b[end:]
	}
	return all
}

// changes turns events into changes, without those that the guest made itself and
// those that are said twice.
func (s *Server) changes(b []byte) (all []Change) {
	moved := map[uint32]int{} // cookie → index of what was moved from
	seen := map[Change]bool{}
	for _, e := range parseEvents(b) {
		s.watch.mu.Lock()
		n := s.watch.nodes[e.wd]
		if n != nil && e.mask&unix.IN_IGNORED != 0 {
			delete(s.watch.nodes, e.wd)
			delete(s.watch.wds, n)
			n = nil
		}
		own := n != nil && time.Since(s.watch.own[nameIn{n.id, e.name}]) < ownTime
		s.watch.mu.Unlock()
		if n == nil || own {
			continue
		}
		c, ok := s.place(n, e)
		if !ok {
			continue
		}
		switch {
		case e.mask&unix.IN_MODIFY != 0:
			c.Kind = wire.Modified
		case e.mask&unix.IN_ATTRIB != 0:
			c.Kind = wire.Attributes
		case e.mask&unix.IN_CLOSE_WRITE != 0:
			c.Kind = wire.CloseWrite
		case e.mask&unix.IN_CREATE != 0:
			c.Kind = wire.Created
		case e.mask&(unix.IN_DELETE|unix.IN_MOVED_FROM) != 0:
			c.Kind = wire.Deleted
			if e.mask&unix.IN_MOVED_FROM != 0 {
				moved[e.cookie] = len(all)
			}
		case e.mask&unix.IN_MOVED_TO != 0:
			c.Kind = wire.MovedHere
			if i, ok := moved[e.cookie]; ok {
				all[i].Kind, all[i].ToDir, all[i].To, all[i].toDir = wire.Moved, c.Dir, c.Name, c.dir
				continue
			}
		default:
			continue
		}
		if repeats := c.Kind <= wire.CloseWrite; repeats && seen[c] {
			continue
		}
		seen[c] = true
		all = append(all, c)
	}
	return all
}

// place says where an event of a watched file happened.
func (s *Server) place(n *inode, e rawEvent) (c Change, ok bool) {
	dir, name := n, e.name
	if name == "" {
		s.mu.Lock()
		dir, name = n.parent, n.name
		s.mu.Unlock()
	}
	p, ok := s.pathOf(dir)
	if n == n.vol.tree.root && e.name == "" {
		dir, name, p, ok = n.vol.tree.dir, n.vol.tree.name, n.vol.tree.key, true
	}
	if !ok || !validName(name) {
		return Change{}, false
	}
	c = Change{Dir: p, Name: name, dir: dir.id, Mode: unix.S_IFREG}
	if e.mask&unix.IN_ISDIR != 0 {
		c.Mode = unix.S_IFDIR
	}
	return c, true
}

// pathOf is the path of a directory by the names under which the guest has looked
// it up.
func (s *Server) pathOf(n *inode) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for ; n != nil && len(names) < unix.PathMax/2; n = n.parent {
		if t := n.vol.tree; n == t.root {
			names = append(names, t.name, t.key)
			slices.Reverse(names)
			return path.Join(names...), true
		}
		names = append(names, n.name)
	}
	return "", false
}
