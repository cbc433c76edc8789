package monitor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/guest"
	"runv/libvm/tty"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// ports plays the vsock device: a port is a Unix socket in a directory.
type ports struct{ dir string }

func (p ports) Listen(port uint32) (net.Listener, error) {
	l, err := net.Listen("unix", filepath.Join(p.dir, strconv.Itoa(int(port))))
	return listener{l}, err
}

// listener accepts what plays a vsock connection.
type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return hangUpConn{c.(*net.UnixConn)}, nil
}

type hangUpConn struct{ *net.UnixConn }

func (c hangUpConn) hungUp(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	_, err := unix.Poll(p, 0)
	return err != nil || p[0].Revents&unix.POLLHUP != 0
}

func (c hangUpConn) HungUp() (yes bool) {
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { yes = c.hungUp(fd) })
	}
	return yes || err != nil
}

func (c hangUpConn) AwaitHangUp() {
	if raw, err := c.SyscallConn(); err == nil {
		raw.Read(c.hungUp) //nolint:errcheck // closed here
	}
}

// open plays the agent, which opens the stream of a token.
func (p ports) open(t *testing.T, token []byte) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", filepath.Join(p.dir, strconv.Itoa(guest.StreamPort)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write(token); err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn)
}

// pipe returns both ends of a pipe; the test closes what is left of them.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// started makes a relay of f and plays the agent that opens its streams.
func started(t *testing.T, f files) (r *relay, stdin, stdout, stderr *net.UnixConn) {
	t.Helper()
	p := ports{t.TempDir()}
	g, err := guest.New(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	if r, err = newRelay(g, f); err != nil {
		t.Fatal(err)
	}
	s := r.stdio()
	conns := [3]*net.UnixConn{}
	for i, token := range [][]byte{s.Stdin, s.Stdout, s.Stderr} {
		if len(token) > 0 {
			conns[i] = p.open(t, token)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.start(ctx); err != nil {
		t.Fatal(err)
	}
	return r, conns[0], conns[1], conns[2]
}

// within fails the test if f does not return in time.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s: not within %v", what, patience)
	}
}

func TestRelayCopiesAllStreams(t *testing.T) {
	inR, inW := pipe(t)
	outR, outW := pipe(t)
	errR, errW := pipe(t)
	r, stdin, stdout, stderr := started(t, files{stdin: inR, stdout: outW, stderr: errW})

	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB, far more than any buffer
	go func() { inW.Write(big); inW.Close() }()            //nolint:errcheck // the reader tells
	got, err := io.ReadAll(stdin)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(big) {
		t.Fatalf("stdin: %d bytes of %d, %v", len(got), len(big), err)
	}
	go func() { stdout.Write(big); stdout.Close() }()            //nolint:errcheck // the reader tells
	go func() { stderr.Write([]byte("oops")); stderr.Close() }() //nolint:errcheck // the reader tells
	out, err := io.ReadAll(outR)
	if err != nil || !bytes.Equal(out, big) {
		t.Fatalf("stdout: %d bytes of %d, %v", len(out), len(big), err)
	}
	if e, err := io.ReadAll(errR); err != nil || string(e) != "oops" {
		t.Fatalf("stderr: %q, %v", e, err)
	}
	within(t, "drained", func() { r.drained(t.Context()) })
	within(t, "close", r.close)
}

func TestRelayTellsTheGuestThatNobodyReads(t *testing.T) {
	outR, outW := pipe(t)
	r, _, stdout, _ := started(t, files{stdout: outW})
	outR.Close()
	stdout.SetWriteDeadline(time.Now().Add(patience)) //nolint:errcheck // the write tells
	var err error
	for err == nil {
		_, err = stdout.Write([]byte("is anybody there?\n"))
	}
	if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("write after the reader has gone: got %v, want a broken pipe", err)
	}
	within(t, "close", r.close)
}

func TestRelayWritesToAPipeThatBecameNonBlocking(t *testing.T) {
	outR, outW := pipe(t)
	r, _, stdout, _ := started(t, files{stdout: outW})
	// Somebody who shares the open file, such as a shell, may do so at any time.
	if err := unix.SetNonblock(int(outR.Fd()), false); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(int(outW.Fd()), true); err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB: the pipe fills
	go func() { stdout.Write(big); stdout.Close() }()      //nolint:errcheck // the reader tells
	within(t, "a full pipe", func() {
		for n, err := 0, error(nil); n < 1<<16; { // until it is full
			if n, err = unix.IoctlGetInt(int(outR.Fd()), unix.TIOCINQ); err != nil {
				t.Error(err)
				return
			}
		}
	})
	got, err := io.ReadAll(outR)
	if err != nil || !bytes.Equal(got, big) {
		t.Errorf("got %d bytes of %d, %v", len(got), len(big), err)
	}
	within(t, "close", r.close)
}

