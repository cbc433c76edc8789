package passthrough

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"runv/agent/wire"
)

// dirOf returns the directory id of a tree and a counted descriptor of it, for
// a request about name in it. If change, read-only trees refuse.
func (s *Server) dirOf(id uint64, name string, change bool) (*inode, *pathFD, fuse.Status) {
	if id == fuse.FUSE_ROOT_ID {
		return nil, nil, fuse.EROFS
	}
	n, code := s.node(id)
	if !code.Ok() {
		return nil, nil, code
	}
	if n.kind != kindFile || change && n.vol.tree.readOnly {
		return nil, nil, fuse.EROFS
	}
	if change {
		s.watch.did(n.id, name)
	}
	if !n.isDir() {
		return nil, nil, fuse.ENOTDIR
	}
	if code := checkName(name); !code.Ok() {
		return nil, nil, code
	}
	p, err := s.hold(n)
	if err != nil {
		return nil, nil, statusOf(err)
	}
	if change {
		if err := s.mapped(n.vol, p.fd, "", unix.EACCES); err != nil {
			p.release()
			return nil, nil, statusOf(err)
		}
	}
	return n, p, fuse.OK
}

// Lookup finds name in a directory. It opens nothing: one statx is enough until
// the file is used.
func (s *Server) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	s.watch.touch()
	if s.repeats(h) {
		if code, ok := s.fakeLookup(h, name, out); ok {
			return code
		}
	}
	n, ok, code := s.lookupSynthetic(h.NodeId, name)
	if ok {
		switch {
		case n != nil && code.Ok():
			code = s.entryOf(n, out)
			if n.typ == unix.S_IFSOCK {
				s.socketSeen(n)
			}
		case code.Ok() && (h.NodeId != fuse.FUSE_ROOT_ID || !s.socketEntry(name, wire.ConnectPrefix, out).Ok()):
			s.absent(out)
		}
		return code
	}
	dir, p, code := s.dirOf(h.NodeId, name, false)
	if !code.Ok() {
		return transient(code)
	}
	defer p.release()
	switch err := s.enter(dir, p, name, out); err {
	case nil:
		if out.Mode&unix.S_IFMT == unix.S_IFSOCK {
			if n, code := s.node(out.NodeId); code.Ok() {
				s.socketSeen(n)
			}
		}
		return fuse.OK
	case unix.ENOENT:
		s.absent(out)
		return fuse.OK
	default:
		return transient(statusOf(err))
	}
}

// transient turns a want of descriptors into ENOMEM. A kernel that revalidates a
// name and is told anything but ENOMEM or EINTR drops the name, and with it
// detaches what is mounted there.
func transient(code fuse.Status) fuse.Status {
	if code == fuse.Status(unix.EMFILE) || code == fuse.Status(unix.ENFILE) {
		return fuse.Status(unix.ENOMEM)
	}
	return code
}

// absent is a name that does not exist, which the guest may remember.
func (s *Server) absent(out *fuse.EntryOut) {
	*out = fuse.EntryOut{}
	out.SetEntryTimeout(s.opts.NegativeTimeout)
}

// enter looks name in dir up, counts a reference to it and fills in out.
func (s *Server) enter(dir *inode, p *pathFD, name string, out *fuse.EntryOut) error {
	var st unix.Statx_t
	if err := statxAt(p.fd, name, &st); err != nil {
		return err
	}
	v := s.volumeOf(dir.vol.tree, &st, p.fd, name)
	n, err := s.ref(v, &st, dir, name)
	if err != nil {
		return err
	}
	s.entry(n, &st, out)
	return nil
}

func (s *Server) entry(n *inode, st *unix.Statx_t, out *fuse.EntryOut) {
	*out = fuse.EntryOut{NodeId: n.id}
	out.SetEntryTimeout(s.opts.Timeout)
	out.SetAttrTimeout(s.opts.Timeout)
	if n.typ == unix.S_IFSOCK && s.socks.relay != nil {
		out.SetEntryTimeout(0) // each connect(2) shows whether somebody listens
	}
	n.vol.attr(st, &out.Attr)
}

// entryOf fills in out for a permanent inode.
func (s *Server) entryOf(n *inode, out *fuse.EntryOut) fuse.Status {
	var a fuse.AttrOut
	if code := s.attrOf(n, &a); !code.Ok() {
		return transient(code)
	}
	*out = fuse.EntryOut{NodeId: n.id, Attr: a.Attr}
	out.SetEntryTimeout(s.opts.Timeout)
	out.SetAttrTimeout(s.opts.Timeout)
	return fuse.OK
}

