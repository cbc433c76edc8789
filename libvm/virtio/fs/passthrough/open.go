package passthrough

import (
	"golang.org/x/sys/unix"
)

// maxDepth bounds how many directories are reopened, from the nearest one that
// has a descriptor, to reach a file. A guest may nest directories without end.
const maxDepth = 4096

// hold returns a counted descriptor of n, with which it cannot vanish or change
// into another file. The caller releases it.
func (s *Server) hold(n *inode) (*pathFD, error) {
	if p := n.grab(); p != nil {
		return p, nil
	}
	return s.reopen(n)
}

// way is what leads to an inode that has no descriptor.
type way struct {
	n      *inode
	parent *inode
	name   string
	handle string
}

// way returns how n is found, and an open file of it, counted, if there is one.
func (s *Server) way(n *inode) (way, *pathFD) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := n.files; f != nil; f = f.next {
		if f.acquire() {
			return way{}, &f.pathFD
		}
	}
	return way{n, n.parent, n.name, n.handle}, nil
}

// reopen is hold for an inode without a descriptor: by an open file, by file
// handle, or by name from the nearest parent that has a descriptor, each step
// checked to be the same file as before (else ESTALE).
func (s *Server) reopen(n *inode) (*pathFD, error) {
	var down []way // from n up
	var p *pathFD
	for at := n; ; {
		if p = at.grab(); p != nil {
			break
		}
		w, open := s.way(at)
		if open != nil {
			p = open
			break
		}
		if w.handle != "" {
			var err error
			if p, err = s.openHandle(at, w.handle); err == nil {
				break
			} else if err != unix.ESTALE {
				return nil, err
			}
		}
		if w.parent == nil || w.name == "" || len(down) >= maxDepth {
			return nil, unix.ESTALE
		}
		down = append(down, w)
		at = w.parent
	}
	for i := len(down) - 1; i >= 0; i-- {
		next, err := s.openChild(down[i].n, p, down[i].name)
		p.release()
		if err != nil {
			return nil, err
		}
		p = next
	}
	return p, nil
}

// openChild opens name in dir, which is to be n.
func (s *Server) openChild(n *inode, dir *pathFD, name string) (*pathFD, error) {
	fd, err := openPath(dir.fd, name)
	for tries := 0; err != nil && tries < 2 && s.relieve(err); tries++ {
		fd, err = openPath(dir.fd, name)
	}
	if err != nil {
		return nil, stale(err)
	}
	return s.checked(n, fd)
}

func (s *Server) openHandle(n *inode, handle string) (*pathFD, error) {
	mount := n.vol.tree.mount
	if mount == nil || !mount.acquire() {
		return nil, unix.ESTALE
	}
	defer mount.release()
	fd, err := openByHandle(mount.fd, handle)
	if err != nil {
		return nil, stale(err)
	}
	return s.checked(n, fd)
}

// checked installs fd if it is n.
func (s *Server) checked(n *inode, fd int) (*pathFD, error) {
	var st unix.Statx_t
	if err := statxFD(fd, &st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if !n.is(&st) {
		unix.Close(fd)
		return nil, unix.ESTALE
	}
	return s.install(n, fd), nil
}

// stale turns the error of a lookup for a file that was there into ESTALE, on
// which the guest's kernel looks the path up anew.
func stale(err error) error {
	switch err {
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
		return unix.ESTALE
	}
	return err
}

// stat is statx of n. A file that has no descriptor is not opened for it: its
// name is asked, and the answer is checked to be about the same file.
func (s *Server) stat(n *inode, st *unix.Statx_t) error {
	if p := n.grab(); p != nil {
		defer p.release()
		return statxFD(p.fd, st)
	}
	w, open := s.way(n)
	if open != nil {
		defer open.release()
		return statxFD(open.fd, st)
	}
	if w.parent != nil && w.name != "" {
		if err := s.statName(w, st); err == nil {
			return nil
		} else if w.handle == "" {
			return err
		}
	}
	p, err := s.hold(n)
	if err != nil {
		return err
	}
	defer p.release()
	return statxFD(p.fd, st)
}

func (s *Server) statName(w way, st *unix.Statx_t) error {
	dir, err := s.hold(w.parent)
	if err != nil {
		return err
	}
	defer dir.release()
	if err := statxAt(dir.fd, w.name, st); err != nil {
		return stale(err)
	}
	if !w.n.is(st) {
		return unix.ESTALE
	}
	return nil
}

// openNode opens a regular file or a directory, if there is room for one more.
func (s *Server) openNode(n *inode, flags int) (int, error) {
	if err := s.roomForFile(); err != nil {
		return -1, err
	}
	p, err := s.hold(n)
	if err != nil {
		return -1, err
	}
	defer p.release()
	if flags&(unix.O_ACCMODE|unix.O_TRUNC) != 0 {
		if err := s.mapped(n.vol, p.fd, "", unix.EACCES); err != nil {
			return -1, err
		}
	}
	return s.openFD(p.fd, flags)
}

// openFD opens the file behind descriptor fd anew. The caller knows it to be a
// regular file or a directory.
func (s *Server) openFD(fd, flags int) (int, error) {
	for tries := 0; ; tries++ {
		nfd, err := openNumber(s.proc, fd, flags|unix.O_CLOEXEC|unix.O_NOCTTY)
		if err == nil || tries == 2 || !s.relieve(err) {
			return nfd, err
		}
	}
}
