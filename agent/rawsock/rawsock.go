// Package rawsock is what both ends of the relay of Unix sockets do with sockets that
// package net does not know: SOCK_SEQPACKET, and those that lie in a shared tree.
package rawsock

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// noFile is how long Accept waits for a descriptor to be free.
const noFile = 10 * time.Millisecond

// Accept waits for a connection to a listening socket and returns it with the flags
// of accept4(2), close-on-exec set. An error says that the socket was closed.
func Accept(listener syscall.RawConn, flags int) (int, error) {
	for {
		fd, err := -1, error(nil)
		closed := listener.Read(func(s uintptr) bool {
			fd, _, err = unix.Accept4(int(s), flags|unix.SOCK_CLOEXEC)
			return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED)
		})
		if closed != nil {
			return -1, closed
		}
		if err == nil {
			return fd, nil
		}
		time.Sleep(noFile) // no descriptor: there may be one later
	}
}

// Readable says whether a read of a socket would not wait, for RawConn.Read: which
// then waits without reading.
func Readable(fd uintptr) bool {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p[:], 0)
	return err == nil && n > 0
}

// CloseWrite ends the direction that is written. The peer may have gone.
func CloseWrite(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) })
}
