package harness

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// Pty is the master of a terminal with what it has shown so far.
type Pty struct {
	T       testing.TB
	SlaveAt string   // path of the slave, if we made it
	master  *os.File // non-blocking: closing it ends a read

	mu    sync.Mutex
	shown strings.Builder
	read  int // how much of it Expect has consumed
	ended bool
}

// NewPty makes a terminal.
func NewPty(t testing.TB) *Pty {
	t.Helper()
	c, slave, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	p := &Pty{T: t, SlaveAt: slave}
	p.listen(c.Fd())
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return p
}

// listen collects what the terminal of which fd is the master shows, until its
// last slave is closed.
func (p *Pty) listen(master uintptr) {
	p.T.Helper()
	fd, err := unix.FcntlInt(master, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		p.T.Fatal(os.NewSyscallError("fcntl", err))
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		p.T.Fatal(os.NewSyscallError("fcntl", err))
	}
	p.master = os.NewFile(uintptr(fd), "/dev/ptmx")
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := p.master.Read(buf)
			p.mu.Lock()
			p.shown.Write(buf[:n])
			if err != nil {
				p.ended = true
				p.mu.Unlock()
				return
			}
			p.mu.Unlock()
		}
	}()
	p.T.Cleanup(func() {
		p.Close()
		<-done
	})
}

// Close hangs up.
func (p *Pty) Close() {
	p.master.Close() //nolint:errcheck // it may be closed
}

// Slave opens the other side of a terminal that NewPty made.
func (p *Pty) Slave() *os.File {
	p.T.Helper()
	f, err := os.OpenFile(p.SlaveAt, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		p.T.Fatal(err)
	}
	return f
}

// Type presses keys.
func (p *Pty) Type(keys string) {
	p.T.Helper()
	if _, err := p.master.Write([]byte(keys)); err != nil {
		p.T.Fatalf("type %q: %v", keys, err)
	}
}

// Expect waits until the terminal shows text, behind what was expected before,
// and returns everything up to its end.
func (p *Pty) Expect(text string) string {
	p.T.Helper()
	end := time.Now().Add(Limit)
	for {
		p.mu.Lock()
		all := p.shown.String()
		i := strings.Index(all[p.read:], text)
		if i >= 0 {
			got := all[p.read : p.read+i+len(text)]
			p.read += i + len(text)
			p.mu.Unlock()
			return got
		}
		ended, rest := p.ended, all[p.read:]
		p.mu.Unlock()
		if ended || time.Now().After(end) {
			p.T.Fatalf("the terminal does not show %q (ended: %v), but %q", text, ended, rest)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// All waits for the terminal's end and returns everything that it has shown.
func (p *Pty) All() string {
	p.T.Helper()
	Within(p.T, Limit, "the terminal's end", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.ended
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shown.String()
}

// Resize sets the window size, in characters.
func (p *Pty) Resize(rows, cols uint16) {
	p.T.Helper()
	// Not by Fd, which would make the file blocking.
	conn, err := p.master.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) {
			err := unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
			if err != nil {
				p.T.Errorf("resize: %v", err)
			}
		})
	}
	if err != nil {
		p.T.Fatal(err)
	}
}

// Size is the window size, in characters.
func (p *Pty) Size() (rows, cols uint16) {
	p.T.Helper()
	conn, err := p.master.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) {
			ws, err := unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ)
			if err != nil {
				p.T.Errorf("window size: %v", err)
				return
			}
			rows, cols = ws.Row, ws.Col
		})
	}
	if err != nil {
		p.T.Fatal(err)
	}
	return rows, cols
}

// ConsoleSocket is the listener for --console-socket.
type ConsoleSocket struct {
	t    testing.TB
	l    *net.UnixListener
	Path string
}

// NewConsoleSocket listens in a directory.
func (r *Runtime) NewConsoleSocket() *ConsoleSocket {
	r.T.Helper()
	path := filepath.Join(r.Dir, "console-"+r.NewID())
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		r.T.Fatal(err)
	}
	r.T.Cleanup(func() { l.Close() }) //nolint:errcheck // its file goes with the test's directory
	return &ConsoleSocket{r.T, l, path}
}

// Receive returns the terminal whose master was sent.
func (c *ConsoleSocket) Receive() *Pty {
	c.t.Helper()
	f, err := c.receive()
	if err != nil {
		c.t.Fatalf("console socket: %v", err)
	}
	defer f.Close() //nolint:errcheck // it was duplicated
	if _, err := console.ConsoleFromFile(f); err != nil {
		c.t.Fatalf("what was sent is no terminal: %v", err)
	}
	p := &Pty{T: c.t}
	p.listen(f.Fd())
	return p
}

func (c *ConsoleSocket) receive() (*os.File, error) {
	if err := c.l.SetDeadline(time.Now().Add(Limit)); err != nil {
		return nil, err
	}
	conn, err := c.l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // only read
	if err := conn.SetDeadline(time.Now().Add(Limit)); err != nil {
		return nil, err
	}
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(name, oob)
	if err != nil {
		return nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		return nil, errors.Join(errors.New("no control message"), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(errors.New("not one descriptor"), err)
	}
	syscall.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), string(name[:n])), nil
}
