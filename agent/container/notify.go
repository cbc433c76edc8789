package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/setup"
)

// notifySocket is a container's end of the protocol by which a service tells
// systemd that it is ready (sd_notify(3)). As under runc a directory with the
// socket is mounted in the container, and only that it is ready is passed on.
type notifySocket struct {
	dir   string
	conn  *os.File
	ready chan struct{} // closed once the container said so
	done  chan struct{} // closed when nobody reads any more
	mu    sync.Mutex    // of one who takes
	said  bool
}

// notifyDir is where the container finds the socket, by the name of runc's.
const (
	notifyDir  = "/run/notify"
	notifyName = "notify.sock"
)

// maxNotify bounds a datagram; the rest of a longer one is lost. maxTaken bounds
// how many are taken at a time: one who sends on and on must not keep a caller.
const (
	maxNotify = 4096 // bytes
	maxTaken  = 1000
)

// listenNotify makes a directory with the socket in it.
func listenNotify(dir string) (*notifySocket, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close() //nolint:errcheck // only read
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	n := &notifySocket{dir: dir, conn: os.NewFile(uintptr(fd), notifyName), ready: make(chan struct{}), done: make(chan struct{})}
	// Not by its own path, which an id makes longer than the 108 bytes of sun_path.
	path := fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), notifyName)
	err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	if err == nil {
		err = os.Chmod(filepath.Join(dir, notifyName), 0o777) // whoever the user is
	}
	var raw syscall.RawConn
	if err == nil {
		raw, err = n.conn.SyscallConn()
	}
	if err != nil {
		n.conn.Close()
		return nil, err
	}
	go n.read(raw)
	return n, nil
}

// read ends when the socket is closed.
func (n *notifySocket) read(raw syscall.RawConn) {
	defer close(n.done)
	_ = raw.Read(func(fd uintptr) bool {
		n.take(int(fd))
		return false // and wait for more
	})
}

// take reads what has been sent. Descriptors that come along are dropped: a
// sender that waits for their end by that (sd_notify_barrier(3)) goes on.
func (n *notifySocket) take(fd int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := make([]byte, maxNotify)
	for range maxTaken {
		size, err := unix.Read(fd, b)
		if err != nil { // EAGAIN: that was all
			return
		}
		for line := range strings.SplitSeq(string(b[:size]), "\n") {
			if line == "READY=1" && !n.said {
				n.said = true
				close(n.ready)
			}
		}
	}
}

// last is Ready for a container that says nothing more.
func (n *notifySocket) last() error {
	raw, err := n.conn.SyscallConn()
	if err != nil {
		return err
	}
	_ = raw.Control(func(fd uintptr) { n.take(int(fd)) })
	select {
	case <-n.ready:
		return nil
	default:
		return ErrNotRunning
	}
}

func (n *notifySocket) close() error {
	n.conn.Close()
	<-n.done
	return os.RemoveAll(n.dir)
}

// mount is what the container gets of it.
func (n *notifySocket) mount() setup.Mount {
	return setup.Mount{
		Mount: specs.Mount{Destination: notifyDir, Type: "bind", Source: n.dir, Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"}},
		Tree:  n.dir,
	}
}

// Ready returns once the container has said that it is ready, by the socket that
// it was created with. ErrNotRunning if it has ended.
func (c *Container) Ready(ctx context.Context) error {
	if c.notify == nil {
		return errors.New("the container was created without a notify socket")
	}
	select {
	case <-c.notify.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.init.proc.Done():
	}
	// What it said just before its end may not have been read yet.
	return c.notify.last()
}
