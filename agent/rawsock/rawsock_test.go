package rawsock

import (
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAcceptAndClose: a connection is accepted, one direction of it ends, and Accept
// says when the listener was closed.
func TestAcceptAndClose(t *testing.T) {
	path := t.TempDir() + "/s"
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	l := os.NewFile(uintptr(fd), "listener")
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	client := os.NewFile(uintptr(c), "client")
	defer client.Close() //nolint:errcheck // its end
	if err := unix.Connect(c, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	s, err := Accept(raw, unix.SOCK_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	server := os.NewFile(uintptr(s), "server")
	defer server.Close() //nolint:errcheck // its end
	if Readable(uintptr(s)) {
		t.Error("readable before anything was written")
	}
	if _, err := client.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if !Readable(uintptr(s)) {
		t.Error("not readable although something was written")
	}
	if err := CloseWrite(client); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(server); err != nil || string(b) != "x" {
		t.Errorf("read %q, %v", b, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Accept(raw, 0); err == nil {
		t.Error("a closed socket accepts")
	}
}