// lookupSynthetic answers for the directories above the trees; ok says that
// node id is one of them. n is nil if name is not in it.
func (s *Server) lookupSynthetic(id uint64, name string) (n *inode, ok bool, code fuse.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == fuse.FUSE_ROOT_ID {
		if t := s.trees[name]; t != nil {
			return t.dir, true, fuse.OK
		}
		return nil, true, fuse.OK
	}
	dir := s.table.get(id)
	if dir == nil || dir.kind != kindKey {
		return nil, false, fuse.OK
	}
	if t := dir.vol.tree; t.name == name {
		return t.root, true, fuse.OK
	}
	return nil, true, fuse.OK
}

// Inode numbers of the synthetic directories: beyond those of any volume.
const (
	rootIno = 1<<63 - 1
	keyIno  = 1<<63 - 1<<32 // plus the node id's slot
)

func syntheticAttr(ino uint64) fuse.Attr {
	return fuse.Attr{Ino: ino, Mode: unix.S_IFDIR | 0o555, Nlink: 2, Blksize: 4096}
}

// attrOf fills in out for any inode.
func (s *Server) attrOf(n *inode, out *fuse.AttrOut) fuse.Status {
	out.SetTimeout(s.opts.Timeout)
	if n.kind == kindGhost {
		out.Attr = ghostAttr(n)
		return fuse.OK
	}
	if n.kind == kindKey {
		out.Attr = syntheticAttr(keyIno + uint64(uint32(n.id)))
		return fuse.OK
	}
	var st unix.Statx_t
	if err := s.stat(n, &st); err != nil {
		return statusOf(err)
	}
	n.vol.attr(&st, &out.Attr)
	return fuse.OK
}

// GetAttr returns the attributes of a node, or of an open file.
func (s *Server) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId == fuse.FUSE_ROOT_ID {
		out.Attr = syntheticAttr(rootIno)
		out.SetTimeout(s.opts.Timeout)
		return fuse.OK
	}
	if in.Flags()&fuse.FUSE_GETATTR_FH != 0 {
		if f, code := s.file(in.Fh()); code.Ok() {
			defer f.release()
			if f.n.kind == kindFile && f.n.id == in.NodeId {
				var st unix.Statx_t
				if err := statxFD(f.fd, &st); err != nil {
					return statusOf(err)
				}
				out.SetTimeout(s.opts.Timeout)
				f.n.vol.attr(&st, &out.Attr)
				return fuse.OK
			}
		}
	}
	n, code := s.node(in.NodeId)
	if !code.Ok() {
		return code
	}
	return s.attrOf(n, out)
}

// Readlink returns the target of a symbolic link, which the guest resolves.
func (s *Server) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n, code := s.node(h.NodeId)
	if !code.Ok() {
		return nil, code
	}
	if n.typ != unix.S_IFLNK {
		return nil, fuse.EINVAL
	}
	p, err := s.hold(n)
	if err != nil {
		return nil, statusOf(err)
	}
	defer p.release()
	buf := make([]byte, unix.PathMax)
	l, err := unix.Readlinkat(p.fd, "", buf)
	if err != nil {
		return nil, statusOf(err)
	}
	return buf[:l], fuse.OK
}

// StatFs returns the numbers of the file system that a node is on.
func (s *Server) StatFs(_ <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	n, code := (*inode)(nil), fuse.OK
	if h.NodeId != fuse.FUSE_ROOT_ID {
		if n, code = s.node(h.NodeId); !code.Ok() {
			return code
		}
	}
	if n == nil || n.kind == kindKey {
		*out = fuse.StatfsOut{Bsize: 4096, Frsize: 4096, NameLen: maxName}
		return fuse.OK
	}
	p, err := s.hold(n)
	if err != nil {
		return statusOf(err)
	}
	defer p.release()
	var f unix.Statfs_t
	if err := unix.Fstatfs(p.fd, &f); err != nil {
		return statusOf(err)
	}
	*out = fuse.StatfsOut{
		Blocks: f.Blocks, Bfree: f.Bfree, Bavail: f.Bavail, Files: f.Files, Ffree: f.Ffree,
		Bsize: uint32(f.Bsize), NameLen: uint32(f.Namelen), Frsize: uint32(f.Frsize),
	}
	return fuse.OK
}
