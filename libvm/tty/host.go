package tty

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// Host is the terminal that runv was started on.
type Host struct {
	console console.Console
	own     *os.File // /dev/tty, if we opened it
	restore sync.Once
}

// OpenHost finds the caller's terminal: one of the standard streams, or the
// controlling terminal if all are redirected.
func OpenHost() (*Host, error) {
	for _, f := range []*os.File{os.Stderr, os.Stdout, os.Stdin} {
		c, err := console.ConsoleFromFile(f)
		if err == nil {
			return &Host{console: c}, nil
		} else if !errors.Is(err, console.ErrNotAConsole) {
			return nil, fmt.Errorf("unable to get console: %w", err)
		}
	}
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	c, err := console.ConsoleFromFile(f)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("unable to get console: %w", err)
	}
	return &Host{console: c, own: f}, nil
}

// Size is the terminal's size in characters; zeros if it does not say.
func (h *Host) Size() (rows, cols uint16) {
	ws, err := h.console.Size()
	if err != nil {
		return 0, 0
	}
	return ws.Height, ws.Width
}

// SetRaw hands every key through, until Close.
func (h *Host) SetRaw() error {
	if err := h.console.SetRaw(); err != nil {
		return fmt.Errorf("failed to set the terminal from the stdin: %w", err)
	}
	return nil
}

// Close gives the terminal the modes back that it had at OpenHost.
func (h *Host) Close() error {
	var err error
	h.restore.Do(func() {
		err = h.console.Reset()
		if h.own != nil {
			err = errors.Join(err, h.own.Close())
		}
	})
	return err
}

// Bridge copies between the standard streams and the master of a pty.
type Bridge struct {
	master *os.File // non-blocking, so that Close and deadlines work
	stop   *os.File // write end: closed to end the input
	in     sync.WaitGroup
	out    sync.WaitGroup
}

// NewBridge starts to copy from in to master and from master to out. It takes
// the master over.
func NewBridge(master, in, out *os.File) (*Bridge, error) {
	fd, err := unix.FcntlInt(master.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	_ = master.Close()
	if err != nil {
		return nil, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl O_NONBLOCK", err)
	}
	b := &Bridge{master: os.NewFile(uintptr(fd), "/dev/ptmx")}
	wait, stop, err := os.Pipe()
	if err != nil {
		_ = b.master.Close()
		return nil, err
	}
	b.stop = stop
	b.in.Go(func() { // ends with the input, the master, or stop
		defer wait.Close()
		copyInput(b.master, in, wait)
	})
	b.out.Go(func() { // ends with the slave's last user (EIO), or the master
		if !copyOutput(out, b.master) {
			_ = b.master.Close() // nobody to show anything to: hang up
		}
		// Else the master stays open: a session whose leader has closed
		// the slave and is about to exit would get a SIGHUP.
	})
	return b, nil
}

// copyInput copies until the input ends or stop is closed. A read that nothing
// can interrupt would swallow a key that was meant for the next program.
func copyInput(to io.Writer, from, stop *os.File) {
	fds := []unix.PollFd{
		{Fd: int32(from.Fd()), Events: unix.POLLIN},
		{Fd: int32(stop.Fd()), Events: unix.POLLIN},
	}
	buf := make([]byte, 32<<10)
	for {
		if _, err := unix.Poll(fds, -1); err == unix.EINTR {
			continue
		} else if err != nil || fds[1].Revents != 0 {
			return
		}
		n, err := unix.Read(int(fds[0].Fd), buf)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if n <= 0 {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// copyOutput copies until there is nothing more to read; false if it is the
// writing that failed.
func copyOutput(to io.Writer, from io.Reader) bool {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return false
			}
		}
		if err != nil {
			return true
		}
	}
}

// Resize sets the size of the pty, which tells the other side by SIGWINCH.
func (b *Bridge) Resize(rows, cols uint16) error { return setSize(b.master, rows, cols) }

// setSize leaves the descriptor non-blocking, unlike SetSize.
func setSize(f *os.File, rows, cols uint16) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ioctl error
	err = raw.Control(func(fd uintptr) {
		ioctl = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	return errors.Join(err, os.NewSyscallError("ioctl TIOCSWINSZ", ioctl))
}

// drainTime bounds the wait for the slave's last user after the process's end;
// what it wrote is in the pty's buffer by then, and is copied at once.
const drainTime = 2 * time.Second

// Drain is called when the process has ended: it copies the rest of the output
// and ends the bridge.
func (b *Bridge) Drain() {
	_ = b.stop.Close()
	_ = b.master.SetWriteDeadline(time.Now()) // nobody reads the rest of the input
	b.in.Wait()
	_ = b.master.SetReadDeadline(time.Now().Add(drainTime))
	b.out.Wait()
	_ = b.master.Close()
}
