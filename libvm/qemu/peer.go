package qemu

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/vhostuser"
	"runv/libvm/virtio"
)

// peer is our end of a device's vhost-user connection.
type peer struct {
	conn     *net.UnixConn
	listener *net.UnixListener // in place of conn: QEMU connects to it
}

// deviceSocket makes the chardev called id for d. QEMU 7.2 takes one over an
// inherited connection for everything but a network card: the code that asks
// whether descriptors can be passed believes that of a path only. So it gets one,
// which leads to a socket that has no name in any directory any more.
func (l *launch) deviceSocket(id string, d virtio.Device) (peer, error) {
	if d.ID() != virtio.IDNet {
		conn, err := l.socket(id)
		return peer{conn: conn}, err
	}
	listener, socket, err := listenUnnamed(l.backend.run, id+".sock")
	if err != nil {
		return peer{}, fmt.Errorf("vhost-user socket: %w", err)
	}
	l.args.chardevAt(id, l.file(socket))
	return peer{listener: listener}, nil
}

// listenUnnamed makes a listening socket in dir and removes its name. The O_PATH
// descriptor that it returns is where to connect to.
func listenUnnamed(dir *os.File, name string) (*net.UnixListener, *os.File, error) {
	path := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	l.SetUnlinkOnClose(false)
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if uerr := unix.Unlinkat(int(dir.Fd()), name, 0); err == nil {
		err = uerr
	}
	if err != nil {
		l.Close() //nolint:errcheck // unused
		return nil, nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return l, os.NewFile(uintptr(fd), name), nil
}

// serve serves d until the connection ends; see vhostuser.Serve. A listener takes
// one connection and no other.
func (p *peer) serve(ctx context.Context, d virtio.Device) error {
	if p.listener != nil {
		stop := context.AfterFunc(ctx, func() { p.listener.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // it is open
		conn, err := p.listener.AcceptUnix()
		stop()
		p.listener.Close() //nolint:errcheck // it has no name to remove
		if err != nil {
			return err
		}
		p.conn = conn
	}
	return vhostuser.Serve(ctx, p.conn, d)
}

// close gives up a connection that nobody serves.
func (p *peer) close() {
	if p.conn != nil {
		p.conn.Close() //nolint:errcheck // nothing was written
	}
	if p.listener != nil {
		p.listener.Close() //nolint:errcheck // it has no name to remove
	}
}
