package vsock

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
)

const network = "vsock"

// Dial takes host ports from firstPort up to lastPort.
const (
	firstPort = 1 << 30
	lastPort  = 1<<31 - 1
)

// Addr is the address of one end of a stream.
type Addr struct {
	CID  uint64 // context id: 2 is the host
	Port uint32
}

// Network returns "vsock".
func (Addr) Network() string { return network }

// String returns "cid:port", both decimal.
func (a Addr) String() string { return fmt.Sprintf("%d:%d", a.CID, a.Port) }

// Listener accepts the streams that the guest dials to one port of the host. It
// outlives a reset of the guest.
type Listener struct {
	dev  *Device
	port uint32

	// Guarded by dev.mu.
	cond    sync.Cond
	backlog []*Conn
	closed  bool
}

// Listen makes the guest's dials to port of context id 2 arrive at the returned
// Listener. It fails with syscall.EADDRINUSE if there already is one.
func (d *Device) Listen(port uint32) (net.Listener, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listeners[port] != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: Addr{CID: hostCID, Port: port}, Err: syscall.EADDRINUSE}
	}
	l := &Listener{dev: d, port: port}
	l.cond.L = &d.mu
	d.listeners[port] = l
	return l, nil
}

// Accept waits for the next stream, a *Conn. After Close it fails with net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	l.dev.mu.Lock()
	defer l.dev.mu.Unlock()
	for len(l.backlog) == 0 {
		if l.closed {
			return nil, &net.OpError{Op: "accept", Net: network, Addr: l.Addr(), Err: net.ErrClosed}
		}
		l.cond.Wait()
	}
	c := l.backlog[0]
	l.backlog[0] = nil
	l.backlog = l.backlog[1:]
	return c, nil
}

// Close makes Accept fail and the guest's further dials be refused. Streams that
// nobody has accepted are closed; others live on.
func (l *Listener) Close() error {
	l.dev.mu.Lock()
	defer l.dev.mu.Unlock()
	if l.closed {
		return &net.OpError{Op: "close", Net: network, Addr: l.Addr(), Err: net.ErrClosed}
	}
	l.closed = true
	delete(l.dev.listeners, l.port)
	for _, c := range l.backlog {
		l.dev.abort(c, net.ErrClosed)
	}
	l.backlog = nil
	l.cond.Broadcast()
	l.dev.flush()
	return nil
}

// Addr returns the host's address that the guest dials, an Addr.
func (l *Listener) Addr() net.Addr { return Addr{CID: hostCID, Port: l.port} }

// Dial connects to port of the guest; the connection is a *Conn. It fails with
// syscall.ECONNREFUSED if nobody listens there or the listener's backlog is
// full, with syscall.ENETDOWN while the guest's driver is not up, and with the
// error of ctx when that ends.
func (d *Device) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	c, err := d.dial(ctx, port)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: Addr{CID: d.guestCID, Port: port}, Err: err}
	}
	return c, nil
}

func (d *Device) dial(ctx context.Context, port uint32) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.run == nil {
		return nil, errNotRunning
	}
	if !d.room() {
		return nil, fmt.Errorf("%d connections: %w", maxConns, syscall.EMFILE)
	}
	c := d.newConn(d.freeKey(port), stateDialing, 0)
	c.pend = pendRequest
	d.schedule(c)
	d.flush()
	stop := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		c.wr.Broadcast()
	})
	defer stop()
	for c.state == stateDialing {
		if err := ctx.Err(); err != nil {
			d.abort(c, err)
			d.flush()
			return nil, err
		}
		c.wr.Wait()
	}
	if !c.opened {
		return nil, c.err
	}
	return c, nil
}

// freeKey returns the ports of a new connection to the guest's port. There are
// more ports than connections may be, so one is free.
func (d *Device) freeKey(port uint32) key {
	for {
		k := key{host: d.nextPort, guest: port}
		if d.nextPort++; d.nextPort > lastPort {
			d.nextPort = firstPort
		}
		if d.conns[k] == nil && d.listeners[k.host] == nil {
			return k
		}
	}
}
