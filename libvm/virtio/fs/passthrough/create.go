package passthrough

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"runv/agent/wire"
)

// modeIn returns the mode of a new file in dir. The umask counts only where the
// directory has no default ACL (DONT_MASK); the host's kernel does the rest of
// what an ACL means.
func (s *Server) modeIn(dir *inode, p *pathFD, mode, umask uint32) uint32 {
	mode &= 0o7777
	if mode&umask&0o777 == 0 || s.hasDefaultACL(dir, p) {
		return mode
	}
	return mode &^ (umask & 0o777)
}

// Mkdir makes a directory.
func (s *Server) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if s.repeats(&in.InHeader) {
		return s.repeatMake(&in.InHeader, name, out)
	}
	dir, p, code := s.dirOf(in.NodeId, name, true)
	if !code.Ok() {
		return code
	}
	defer p.release()
	mode := s.modeIn(dir, p, in.Mode, in.Umask)
	err := s.as(dir, in.Uid, in.Gid, func() error { return unix.Mkdirat(p.fd, name, mode) })
	return s.made(err, dir, p, name, out)
}

// Symlink makes a symbolic link. Its target is the guest's affair.
func (s *Server) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	if s.repeats(h) {
		return s.repeatMake(h, name, out)
	}
	dir, p, code := s.dirOf(h.NodeId, name, true)
	if !code.Ok() {
		return code
	}
	defer p.release()
	err := s.as(dir, h.Uid, h.Gid, func() error { return unix.Symlinkat(target, p.fd, name) })
	return s.made(err, dir, p, name, out)
}

// Mknod makes a file of any type but a directory or a link.
func (s *Server) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if s.repeats(&in.InHeader) {
		return s.repeatMake(&in.InHeader, name, out)
	}
	switch in.Mode & unix.S_IFMT {
	case 0, unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	case unix.S_IFCHR, unix.S_IFBLK:
		whiteout := in.Mode&unix.S_IFMT == unix.S_IFCHR && in.Rdev == 0
		if !whiteout && !s.opts.AllowDevices {
			return fuse.EPERM
		}
	default:
		return fuse.EINVAL
	}
	socket := in.Mode&unix.S_IFMT == unix.S_IFSOCK
	if socket && in.NodeId == fuse.FUSE_ROOT_ID && s.socketEntry(name, wire.ListenPrefix, out).Ok() {
		return fuse.OK
	}
	dir, p, code := s.dirOf(in.NodeId, name, true)
	if !code.Ok() {
		return code
	}
	defer p.release()
	mode := in.Mode&unix.S_IFMT | s.modeIn(dir, p, in.Mode, in.Umask)
	if socket {
		if code, ok := s.bindSocket(in, dir, p, name, mode, out); ok {
			return code
		}
	}
	err := s.as(dir, in.Uid, in.Gid, func() error { return unix.Mknodat(p.fd, name, mode, int(in.Rdev)) })
	return s.made(err, dir, p, name, out)
}

// made answers for what was created as name.
func (s *Server) made(err error, dir *inode, p *pathFD, name string, out *fuse.EntryOut) fuse.Status {
	if err == nil {
		err = s.enter(dir, p, name, out)
	}
	return statusOf(err)
}

// Link makes a hard link, inside one tree.
func (s *Server) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if s.repeats(&in.InHeader) {
		return fuse.EROFS // no change that it makes
	}
	n, code := s.change(in.Oldnodeid)
	if !code.Ok() {
		return code
	}
	dir, p, code := s.dirOf(in.NodeId, name, true)
	if !code.Ok() {
		return code
	}
	defer p.release()
	if n.vol.tree != dir.vol.tree {
		return fuse.EXDEV
	}
	old, err := s.hold(n)
	if err != nil {
		return statusOf(err)
	}
	defer old.release()
	var b number
	b.set(old.fd)
	if err := unix.Linkat(s.proc, b.String(), p.fd, name, unix.AT_SYMLINK_FOLLOW); err != nil {
		return statusOf(err)
	}
	return s.made(nil, dir, p, name, out)
}

// openFlags are the flags of open(2) that reach the host. The rest is either
// done already (creation), or done by the guest: O_APPEND comes with each write,
// O_DIRECT is about the guest's page cache.
const openFlags = unix.O_ACCMODE | unix.O_TRUNC | unix.O_SYNC | unix.O_DSYNC | unix.O_NOATIME | unix.O_LARGEFILE

