package stream

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// duplex returns a process's socket, the host's end, and what is between them.
func duplex(t *testing.T) (process, host *net.UnixConn, d *Duplex) {
	t.Helper()
	var b Buffers
	a, host := pair(t)
	fd, ours, err := Socket()
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "process")
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	if d, err = b.NewDuplex(a, ours); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.UnixConn), host, d
}

func TestDuplexHalfClose(t *testing.T) {
	process, host, d := duplex(t)
	data := bytes.Repeat([]byte("z"), 1<<20) // more than all buffers hold
	go func() {
		_, _ = host.Write(data)
		_ = host.CloseWrite()
	}()
	got, err := io.ReadAll(process)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("to the process: %d bytes, %v", len(got), err)
	}
	// The other direction goes on.
	go func() {
		_, _ = process.Write(data)
		_ = process.CloseWrite()
	}()
	got, err = io.ReadAll(host)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("to the host: %d bytes, %v", len(got), err)
	}
	await(t, d.Done(), "end of the output")
	if n := d.Written(); n != uint64(len(data)) {
		t.Errorf("counted %d bytes", n)
	}
	await(t, d.over, "end")
}

// The process ends its own direction first, and still reads.
func TestDuplexProcessEndsFirst(t *testing.T) {
	process, host, d := duplex(t)
	_, _ = process.Write([]byte("question"))
	_ = process.CloseWrite()
	if got, err := io.ReadAll(host); err != nil || string(got) != "question" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := host.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	_ = host.CloseWrite()
	if got, err := io.ReadAll(process); err != nil || string(got) != "answer" {
		t.Errorf("got %q, %v", got, err)
	}
	await(t, d.over, "end")
}

// The process closes its socket: the host may write no more, at once.
func TestDuplexProcessCloses(t *testing.T) {
	for _, half := range []bool{false, true} {
		process, host, d := duplex(t)
		_, _ = process.Write([]byte("bye"))
		if half {
			_ = process.CloseWrite()
			await(t, d.Done(), "end of the output")
		}
		process.Close()
		await(t, d.over, "end")
		if got, err := io.ReadAll(host); err != nil || string(got) != "bye" {
			t.Errorf("got %q, %v", got, err)
		}
		if _, err := host.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
			t.Errorf("write: %v, want EPIPE", err)
		}
	}
}

// The host closes: the process reads EOF and may write no more.
func TestDuplexHostCloses(t *testing.T) {
	process, host, d := duplex(t)
	_, _ = host.Write([]byte("bye"))
	_ = host.CloseRead()
	host.Close()
	if got, err := io.ReadAll(process); err != nil || string(got) != "bye" {
		t.Errorf("got %q, %v", got, err)
	}
	await(t, d.over, "end")
	if _, err := process.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("write: %v, want EPIPE", err)
	}
}

// The host stops to read only: the process still reads.
func TestDuplexHostDoesNotRead(t *testing.T) {
	process, host, _ := duplex(t)
	_ = host.CloseRead()
	var err error
	for err == nil {
		_, err = process.Write([]byte("x"))
	}
	if !errors.Is(err, unix.EPIPE) {
		t.Errorf("write: %v, want EPIPE", err)
	}
	_, _ = host.Write([]byte("still there"))
	_ = host.CloseWrite()
	if got, err := io.ReadAll(process); err != nil || string(got) != "still there" {
		t.Errorf("got %q, %v", got, err)
	}
}

// What waits in the socket counts as written, while the host takes nothing.
func TestDuplexWritten(t *testing.T) {
	process, host, d := duplex(t)
	raw, err := process.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var written uint64
	_ = raw.Control(func(fd uintptr) { written = fill(t, int(fd), 1024) })
	counts(t, d, written, process, host)
}

// An input ends with the last who could read it, though the host is silent.
func TestInputEndsWithReaders(t *testing.T) {
	host, in, process := newInput(t)
	if err := in.EndWithReaders(); err != nil {
		t.Fatal(err)
	}
	if _, err := host.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := process.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	process.Close()
	await(t, in.done, "end")
	if _, err := host.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want EOF", err)
	}
}
