package queue

import (
	"os"

	"golang.org/x/sys/unix"
)

// OpenKick returns the end of the non-blocking eventfd fd that a queue reads, as
// a descriptor of its own, which the queue closes. Go's poller waits for it, so
// that Close ends a Read.
func OpenKick(fd int) (*os.File, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(own), "kick"), nil
}
