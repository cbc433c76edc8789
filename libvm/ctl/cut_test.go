package ctl

import (
	"context"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCutEndsWithItsCall: a context that ends just as a call returns must not
// break the calls that follow on the connection.
func TestCutEndsWithItsCall(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ends[i] = c.(*net.UnixConn)
	}
	for range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		end := cutAt(ctx, ends[0])
		cancel() // races with the end of the call
		end()
		if _, err := ends[1].Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if _, err := ends[0].Read(make([]byte, 1)); err != nil {
			t.Fatalf("a call behind the one that was cut: %v", err)
		}
	}
}
