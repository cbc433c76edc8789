package passthrough

import (
	"bytes"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Extended attributes, by name:
//
//	user.*, system.posix_acl_*, security.capability   as they are
//	trusted.*                      kept on the host as user.runv.trusted.*: real
//	                               ones steer overlayfs, so that a guest could make
//	                               the host's overlay of a volume lead anywhere
//	user.runv.*                    not there for the guest
//	security.* else                read only: labels are the host's policy
//	all else                       not supported
const (
	trustedPrefix = "trusted."
	hiddenPrefix  = "user.runv."
	mappedPrefix  = hiddenPrefix + trustedPrefix

	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
	capability = "security.capability"
)

// maxXattr is the largest value or list (XATTR_SIZE_MAX, XATTR_LIST_MAX), in bytes.
const maxXattr = 64 << 10

// hostName maps the name that the guest uses to the one on the host.
func hostName(name string, change bool) (string, fuse.Status) {
	switch {
	case strings.IndexByte(name, 0) >= 0 || name == "" || len(name) > maxName:
		return "", fuse.ERANGE
	case strings.HasPrefix(name, trustedPrefix):
		if len(hiddenPrefix)+len(name) > maxName {
			return "", fuse.ERANGE
		}
		return hiddenPrefix + name, fuse.OK
	case strings.HasPrefix(name, hiddenPrefix):
		if change {
			return "", fuse.EPERM
		}
		return "", fuse.ENODATA
	case strings.HasPrefix(name, "user."), name == aclAccess, name == aclDefault, name == capability:
		return name, fuse.OK
	case strings.HasPrefix(name, "security."):
		if change {
			return "", fuse.EPERM
		}
		return name, fuse.OK
	}
	return "", fuse.Status(unix.EOPNOTSUPP)
}

// GetXAttr reads an attribute, or returns its size if dest is empty.
func (s *Server) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	name, code := hostName(attr, false)
	if !code.Ok() {
		return 0, code
	}
	n, p, code := s.xattrNode(h.NodeId, false)
	if !code.Ok() {
		return 0, code
	}
	defer p.release()
	if n.vol.ids.namesIDs(name) {
		return s.getMapped(n, p, name, dest)
	}
	sz, err := s.getxattr(n, p, name, dest)
	return uint32(max(sz, 0)), statusOf(err)
}

// getMapped reads an attribute that names ids.
func (s *Server) getMapped(n *inode, p *pathFD, name string, dest []byte) (uint32, fuse.Status) {
	raw := make([]byte, maxXattr)
	sz, err := s.getxattr(n, p, name, raw)
	if err != nil {
		return 0, statusOf(err)
	}
	value, err := n.vol.ids.xattrToGuest(name, raw[:sz])
	if err != nil {
		return 0, statusOf(err)
	}
	if len(dest) == 0 {
		return uint32(len(value)), fuse.OK
	}
	if len(dest) < len(value) {
		return 0, fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

// ListXAttr lists the names that the guest may see.
func (s *Server) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n, p, code := s.xattrNode(h.NodeId, false)
	if !code.Ok() {
		return 0, code
	}
	defer p.release()
	sz, err := s.listxattr(n, p, nil)
	if err != nil || sz == 0 {
		return 0, statusOf(err)
	}
	raw := make([]byte, maxXattr)
	if sz, err = s.listxattr(n, p, raw); err != nil {
		return 0, statusOf(err)
	}
	list := guestList(raw[:sz])
	if len(dest) == 0 {
		return uint32(len(list)), fuse.OK
	}
	if len(dest) < len(list) {
		return uint32(len(list)), fuse.ERANGE
	}
	return uint32(copy(dest, list)), fuse.OK
}

// guestList rewrites a list of the host's names, in place.
func guestList(raw []byte) []byte {
	out := raw[:0]
	for len(raw) > 0 {
		i := bytes.IndexByte(raw, 0)
		if i < 0 {
			break
		}
		name := raw[:i+1]
		raw = raw[i+1:]
		switch {
		case bytes.HasPrefix(name, []byte(mappedPrefix)):
			name = name[len(hiddenPrefix):]
		case bytes.HasPrefix(name, []byte(hiddenPrefix)), bytes.HasPrefix(name, []byte(trustedPrefix)):
			continue
		}
		out = append(out, name...)
	}
	return out
}

// SetXAttr sets an attribute.
func (s *Server) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	name, code := hostName(attr, true)
	if !code.Ok() {
		return code
	}
	if int(in.Size) > len(data) {
		return fuse.EINVAL
	}
	n, p, code := s.xattrNode(in.NodeId, true)
	if !code.Ok() {
		return code
	}
	defer p.release()
	value, err := n.vol.ids.xattrToFile(name, data[:in.Size])
	if err != nil {
		return statusOf(err)
	}
	if err := s.setxattr(n, p, name, value, in.Flags); err != nil {
		return statusOf(err)
	}
	n.acl.Store(0)
	if name == aclAccess && in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0 {
		var st unix.Statx_t
		if err := statxFD(p.fd, &st); err != nil {
			return statusOf(err)
		}
		if st.Mode&unix.S_ISGID != 0 {
			return statusOf(s.chmodFD(p.fd, uint32(st.Mode)&0o7777&^unix.S_ISGID))
		}
	}
	return fuse.OK
}

