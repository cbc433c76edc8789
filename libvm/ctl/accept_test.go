package ctl

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAcceptOutlastsAWantOfDescriptors(t *testing.T) {
	want := &net.UnixConn{}
	scarce := []error{unix.EMFILE, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", unix.ENFILE)}, unix.ENOMEM}
	next := func() (*net.UnixConn, error) {
		if len(scarce) == 0 {
			return want, nil
		}
		err := scarce[0]
		scarce = scarce[1:]
		return nil, err
	}
	if got, err := accept(testContext(t), next); got != want || err != nil {
		t.Errorf("got %v, %v, want the connection", got, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	always := func() (*net.UnixConn, error) { return nil, unix.EMFILE }
	if _, err := accept(ctx, always); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the server's end: got %v, want net.ErrClosed", err)
	}
	broken := func() (*net.UnixConn, error) { return nil, unix.EBADF }
	if _, err := accept(testContext(t), broken); !errors.Is(err, unix.EBADF) {
		t.Errorf("another error: got %v", err)
	}
}
