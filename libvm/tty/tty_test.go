package tty

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, slave, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = master.Close(), slave.Close() })
	return master, slave
}

// Every byte passes both ways unchanged: no echo, no newline conversion, no
// signal characters, no flow control.
func TestPairIsRaw(t *testing.T) {
	master, slave := pair(t)
	var all []byte
	for i := range 256 {
		all = append(all, byte(i))
	}
	for _, way := range []struct {
		name     string
		from, to *os.File
	}{{"in", master, slave}, {"out", slave, master}} {
		if _, err := way.from.Write(all); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(all))
		if _, err := io.ReadFull(way.to, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, all) {
			t.Errorf("%s: got %q", way.name, got)
		}
	}
}

func TestSizeAndFlags(t *testing.T) {
	master, slave := pair(t)
	if err := SetSize(master, 33, 77); err != nil {
		t.Fatal(err)
	}
	if rows, cols := Size(slave); rows != 33 || cols != 77 {
		t.Errorf("got %d rows %d cols", rows, cols)
	}
	for _, f := range []*os.File{master, slave} {
		flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s: not close-on-exec (%v)", f.Name(), err)
		}
	}
	if rows, cols := Size(os.NewFile(^uintptr(0)>>1, "none")); rows != 0 || cols != 0 {
		t.Errorf("size of no terminal: %d %d", rows, cols)
	}
}

func dialAndSend(path string, master *os.File) error {
	conn, err := Dial(path)
	if err != nil {
		return err
	}
	defer conn.Close()
	return Send(conn, master)
}

func TestConsoleSocket(t *testing.T) {
	// Longer than sun_path: only reachable through the descriptor.
	long := filepath.Join(t.TempDir(), strings.Repeat("d", 200))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(long)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	r, err := Listen(dir, "console.sock")
	if err != nil {
		t.Fatal(err)
	}
	master, slave := pair(t)
	sent := make(chan error, 1)
	go func() { sent <- dialAndSend(r.Path(), master) }()
	got, err := r.Receive()
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if err := SetSize(got, 5, 6); err != nil {
		t.Fatal(err)
	}
	if rows, cols := Size(slave); rows != 5 || cols != 6 {
		t.Errorf("another terminal arrived: %d %d", rows, cols)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Receive(); err == nil {
		t.Error("Receive after Close: no error")
	}
	if err := dialAndSend(filepath.Join(t.TempDir(), "none"), master); err == nil {
		t.Error("Dial of no socket: no error")
	}
}

func TestBridge(t *testing.T) {
	master, slave := pair(t)
	inR, inW, _ := os.Pipe()
	outR, outW, _ := os.Pipe()
	defer inR.Close()
	defer inW.Close()
	defer outR.Close()
	b, err := NewBridge(master, inR, outW)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inW.WriteString("key"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3)
	if _, err := io.ReadFull(slave, got); err != nil || string(got) != "key" {
		t.Errorf("in: got %q, %v", got, err)
	}
	if err := b.Resize(9, 8); err != nil {
		t.Error(err)
	}
	if rows, cols := Size(slave); rows != 9 || cols != 8 {
		t.Errorf("resize: got %d %d", rows, cols)
	}
	// The tail is written, the slave's last user goes, and then Drain: all of
	// it arrives, and the input (never closed) holds nobody up.
	if _, err := slave.WriteString(strings.Repeat("x", 2000) + "tail\n"); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	select { // the end of the output alone is no reason to hang up
	case <-hungUp(b.master):
		t.Error("the master was closed before Drain")
	case <-time.After(100 * time.Millisecond):
	}
	b.Drain()
	_ = outW.Close()
	out, err := io.ReadAll(outR)
	if err != nil || len(out) != 2005 || !strings.HasSuffix(string(out), "tail\n") {
		t.Errorf("out: got %d bytes, %v", len(out), err)
	}
	if _, err := inW.WriteString("next"); err != nil {
		t.Fatal(err)
	}
	next := make([]byte, 4)
	if _, err := io.ReadFull(inR, next); err != nil || string(next) != "next" {
		t.Errorf("a key after the end was swallowed: %q, %v", next, err)
	}
}

// hungUp tells when f is closed.
func hungUp(f *os.File) <-chan struct{} {
	c := make(chan struct{})
	go func() {
		defer close(c)
		for {
			raw, err := f.SyscallConn()
			if err != nil || raw.Control(func(uintptr) {}) != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return c
}

func TestBridgeHangsUpWithoutAReader(t *testing.T) {
	master, slave := pair(t)
	inR, inW, _ := os.Pipe()
	outR, outW, _ := os.Pipe()
	defer inR.Close()
	defer inW.Close()
	defer outW.Close()
	_ = outR.Close()
	b, err := NewBridge(master, inR, outW)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slave.WriteString("nobody reads"); err != nil {
		t.Fatal(err)
	}
	if n, err := slave.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("got %d, %v, want a hang-up", n, err)
	}
	b.Drain()
}
