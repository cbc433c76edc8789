package libvm

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/state"
)

// process is a process that cannot be mistaken for another.
type process struct {
	pidfd int
	pid   int
	start uint64 // as in a state
}

// openProcess opens the process of a state; nil if there is none any more.
func openProcess(s state.State) (*process, error) {
	if s.PID <= 0 {
		return nil, nil
	}
	fd, err := unix.PidfdOpen(s.PID, 0)
	if err == unix.ESRCH || err == unix.EINVAL { // EINVAL: no thread group leader
		return nil, nil
	} else if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	// From here on the pid cannot be reused without the descriptor telling.
	if !state.Alive(s.PID, s.StartTime) {
		_ = unix.Close(fd)
		return nil, nil
	}
	return &process{pidfd: fd, pid: s.PID, start: s.StartTime}, nil
}

func (p *process) close() { _ = unix.Close(p.pidfd) }

func (p *process) kill() error { return p.signal(unix.SIGKILL) }

// signal sends a signal; a process that has ended is no error.
func (p *process) signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0)
	if err == unix.ESRCH {
		return nil
	}
	return os.NewSyscallError("pidfd_send_signal", err)
}

// pollStep bounds one poll, so that a context's end is seen.
const pollStep = 100 * time.Millisecond

// wait reports whether the process ended (it may be a zombie still) within d
// and before the end of ctx. A monitor whose stand-in nobody has reaped has ended
// as well, but for the kernel, which does not tell of it before.
func (p *process) wait(ctx context.Context, d time.Duration) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	for end := time.Now().Add(d); ; {
		left := min(time.Until(end), pollStep)
		n, err := unix.Poll(fds, int(max(left, 0).Milliseconds()))
		switch {
		case n > 0:
			return true, nil
		case err != nil && err != unix.EINTR:
			return false, os.NewSyscallError("poll", err)
		case !state.Alive(p.pid, p.start):
			return true, nil
		case left <= 0:
			return false, nil
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		}
	}
}