// RemoveXAttr removes an attribute.
func (s *Server) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	name, code := hostName(attr, true)
	if !code.Ok() {
		return code
	}
	n, p, code := s.xattrNode(h.NodeId, true)
	if !code.Ok() {
		return code
	}
	defer p.release()
	n.acl.Store(0)
	return statusOf(s.removexattr(n, p, name))
}

// xattrNode returns a node and a counted descriptor of it.
func (s *Server) xattrNode(id uint64, change bool) (*inode, *pathFD, fuse.Status) {
	if id == fuse.FUSE_ROOT_ID {
		if change {
			return nil, nil, fuse.EROFS
		}
		return nil, nil, fuse.ENODATA
	}
	n, code := s.node(id)
	switch {
	case !code.Ok():
		return nil, nil, code
	case change && (n.kind == kindKey || n.vol.tree.readOnly):
		return nil, nil, fuse.EROFS
	case n.kind == kindKey:
		return nil, nil, fuse.ENODATA
	}
	p, err := s.hold(n)
	if err != nil {
		return nil, nil, statusOf(err)
	}
	if change {
		if err := s.mapped(n.vol, p.fd, "", unix.EOVERFLOW); err != nil {
			p.release()
			return nil, nil, statusOf(err)
		}
	}
	return n, p, fuse.OK
}

// aclAge is how long it is remembered that a directory has no default ACL.
const aclAge = 500 * time.Millisecond

// hasDefaultACL reports whether dir gives new files an ACL.
func (s *Server) hasDefaultACL(dir *inode, p *pathFD) bool {
	now := time.Now().UnixNano()
	if at := dir.acl.Load(); at != 0 && now-at < int64(aclAge) {
		return false
	}
	if sz, err := s.getxattr(dir, p, aclDefault, nil); err == nil && sz > 0 {
		return true
	}
	dir.acl.Store(now)
	return false
}

// xattrArgs is struct xattr_args (linux/xattr.h).
type xattrArgs struct {
	value uint64
	size  uint32
	flags uint32
}

// The system calls of Linux 6.13, relative to a directory: our /proc/self/fd.
const (
	sysSetxattrat    = 463
	sysGetxattrat    = 464
	sysListxattrat   = 465
	sysRemovexattrat = 466
)

// haveXattrAt reports whether the kernel has getxattrat(2).
func haveXattrAt(proc int) bool {
	_, _, e := unix.Syscall6(sysGetxattrat, uintptr(proc), 0, 0, 0, 0, 0)
	return e != unix.ENOSYS
}