func TestRelayDoesNotWaitForAnIdleStdin(t *testing.T) {
	inR, _ := pipe(t)
	outR, outW := pipe(t)
	r, stdin, stdout, _ := started(t, files{stdin: inR, stdout: outW})
	stdout.Write([]byte("bye")) //nolint:errcheck // the reader tells
	stdout.Close()
	within(t, "drained", func() { r.drained(t.Context()) })
	if b, err := io.ReadAll(outR); err != nil || string(b) != "bye" {
		t.Errorf("stdout: got %q, %v", b, err)
	}
	within(t, "close", r.close)
	if _, err := stdin.Read(make([]byte, 1)); err == nil {
		t.Error("stdin of the guest is still open")
	}
}

func TestRelayDeliveredCountsBytes(t *testing.T) {
	outR, outW := pipe(t)
	r, _, stdout, _ := started(t, files{stdout: outW})
	stdout.Write([]byte("before the end")) //nolint:errcheck // the reader tells
	// A child keeps the stream open, but what the process wrote is delivered.
	within(t, "delivered", func() { r.delivered(t.Context(), uint64(len("before the end")), 0) })
	b := make([]byte, 64)
	if n, err := outR.Read(b); err != nil || string(b[:n]) != "before the end" {
		t.Errorf("got %q, %v", b[:n], err)
	}
	// A guest that claims more than it ever sends is not waited for once it closed.
	stdout.Close()
	within(t, "delivered of a lie", func() { r.delivered(t.Context(), 1<<40, 1<<40) })
	within(t, "close", r.close)
}

// stuck makes a relay whose guest writes more than the reader of stdout, which
// reads nothing, has room for.
func stuck(t *testing.T) *relay {
	t.Helper()
	outR, outW := pipe(t)
	r, _, stdout, _ := started(t, files{stdout: outW})
	go stdout.Write(make([]byte, 1<<20)) //nolint:errcheck // ends with the relay
	poll := []unix.PollFd{{Fd: int32(outW.Fd()), Events: unix.POLLOUT}}
	for end := time.Now().Add(patience); ; {
		if n, err := unix.Poll(poll, 0); err == nil && n == 0 {
			break // the pipe is full
		}
		if time.Now().After(end) {
			t.Fatal("the pipe does not fill up")
		}
		runtime.Gosched()
	}
	t.Cleanup(func() { outR.Close() })
	return r
}

func TestRelayOfAStuckReaderEnds(t *testing.T) {
	r := stuck(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	within(t, "drained", func() { r.drained(ctx) })
	within(t, "close", r.close)
}

func TestRelayOfAKilledProcessExpires(t *testing.T) {
	r := stuck(t)
	within(t, "expire", func() { r.expire(10 * time.Millisecond) })
	within(t, "drained", func() { r.drained(t.Context()) })
	within(t, "close", r.close)
}

func TestRelayDoesNotExpireWhileItIsRead(t *testing.T) {
	outR, outW := pipe(t)
	r, _, stdout, _ := started(t, files{stdout: outW})
	expired := make(chan struct{})
	go func() { defer close(expired); r.expire(patience) }()
	stdout.Write([]byte("read")) //nolint:errcheck // the reader tells
	stdout.Close()
	within(t, "drained", func() { r.drained(t.Context()) })
	if b, err := io.ReadAll(outR); err != nil || string(b) != "read" {
		t.Errorf("got %q, %v", b, err)
	}
	within(t, "close", r.close)
	within(t, "end of expire", func() { <-expired })
}

func TestRelayTerminalKeepsItsOutput(t *testing.T) {
	master, slave, err := tty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	r, conn, _, _ := started(t, files{tty: slave})
	// The process has ended; what it wrote is still on its way.
	r.endInput()
	within(t, "end of the input", r.inputs.Wait)
	if _, err := conn.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("last words"))
	if _, err := io.ReadFull(master, got); err != nil || string(got) != "last words" {
		t.Errorf("got %q, %v, want the last words", got, err)
	}
	within(t, "close", r.close)
}

func TestRelayTerminal(t *testing.T) {
	master, slave, err := tty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	r, conn, _, _ := started(t, files{tty: slave})
	if _, err := master.Write([]byte("ls\r")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 16)
	if n, err := conn.Read(b); err != nil || string(b[:n]) != "ls\r" {
		t.Errorf("input: got %q, %v, want it unchanged", b[:n], err)
	}
	conn.Write([]byte("a\nb\x03")) //nolint:errcheck // the reader tells
	got := make([]byte, 4)
	if _, err := io.ReadFull(master, got); err != nil || string(got) != "a\nb\x03" {
		t.Errorf("output: got %q, %v, want it unchanged", got, err)
	}
	master.Close()
	conn.SetReadDeadline(time.Now().Add(patience)) //nolint:errcheck // the read tells
	if _, err := conn.Read(b); !errors.Is(err, io.EOF) {
		t.Errorf("after the hang-up: got %v, want EOF", err)
	}
	within(t, "close", r.close)
}

func TestDropNull(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, w := pipe(t)
	f := files{stdin: null, stdout: w}
	f.dropNull()
	if f.stdin != nil || f.stdout != w {
		t.Errorf("got %+v, want the null device dropped and the pipe kept", f)
	}
}