// Create makes and opens a regular file, or opens the one that is there.
func (s *Server) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if s.repeats(&in.InHeader) {
		return fuse.EROFS // no change that it makes
	}
	dir, p, code := s.dirOf(in.NodeId, name, true)
	if !code.Ok() {
		return code
	}
	defer p.release()
	if err := s.roomForFile(); err != nil {
		return statusOf(err)
	}
	mode := s.modeIn(dir, p, in.Mode, in.Umask)
	flags := int(in.Flags)&openFlags&^unix.O_TRUNC | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW
	fd, err := s.createAs(&in.InHeader, dir, p.fd, name, flags, mode)
	if err == unix.EEXIST && in.Flags&unix.O_EXCL == 0 {
		return s.createExisting(cancel, in, name, dir, p, out)
	}
	if err != nil {
		return statusOf(err)
	}
	return s.created(fd, in, dir, name, out)
}

func (s *Server) createAs(h *fuse.InHeader, dir *inode, at int, name string, flags int, mode uint32) (int, error) {
	for tries := 0; ; tries++ {
		fd := -1
		err := s.as(dir, h.Uid, h.Gid, func() (err error) {
			fd, err = openat(at, name, flags, mode)
			return err
		})
		if err == nil || tries == 2 || !s.relieve(err) {
			return fd, err
		}
	}
}

// created registers a new open file that is name in dir ("" if it has no name).
func (s *Server) created(fd int, in *fuse.CreateIn, dir *inode, name string, out *fuse.CreateOut) fuse.Status {
	var st unix.Statx_t
	if err := statxFD(fd, &st); err != nil {
		unix.Close(fd)
		return statusOf(err)
	}
	var parent *inode
	if name != "" {
		parent = dir
	}
	n, err := s.ref(s.volumeOf(dir.vol.tree, &st, fd, ""), &st, parent, name)
	if err != nil {
		unix.Close(fd)
		return statusOf(err)
	}
	f, err := s.addFile(n, fd, in.Flags&unix.O_ACCMODE != unix.O_RDONLY)
	if err != nil {
		s.Forget(n.id, 1)
		return statusOf(err)
	}
	s.entry(n, &st, &out.EntryOut)
	out.OpenOut = fuse.OpenOut{Fh: f.id, OpenFlags: s.openOutFlags(n, f.write)}
	return fuse.OK
}

// createExisting opens what a name turned out to be that the guest took for free.
func (s *Server) createExisting(cancel <-chan struct{}, in *fuse.CreateIn, name string, dir *inode, p *pathFD, out *fuse.CreateOut) fuse.Status {
	if err := s.enter(dir, p, name, &out.EntryOut); err != nil {
		return statusOf(err)
	}
	open := fuse.OpenIn{InHeader: in.InHeader, Flags: in.Flags, Mode: in.OpenFlags}
	open.NodeId = out.NodeId
	if code := s.Open(cancel, &open, &out.OpenOut); !code.Ok() {
		s.Forget(out.NodeId, 1)
		return code
	}
	if in.Flags&unix.O_TRUNC == 0 {
		return fuse.OK
	}
	n, code := s.node(out.NodeId)
	if !code.Ok() {
		return code
	}
	var a fuse.AttrOut
	if code := s.attrOf(n, &a); !code.Ok() {
		return code
	}
	out.Attr = a.Attr
	return fuse.OK
}

// Tmpfile makes and opens a file without a name, which Link may give one.
func (s *Server) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	dir, p, code := s.dirOf(in.NodeId, "tmpfile", true)
	if !code.Ok() {
		return code
	}
	defer p.release()
	if err := s.roomForFile(); err != nil {
		return statusOf(err)
	}
	mode := s.modeIn(dir, p, in.Mode, in.Umask)
	flags := int(in.Flags)&(openFlags|unix.O_EXCL)&^unix.O_TRUNC | unix.O_TMPFILE
	fd, err := s.createAs(&in.InHeader, dir, p.fd, ".", flags, mode)
	if err != nil {
		return statusOf(err)
	}
	return s.created(fd, in, dir, "", out)
}
