package libvm

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"runv/libvm/tty"
)

// What comes along with a pidfd: the words of runc, whose init sends its own.
const (
	pidfdInit = "standard" // of the process of create and run
	pidfdExec = "setns"    // of exec
)

// dialPidfd connects to the socket that is to take a pidfd, before anything is
// started that would have to be taken back; nil for no socket.
func dialPidfd(path string) (*os.File, error) {
	if path == "" {
		return nil, nil
	}
	conn, err := tty.Dial(path)
	if err != nil {
		return nil, fmt.Errorf("pidfd socket %q: %w (check that somebody listens on it)", path, err)
	}
	return conn, nil
}

// sendPidfd sends a pidfd of a process over conn, and closes that; it may be nil. The process is
// ours, or a child of ours that was not waited for: its pid is nobody else's.
func sendPidfd(conn *os.File, message string, pid int) error {
	if conn == nil {
		return nil
	}
	defer conn.Close()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("pidfd socket: %w", os.NewSyscallError("pidfd_open", err))
	}
	defer unix.Close(fd)
	for {
		err := unix.Sendmsg(int(conn.Fd()), []byte(message), unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("send the pidfd: %w", os.NewSyscallError("sendmsg", err))
		}
	}
}
