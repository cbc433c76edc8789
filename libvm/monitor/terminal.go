package monitor

import (
	"context"
	"fmt"
	"math"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/api"
	"runv/libvm/tty"
)

// terminal is the host's side of the workload's terminal. Its slave is in raw
// mode, as the guest's pty does the line discipline, and is the controlling
// terminal of the monitor, which so learns of new window sizes and a hang-up.
type terminal struct {
	slave *os.File
}

// newTerminal makes a pty pair of a size, which may be nil, and sends its master
// over the console socket, which it closes.
func newTerminal(console *os.File, size *specs.Box) (*terminal, error) {
	defer console.Close() //nolint:errcheck // the master is sent
	master, slave, err := tty.Open()
	if err != nil {
		return nil, err
	}
	defer master.Close() //nolint:errcheck // its receiver has a copy
	if err := unix.IoctlSetInt(int(slave.Fd()), unix.TIOCSCTTY, 0); err != nil {
		slave.Close() //nolint:errcheck // unused
		return nil, fmt.Errorf("controlling terminal: %w", os.NewSyscallError("ioctl", err))
	}
	if size != nil {
		err = tty.SetSize(slave, uint16(min(size.Height, math.MaxUint16)), uint16(min(size.Width, math.MaxUint16)))
	}
	if err == nil {
		err = tty.Send(console, master)
	}
	if err != nil {
		slave.Close() //nolint:errcheck // unused
		return nil, err
	}
	return &terminal{slave: slave}, nil
}

// size returns the window size, in characters; 0, 0 if nobody has set one.
func (t *terminal) size() (rows, cols uint32) {
	r, c := tty.Size(t.slave)
	return uint32(r), uint32(c)
}

// hungUp says whether the master is gone.
func (t *terminal) hungUp() bool {
	p := []unix.PollFd{{Fd: int32(t.slave.Fd())}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLHUP != 0
}

func (t *terminal) close() {
	t.slave.Close() //nolint:errcheck // nothing is buffered
}

// resize passes the window size on, if there is one.
func (m *monitor) resize(ctx context.Context) {
	rows, cols := m.term.size()
	if rows == 0 && cols == 0 {
		return
	}
	_, err := m.container.agent().Resize(ctx, &api.ResizeRequest{Id: m.launch.ID, Rows: rows, Cols: cols})
	if err != nil {
		m.log.Debug("resize", "error", err)
	}
}
