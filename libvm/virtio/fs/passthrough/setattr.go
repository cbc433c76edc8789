package passthrough

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// change returns the inode for a request that changes it.
func (s *Server) change(id uint64) (*inode, fuse.Status) {
	if id == fuse.FUSE_ROOT_ID {
		return nil, fuse.EROFS
	}
	n, code := s.node(id)
	if !code.Ok() {
		return nil, code
	}
	if n.kind != kindFile || n.vol.tree.readOnly {
		return nil, fuse.EROFS
	}
	s.didFile(n)
	return n, fuse.OK
}

// SetAttr changes size, owner, mode and times, in this order: a change of owner
// clears setuid and setgid, and a change of size sets the times.
func (s *Server) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if s.repeats(&in.InHeader) {
		return s.repeatSetAttr(in.NodeId, out)
	}
	n, code := s.change(in.NodeId)
	if !code.Ok() {
		return code
	}
	p, err := s.hold(n)
	if err != nil {
		return statusOf(err)
	}
	defer p.release()
	if in.Valid&(fuse.FATTR_UID|fuse.FATTR_GID) != fuse.FATTR_UID|fuse.FATTR_GID {
		if err := s.mapped(n.vol, p.fd, "", unix.EOVERFLOW); err != nil {
			return statusOf(err)
		}
	}
	if in.Valid&fuse.FATTR_SIZE != 0 {
		if err := s.truncate(n, p, in); err != nil {
			return statusOf(err)
		}
	}
	if in.Valid&(fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		if err := chown(n.vol.ids, p.fd, in); err != nil {
			return statusOf(err)
		}
	}
	if in.Valid&fuse.FATTR_MODE != 0 {
		if n.typ == unix.S_IFLNK {
			return fuse.Status(unix.EOPNOTSUPP)
		}
		if err := s.chmodFD(p.fd, in.Mode&0o7777); err != nil {
			return statusOf(err)
		}
	}
	if in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME|fuse.FATTR_ATIME_NOW|fuse.FATTR_MTIME_NOW) != 0 {
		ts := []unix.Timespec{
			timespec(in.Valid&fuse.FATTR_ATIME != 0, in.Valid&fuse.FATTR_ATIME_NOW != 0, in.Atime, in.Atimensec),
			timespec(in.Valid&fuse.FATTR_MTIME != 0, in.Valid&fuse.FATTR_MTIME_NOW != 0, in.Mtime, in.Mtimensec),
		}
		if err := unix.UtimesNanoAt(p.fd, "", ts, unix.AT_EMPTY_PATH); err != nil {
			return statusOf(err)
		}
	}
	var st unix.Statx_t
	if err := statxFD(p.fd, &st); err != nil {
		return statusOf(err)
	}
	out.SetTimeout(s.opts.Timeout)
	n.vol.attr(&st, &out.Attr)
	return fuse.OK
}

func timespec(set, now bool, sec uint64, nsec uint32) unix.Timespec {
	switch {
	case now:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case set:
		return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
	}
	return unix.Timespec{Nsec: unix.UTIME_OMIT}
}

func chown(m *IDMap, fd int, in *fuse.SetAttrIn) error {
	uid, gid := -1, -1
	if in.Valid&fuse.FATTR_UID != 0 {
		uid = int(in.Uid)
	}
	if in.Valid&fuse.FATTR_GID != 0 {
		gid = int(in.Gid)
	}
	if m != nil {
		u, ok := fileID(m.UID, in.Uid)
		g, both := fileID(m.GID, in.Gid)
		if uid >= 0 && !ok || gid >= 0 && !both {
			return unix.EOVERFLOW
		}
		if uid >= 0 {
			uid = int(u)
		}
		if gid >= 0 {
			gid = int(g)
		}
	}
	return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH)
}

// truncate sets the size, through the open file if the guest names one: its
// caller may have lost the permission to open the file anew.
func (s *Server) truncate(n *inode, p *pathFD, in *fuse.SetAttrIn) error {
	if !n.isReg() {
		return unix.EINVAL
	}
	fd := -1
	if in.Valid&fuse.FATTR_FH != 0 {
		if f, code := s.file(in.Fh); code.Ok() {
			defer f.release()
			if f.n == n && f.write {
				fd = f.fd
			}
		}
	}
	if fd < 0 {
		w, err := s.openFD(p.fd, unix.O_WRONLY)
		if err != nil {
			return err
		}
		defer unix.Close(w) //nolint:errcheck // nothing was written through it
		fd = w
	}
	if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
		if err := s.killSUID(fd); err != nil {
			return err
		}
	}
	return unix.Ftruncate(fd, int64(in.Size))
}

// killSUID clears setuid and setgid as a write without CAP_FSETID does. We have
// that capability, so the host's kernel leaves them; the guest says when they
// have to go (HANDLE_KILLPRIV_V2). File capabilities go by themselves.
func (s *Server) killSUID(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	kill := st.Mode & unix.S_ISUID
	if st.Mode&unix.S_IXGRP != 0 {
		kill |= st.Mode & unix.S_ISGID
	}
	if kill == 0 {
		return nil
	}
	return s.chmodFD(fd, st.Mode&0o7777&^kill)
}
