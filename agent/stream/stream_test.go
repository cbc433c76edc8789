package stream

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const patience = 30 * time.Second

// pair returns the agent's and the host's end of a connection.
func pair(t *testing.T) (*net.UnixConn, *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "conn")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if i == 1 {
			_ = c.SetDeadline(time.Now().Add(patience))
		}
		out[i] = c.(*net.UnixConn)
	}
	return out[0], out[1]
}

// pipe returns a process's end and ours.
func pipe(t *testing.T, reads bool) (process, ours *os.File) {
	t.Helper()
	fd, ours, err := Pipe(reads)
	if err != nil {
		t.Fatal(err)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("the process's end has flags %#x, %v", flags, err)
	}
	process = os.NewFile(uintptr(fd), "process")
	t.Cleanup(func() { process.Close(); ours.Close() })
	return process, ours
}

func openPty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	m, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no pty: %v (try: mount devpts)", err)
	}
	if err := unix.IoctlSetPointerInt(m, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(m), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		t.Fatal(errno)
	}
	return os.NewFile(uintptr(m), "master"), os.NewFile(fd, "slave")
}

// newInput returns an Input between the host's end and the process's.
func newInput(t *testing.T) (*net.UnixConn, *Input, *os.File) {
	t.Helper()
	var b Buffers
	a, host := pair(t)
	process, ours := pipe(t, true)
	in, err := b.NewInput(a, ours)
	if err != nil {
		t.Fatal(err)
	}
	return host, in, process
}

// newOutput returns an Output between the host's end and the process's.
func newOutput(t *testing.T) (*net.UnixConn, *Output, *os.File) {
	t.Helper()
	var b Buffers
	a, host := pair(t)
	process, ours := pipe(t, false)
	o, err := b.NewOutput(a, ours)
	if err != nil {
		t.Fatal(err)
	}
	return host, o, process
}

// newTerminal returns a Terminal between the host's end and the process's.
func newTerminal(t *testing.T) (*net.UnixConn, *Terminal, *os.File) {
	t.Helper()
	var b Buffers
	a, host := pair(t)
	master, slave := openPty(t)
	fd, err := unix.Dup(int(slave.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	process := os.NewFile(uintptr(fd), "process")
	t.Cleanup(func() { process.Close() })
	term, err := b.NewTerminal(a, master, slave)
	if err != nil {
		t.Fatal(err)
	}
	return host, term, process
}

func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("no %s", what)
	}
}

func TestOpenSendsTheToken(t *testing.T) {
	a, b := pair(t)
	token := []byte("0123456789abcdef")
	if _, err := Open(func() (Conn, error) { return a, nil }, token); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, TokenSize)
	if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, token) {
		t.Errorf("%q %v", got, err)
	}
	for _, bad := range [][]byte{nil, token[:15], append(token, 0)} {
		if _, err := Open(nil, bad); err == nil {
			t.Errorf("a token of %d bytes is taken", len(bad))
		}
	}
	no := errors.New("no")
	if _, err := Open(func() (Conn, error) { return nil, no }, token); !errors.Is(err, no) {
		t.Errorf("%v", err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("0123456789abcdef"))
	f.Fuzz(func(t *testing.T, token []byte) {
		no := errors.New("no")
		_, err := Open(func() (Conn, error) { return nil, no }, token)
		if errors.Is(err, no) != (len(token) == TokenSize) {
			t.Errorf("%d bytes: %v", len(token), err)
		}
	})
}

func TestInput(t *testing.T) {
	host, in, process := newInput(t)
	data := bytes.Repeat([]byte("x"), 300<<10) // more than the pipe and a buffer hold
	go func() {
		_, _ = host.Write(data)
		_ = host.CloseWrite()
	}()
	got, err := io.ReadAll(process)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	await(t, in.done, "end")
	in.Close()
}

