// Package vsock dials the host. It does what github.com/mdlayher/vsock does
// without package net, whose start a guest need not pay for.
package vsock

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Conn is a connection to the host.
type Conn struct{ *os.File }

// connectTimeout is how long the host may take to answer, in seconds. The
// kernel's default of 2 s was too short for 1 run of 700, on a host with twenty
// times as much to do as it has processors.
const connectTimeout = 120

// socket makes an unconnected socket.
func socket() (int, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = unix.SetsockoptTimeval(fd, unix.AF_VSOCK, unix.SO_VM_SOCKETS_CONNECT_TIMEOUT, &unix.Timeval{Sec: connectTimeout})
	if err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("setsockopt", err)
	}
	return fd, nil
}

// Dial connects to a port of the host.
func Dial(port uint32) (*Conn, error) {
	fd, err := socket()
	if err != nil {
		return nil, err
	}
	c := &Conn{os.NewFile(uintptr(fd), "vsock")}
	if err := c.connect(port); err != nil {
		c.Close()
		return nil, fmt.Errorf("connect to port %d of the host: %w", port, err)
	}
	return c, nil
}

func (c *Conn) connect(port uint32) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	begun := false
	werr := raw.Write(func(fd uintptr) bool {
		if !begun {
			begun = true
			err = unix.Connect(int(fd), &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: port})
			return !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EINTR)
		}
		var n int
		if n, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil {
			return true
		}
		if n != 0 {
			err = unix.Errno(n)
			return true
		}
		// Woken early: it is connected when it has a peer.
		_, err = unix.Getpeername(int(fd))
		return !errors.Is(err, unix.ENOTCONN)
	})
	return errors.Join(err, werr)
}

// CloseWrite ends the direction to the host.
func (c *Conn) CloseWrite() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_WR) })
	return errors.Join(os.NewSyscallError("shutdown", err), cerr)
}