func (s *Server) getxattr(n *inode, p *pathFD, name string, dest []byte) (int, error) {
	if s.xat {
		return s.xattrAt(sysGetxattrat, p.fd, name, dest, 0)
	}
	return s.xattrOld(n, p, func(fd int, path string) (int, error) {
		if path != "" {
			return unix.Getxattr(path, name, dest)
		}
		return unix.Fgetxattr(fd, name, dest)
	})
}

func (s *Server) setxattr(n *inode, p *pathFD, name string, data []byte, flags uint32) error {
	if s.xat {
		_, err := s.xattrAt(sysSetxattrat, p.fd, name, data, flags)
		return err
	}
	_, err := s.xattrOld(n, p, func(fd int, path string) (int, error) {
		if path != "" {
			return 0, unix.Setxattr(path, name, data, int(flags))
		}
		return 0, unix.Fsetxattr(fd, name, data, int(flags))
	})
	return err
}

// xattrAt is getxattrat or setxattrat of the file behind fd.
func (s *Server) xattrAt(trap uintptr, fd int, name string, data []byte, flags uint32) (int, error) {
	var b number
	cname, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	path := b.set(fd)
	// From here to the system call nothing may move data: no call that grows the stack.
	args := xattrArgs{value: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(data)))), size: uint32(len(data)), flags: flags}
	sz, _, e := unix.Syscall6(trap, uintptr(s.proc), uintptr(unsafe.Pointer(path)), 0,
		uintptr(unsafe.Pointer(cname)), uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args))
	runtime.KeepAlive(data)
	if e != 0 {
		return 0, e
	}
	return int(sz), nil
}

func (s *Server) listxattr(n *inode, p *pathFD, dest []byte) (int, error) {
	if s.xat {
		var b number
		sz, _, e := unix.Syscall6(sysListxattrat, uintptr(s.proc), uintptr(unsafe.Pointer(b.set(p.fd))), 0,
			uintptr(unsafe.Pointer(unsafe.SliceData(dest))), uintptr(len(dest)), 0)
		if e != 0 {
			return 0, e
		}
		return int(sz), nil
	}
	return s.xattrOld(n, p, func(fd int, path string) (int, error) {
		if path != "" {
			return unix.Listxattr(path, dest)
		}
		return unix.Flistxattr(fd, dest)
	})
}

func (s *Server) removexattr(n *inode, p *pathFD, name string) error {
	if s.xat {
		var b number
		cname, err := unix.BytePtrFromString(name)
		if err != nil {
			return err
		}
		_, _, e := unix.Syscall6(sysRemovexattrat, uintptr(s.proc), uintptr(unsafe.Pointer(b.set(p.fd))), 0,
			uintptr(unsafe.Pointer(cname)), 0, 0)
		if e != 0 {
			return e
		}
		return nil
	}
	_, err := s.xattrOld(n, p, func(fd int, path string) (int, error) {
		if path != "" {
			return 0, unix.Removexattr(path, name)
		}
		return 0, unix.Fremovexattr(fd, name)
	})
	return err
}

// xattrOld runs f before Linux 6.13: on an open descriptor, or, for what must
// not be opened, with a path relative to the thread's working directory.
func (s *Server) xattrOld(n *inode, p *pathFD, f func(fd int, path string) (int, error)) (int, error) {
	if n.isReg() || n.isDir() {
		fd, err := s.openFD(p.fd, unix.O_RDONLY)
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		return f(fd, "")
	}
	type result struct {
		n   int
		err error
	}
	c := make(chan result)
	go func() {
		// The thread gets a working directory of its own, and so must end with
		// this goroutine: it stays locked.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Fchdir(s.proc)
		}
		var r result
		if r.err = err; err == nil {
			var b number
			b.set(p.fd)
			r.n, r.err = f(-1, b.String())
		}
		c <- r
	}()
	r := <-c
	return r.n, r.err
}
