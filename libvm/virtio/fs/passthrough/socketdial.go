package passthrough

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// probe returns the kind of a socket of the host that somebody has bound. A
// datagram socket can be connected to without its owner noticing; to another kind
// it cannot, with an error that says that it is there (unix(7)). Only to tell the
// other two apart a connection may be made, to a SOCK_SEQPACKET that listens.
func (s *Server) probe(n *inode) (int, error) {
	for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		fd, err := s.dial(n, kind, 0, 0)
		if err == nil {
			unix.Close(fd)
			return kind, nil
		}
		if err != unix.EPROTOTYPE {
			return 0, err
		}
		if o := s.knownKind(n); o != 0 {
			return o, nil
		}
	}
	return unix.SOCK_STREAM, nil
}

// knownKind is what an earlier probe of a node found: the kind of a socket does not change.
func (s *Server) knownKind(n *inode) int {
	s.socks.mu.Lock()
	defer s.socks.mu.Unlock()
	if o := s.socks.offered[n.id]; o != nil {
		return o.kind
	}
	return 0
}

// DialSocket connects to the socket of the host at a node, as a user that its
// owner may ask for (SO_PEERCRED). The descriptor is the caller's.
func (s *Server) DialSocket(node uint64, kind int, uid, gid uint32) (int, error) {
	n, code := s.node(node)
	if !code.Ok() {
		return -1, unix.Errno(code)
	}
	if n.typ != unix.S_IFSOCK {
		return -1, unix.ENOTSOCK
	}
	return s.dial(n, kind, uid, gid)
}

// dialTimeout is how long a server of the host may leave its backlog full, in seconds.
const dialTimeout = 5

func (s *Server) dial(n *inode, kind int, uid, gid uint32) (int, error) {
	p, err := s.hold(n)
	if err != nil {
		return -1, err
	}
	defer p.release()
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	tv := unix.Timeval{Sec: dialTimeout}
	if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err == nil {
		var b number
		b.set(p.fd)
		// What is connected to is the inode that was checked, whatever its name is by now.
		err = inDir(s.proc, func() error {
			if uid == 0 && gid == 0 {
				return unix.Connect(fd, &unix.SockaddrUnix{Name: b.String()})
			}
			if !s.ids {
				return unix.EPERM
			}
			return asEffective(int(uid), int(gid), func() error {
				return unix.Connect(fd, &unix.SockaddrUnix{Name: b.String()})
			})
		})
	}
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{})
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// inDir runs f on a thread of its own whose working directory is fd. The address
// of a Unix socket is a path, and no call takes it relative to a descriptor.
func inDir(fd int, f func() error) error {
	c := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Fchdir(fd)
		}
		if err == nil {
			err = f()
		}
		c <- err
	}()
	return <-c
}

// asEffective runs f with the effective ids of a user and the capabilities of now,
// on a thread that is not used for anything else afterwards.
func asEffective(uid, gid int, f func() error) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		return err
	}
	keep := ^uintptr(0)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, keep, uintptr(gid), keep); e != 0 {
		return e
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); e != 0 {
		return e
	}
	if err := unix.Capset(&hdr, &caps[0]); err != nil {
		return err
	}
	return f()
}