// A process that does not read any more ends the stream for the host, too.
func TestInputNotRead(t *testing.T) {
	host, in, process := newInput(t)
	process.Close()
	if _, err := host.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	await(t, in.done, "end")
	if _, err := host.Read(make([]byte, 1)); err == nil {
		t.Error("the host's end is still open")
	}
}

func TestOutput(t *testing.T) {
	host, o, process := newOutput(t)
	data := bytes.Repeat([]byte("y"), 300<<10)
	go func() {
		_, _ = process.Write(data)
		process.Close()
	}()
	got, err := io.ReadAll(host)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	await(t, o.Done(), "end")
	if n := o.Written(); n != uint64(len(data)) {
		t.Errorf("counted %d", n)
	}
	host.Close()
	o.Close()
}

// What is still in the pipe counts as written, while the host takes nothing.
func TestWrittenCountsThePipe(t *testing.T) {
	host, o, process := newOutput(t)
	if err := unix.SetNonblock(int(process.Fd()), true); err != nil {
		t.Fatal(err)
	}
	counts(t, o, fill(t, int(process.Fd()), 4096), process, host)
	host.Close()
	o.Close()
}

// fill writes until nothing more goes in, by pieces, and returns how much did.
func fill(t *testing.T, fd, piece int) (written uint64) {
	t.Helper()
	chunk := make([]byte, piece)
	deadline := time.Now().Add(patience)
	for full := 0; full < 1000; {
		n, err := unix.Write(fd, chunk)
		switch {
		case errors.Is(err, unix.EAGAIN):
			full++
		case err != nil:
			t.Fatal(err)
		case time.Now().After(deadline):
			t.Fatal("it does not fill")
		default:
			full, written = 0, written+uint64(n)
		}
	}
	return written
}

// counts checks that a stream counts what its process has written, before and
// after the host takes it.
func counts(t *testing.T, s interface {
	Written() uint64
	Done() <-chan struct{}
}, written uint64, process io.Closer, host io.Reader) {
	t.Helper()
	if got := s.Written(); got != written {
		t.Errorf("counted %d of %d bytes", got, written)
	}
	go func() { _, _ = io.Copy(io.Discard, host) }()
	process.Close()
	await(t, s.Done(), "end")
	if got := s.Written(); got != written {
		t.Errorf("counted %d of %d bytes at the end", got, written)
	}
}

// The host's reader goes away while the process is silent.
func TestOutputReaderGone(t *testing.T) {
	host, o, process := newOutput(t)
	host.Close()
	await(t, o.Done(), "end")
	if _, err := unix.Write(int(process.Fd()), []byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("write: %v, want EPIPE", err)
	}
	o.Close()
}

func TestTerminalSettles(t *testing.T) {
	host, term, process := newTerminal(t)
	if err := term.Resize(7, 8); err != nil {
		t.Fatal(err)
	}
	if w, err := unix.IoctlGetWinsize(int(process.Fd()), unix.TIOCGWINSZ); err != nil || w.Row != 7 || w.Col != 8 {
		t.Errorf("%+v %v", w, err)
	}
	if _, err := process.WriteString("output"); err != nil {
		t.Fatal(err)
	}
	// Another process has the terminal open: it lives on.
	term.Release()
	if n := term.Settle(); n != 6 {
		t.Errorf("settled at %d bytes", n)
	}
	got := make([]byte, 6)
	if _, err := io.ReadFull(host, got); err != nil || string(got) != "output" {
		t.Errorf("%q %v", got, err)
	}
	process.Close()
	if rest, err := io.ReadAll(host); err != nil || len(rest) != 0 {
		t.Errorf("%q %v", rest, err)
	}
	await(t, term.Done(), "end")
	host.Close()
	term.Close()
}

func TestTerminalHangUp(t *testing.T) {
	host, term, process := newTerminal(t)
	host.Close()
	await(t, term.Done(), "end")
	// The master is gone once the read that may be under way has let go of it.
	for end := time.Now().Add(10 * time.Second); ; {
		if _, err := process.WriteString("x"); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("a terminal that was hung up takes output")
		}
	}
	term.Close()
}
