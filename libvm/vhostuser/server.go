// Package vhostuser serves virtio devices to a hypervisor in another process,
// which is the "front-end" and, for us, QEMU. Follows docs/interop/vhost-user.rst
// of QEMU 7.2.
//
// The front-end runs the guest, and a guest that has broken out of it speaks
// this protocol next: a message that is not as it should be ends the connection,
// and nothing else. Descriptors are checked before they are used: memory cannot
// shrink under its mapping, eventfds cannot block.
package vhostuser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/virtio"
)

// Pair makes a connection: conn is for Serve, frontend is the end that QEMU
// inherits (-chardev socket,id=…,fd=N). Both are close-on-exec.
func Pair() (conn *net.UnixConn, frontend *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours := os.NewFile(uintptr(fds[0]), "vhost-user")
	defer ours.Close() //nolint:errcheck // FileConn has a duplicate
	c, err := net.FileConn(ours)
	if err != nil {
		unix.Close(fds[1]) //nolint:errcheck // it was never used
		return nil, nil, err
	}
	return c.(*net.UnixConn), os.NewFile(uintptr(fds[1]), "vhost-user"), nil
}

// Serve serves d to the front-end at the other end of conn, which it closes. It
// returns when the front-end has closed the connection (nil), ctx has ended
// (its cause), the front-end broke the protocol, or the device has failed, for
// which it also signals the "err" descriptors of the rings. When it returns the
// device has stopped and nothing uses guest memory any more; d may be served
// again.
func Serve(ctx context.Context, conn *net.UnixConn, d virtio.Device) (err error) {
	s := newServer(conn, d)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.fail = cancel
	stop := context.AfterFunc(ctx, func() {
		conn.SetDeadline(time.Unix(1, 0)) //nolint:errcheck // fails only once it is closed
	})
	defer func() {
		stop()
		if serr := s.close(); serr != nil {
			err = serr // the device's own failure is why the rest went wrong
		}
	}()
	for {
		m, err := readMessage(conn)
		if err == nil {
			err = s.handle(m)
			m.closeFDs()
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return fmt.Errorf("vhost-user: %w", context.Cause(ctx))
		case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
			return nil
		default:
			return fmt.Errorf("vhost-user: %w", err)
		}
	}
}

// server is one connection. Its fields belong to the goroutine of Serve.
type server struct {
	conn     *net.UnixConn
	dev      virtio.Device
	sizes    []uint16 // the device's largest queues, in descriptors
	features uint64   // negotiated
	protocol uint64   // negotiated protocol features
	table    *table   // nil before SET_MEM_TABLE
	rings    []ring
	run      *run // nil while the device is stopped
	fail     func(error)
}

func newServer(conn *net.UnixConn, d virtio.Device) *server {
	s := &server{conn: conn, dev: d, sizes: d.QueueSizes()}
	s.rings = make([]ring, len(s.sizes))
	for i := range s.rings {
		r := &s.rings[i]
		r.kick, r.call.fd, r.fault.fd = -1, -1, -1
	}
	return s
}

// close stops the device, and gives back all that the front-end gave us, the
// memory last.
func (s *server) close() error {
	err := s.stop()
	for i := range s.rings {
		s.rings[i].close()
	}
	s.table.unmap()
	s.conn.Close() //nolint:errcheck // the front-end sees the end of it either way
	return err
}

// deviceFeatures are what the guest is offered: the device's own, and what our
// rings can do.
func (s *server) deviceFeatures() uint64 {
	return s.dev.Features() | 1<<virtio.RingFIndirectDesc | 1<<virtio.RingFEventIdx | 1<<virtio.FVersion1
}

// protocolFeatures are what the front-end is offered.
func (s *server) protocolFeatures() uint64 {
	p := uint64(1<<VHOST_USER_PROTOCOL_F_MQ | 1<<VHOST_USER_PROTOCOL_F_REPLY_ACK | 1<<VHOST_USER_PROTOCOL_F_RESET_DEVICE)
	// QEMU makes the configuration space of the file system and of the network card
	// itself, from its command line, and warns of a back-end that offers one.
	if len(s.dev.Config()) > 0 && s.dev.ID() != virtio.IDFS && s.dev.ID() != virtio.IDNet {
		p |= 1 << VHOST_USER_PROTOCOL_F_CONFIG
	}
	return p
}

func (s *server) negotiated(protocolFeature uint) bool {
	return s.features&(1<<VHOST_USER_F_PROTOCOL_FEATURES) != 0 && s.protocol&(1<<protocolFeature) != 0
}
