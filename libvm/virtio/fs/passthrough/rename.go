package passthrough

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Unlink removes a name.
func (s *Server) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if s.repeats(h) {
		return fuse.OK
	}
	return s.removeName(h.NodeId, name, 0)
}

// Rmdir removes an empty directory.
func (s *Server) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if s.repeats(h) {
		return fuse.OK
	}
	return s.removeName(h.NodeId, name, unix.AT_REMOVEDIR)
}

func (s *Server) removeName(id uint64, name string, flags int) fuse.Status {
	dir, p, code := s.dirOf(id, name, true)
	if !code.Ok() {
		return code
	}
	defer p.release()
	if err := s.mapped(dir.vol, p.fd, name, unix.EOVERFLOW); err != nil {
		return statusOf(err)
	}
	l := s.leaving(dir, p, name)
	err := unix.Unlinkat(p.fd, name, flags)
	l.done(s, err)
	return statusOf(err)
}

// leaving is a file that is about to lose a name. If the guest references it,
// it is held open, as from then on only a descriptor leads to it: a working
// directory may be removed, and the file of an O_PATH descriptor.
type leaving struct {
	dir  *inode
	name string
	n    *inode
	p    *pathFD
}

func (s *Server) leaving(dir *inode, p *pathFD, name string) leaving {
	l := leaving{dir: dir, name: name}
	fd, err := openPath(p.fd, name)
	if err != nil {
		return l
	}
	var st unix.Statx_t
	if err := statxFD(fd, &st); err == nil {
		l.n = s.find(s.volumeOf(dir.vol.tree, &st, fd, ""), &st)
	}
	if l.n == nil {
		unix.Close(fd)
		return l
	}
	if l.p = l.n.grab(); l.p != nil {
		unix.Close(fd)
		return l
	}
	l.p = s.install(l.n, fd)
	return l
}

// done follows the system call that took the name away, or failed with err.
func (l *leaving) done(s *Server, err error) {
	if l.n == nil {
		return
	}
	if err == nil {
		s.mu.Lock()
		var dead []*inode
		if l.n.parent == l.dir && l.n.name == l.name {
			dead = s.setLink(l.n, nil, "")
		}
		s.mu.Unlock()
		for _, n := range dead {
			s.dropFD(n)
		}
		if old := s.cache.pin(l.p); old != nil {
			s.evict(old)
		}
		if l.n.typ == unix.S_IFSOCK {
			s.socketUnlinked(l.n, l.p)
		}
	}
	l.p.release()
}

// renameFlags are those of renameat2(2).
const renameFlags = unix.RENAME_NOREPLACE | unix.RENAME_EXCHANGE | unix.RENAME_WHITEOUT

// Rename renames inside one tree.
func (s *Server) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if s.repeats(&in.InHeader) {
		return fuse.OK
	}
	if in.Flags&^renameFlags != 0 {
		return fuse.EINVAL
	}
	from, fp, code := s.dirOf(in.NodeId, oldName, true)
	if !code.Ok() {
		return code
	}
	defer fp.release()
	to, tp, code := s.dirOf(in.Newdir, newName, true)
	if !code.Ok() {
		return code
	}
	defer tp.release()
	if from.vol.tree != to.vol.tree {
		return fuse.EXDEV
	}
	if err := s.mapped(from.vol, fp.fd, oldName, unix.EOVERFLOW); err != nil {
		return statusOf(err)
	}
	var l leaving
	if in.Flags&(unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE) == 0 {
		l = s.leaving(to, tp, newName)
	}
	err := s.as(from, in.Uid, in.Gid, func() error {
		return unix.Renameat2(fp.fd, oldName, tp.fd, newName, uint(in.Flags))
	})
	l.done(s, err)
	if err != nil {
		return statusOf(err)
	}
	s.moved(to, tp, newName)
	if in.Flags&unix.RENAME_EXCHANGE != 0 {
		s.moved(from, fp, oldName)
	}
	return fuse.OK
}

// moved records the new name of a file that the guest references.
func (s *Server) moved(dir *inode, p *pathFD, name string) {
	var st unix.Statx_t
	if err := statxAt(p.fd, name, &st); err != nil {
		return
	}
	if n := s.find(s.volumeOf(dir.vol.tree, &st, p.fd, name), &st); n != nil {
		s.relink(n, dir, name)
	}
}
