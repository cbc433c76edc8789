package libvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/ctl"
	"runv/libvm/state"
)

// A service of systemd that is a container says so itself when it is ready
// (sd_notify(3)): create and run with NOTIFY_SOCKET give the container a socket
// of its own, in the guest, and whoever starts it, run or start, waits for the
// word and passes it on, with the pid that is the container to the host.

// envNotify is the caller's variable, and the container's.
const envNotify = "NOTIFY_SOCKET"

// notifyPath is the container's socket, as the agent makes it.
const notifyPath = "/run/notify/notify.sock"

var errNoNotify = errors.New(envNotify + " is set, but was not when the container was created, which has no such socket (create it with the variable, or unset it)")

// barrierTime is how long systemd may take to have read it; one that does not
// know the protocol never says so.
const barrierTime = 30 * time.Second

// notifier is a connection to the caller's socket; nil: it has none.
type notifier struct {
	conn *net.UnixConn
}

// dialNotify connects to NOTIFY_SOCKET of the environment.
func dialNotify(getenv func(string) string) (*notifier, error) {
	path := getenv(envNotify)
	if path == "" {
		return nil, nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("%s: %w (start it where the socket is, or unset the variable)", envNotify, err)
	}
	return &notifier{conn}, nil
}

func (n *notifier) close() {
	if n != nil {
		_ = n.conn.Close()
	}
}

// relay waits until the container has said that it is ready, and tells the
// caller's socket, whose reader it waits for until gone ends. A container that
// ends without a word is no error.
func (n *notifier) relay(ctx, gone context.Context, c *ctl.Client, pid int) error {
	if n == nil {
		return nil
	}
	err := c.Ready(ctx)
	if errors.Is(err, state.ErrNotRunning) || errors.Is(err, ctl.ErrGone) {
		return nil
	} else if err != nil {
		return err
	}
	for _, line := range []string{"READY=1\n", fmt.Sprintf("MAINPID=%d\n", pid)} {
		if _, err := n.conn.Write([]byte(line)); err != nil {
			return fmt.Errorf("%s: %w", envNotify, err)
		}
	}
	return n.barrier(gone)
}

// barrier waits until what was sent has been read (sd_notify_barrier(3)): once
// this process has gone, systemd could not tell whose word it was.
func (n *notifier) barrier(gone context.Context) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	var sendErr error
	raw, err := n.conn.SyscallConn()
	if err == nil {
		// WriteMsgUnix sends from unconnected sockets only.
		err = raw.Write(func(fd uintptr) bool {
			sendErr = unix.Sendmsg(int(fd), []byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), nil, 0)
			return !errors.Is(sendErr, unix.EAGAIN)
		})
	}
	_ = w.Close()
	if err := errors.Join(err, os.NewSyscallError("sendmsg", sendErr)); err != nil {
		return fmt.Errorf("%s: %w", envNotify, err)
	}
	if err := r.SetReadDeadline(time.Now().Add(barrierTime)); err != nil {
		return err
	}
	defer context.AfterFunc(gone, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })()
	_, err = r.Read(make([]byte, 1))
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%s: barrier: %w", envNotify, err)
	}
	return nil
}
