package vsock

import (
	"container/list"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Conn is the host's end of a stream. It is a net.Conn whose directions can be
// closed one by one. Its methods are safe for concurrent use.
//
// Write returns when the guest's kernel has the bytes, so Close and CloseWrite
// have nothing left to flush. Read returns what the guest sent before it closed
// or reset the stream, and only then io.EOF or ECONNRESET. Errors of Read and
// Write are *net.OpError; errors.Is finds in them syscall.EPIPE (the guest, or
// CloseWrite, ended this direction), syscall.ECONNRESET (reset by the guest, or
// the guest itself was reset), os.ErrDeadlineExceeded or net.ErrClosed.
//
// A stream that the guest has closed holds what it sent until that is read, or
// the Conn is closed; the device counts it no more.
type Conn struct {
	dev *Device
	key key

	// All below is guarded by dev.mu.

	state    state
	opened   bool   // was stateOpen once
	closed   bool   // by Close
	shut     uint32 // directions that we have ended, VIRTIO_VSOCK_SHUTDOWN_F_*
	peerShut uint32 // directions that the guest has ended
	err      error  // why it is gone, nil if cleanly

	// From the guest.
	in         ring
	bufAlloc   uint32    // bytes that in may hold
	advertised uint32    // in.r as the guest knows it
	rd         sync.Cond // wakes readers
	rdDeadline deadline
	reading    bool // WriteTo has a part of in

	// To the guest.
	credit     credit
	out        []byte    // what is left of the current Write: the caller's memory
	writing    bool      // there is a current Write
	asked      bool      // CREDIT_REQUEST is sent or pending
	wr         sync.Cond // wakes writers, and Dial
	wrDeadline deadline

	pend      pending
	queued    bool // in Device.ready, between
	prev      *Conn
	next      *Conn
	lingering *list.Element // in Device.closing
	expires   time.Time
}

var (
	_ net.Conn    = (*Conn)(nil)
	_ io.WriterTo = (*Conn)(nil)
)

// newConn makes a connection, behind as many in a backlog, and enters it in the
// table.
func (d *Device) newConn(k key, s state, backlog int) *Conn {
	c := &Conn{dev: d, key: k, state: s, opened: s == stateOpen, bufAlloc: smallBuf}
	if len(d.conns) < largeConns && backlog < largeBacklog {
		c.bufAlloc = largeBuf
	}
	c.rd.L, c.wr.L = &d.mu, &d.mu
	d.conns[k] = c
	return c
}

// wake makes all that wait on c look again.
func (c *Conn) wake() {
	c.rd.Broadcast()
	c.wr.Broadcast()
}

// Read reads what the guest has sent.
func (c *Conn) Read(p []byte) (int, error) {
	c.dev.mu.Lock()
	defer c.dev.mu.Unlock()
	if err := c.waitData(); err != nil {
		return 0, c.opError("read", err)
	}
	if len(p) == 0 {
		return 0, nil
	}
	n := c.in.read(p)
	c.consumed()
	return n, nil
}

// WriteTo copies what the guest sends to w, straight from the receive buffer,
// until the end of the stream. It is what io.Copy uses.
func (c *Conn) WriteTo(w io.Writer) (total int64, err error) {
	c.dev.mu.Lock()
	defer c.dev.mu.Unlock()
	for {
		if err := c.waitData(); err != nil {
			if errors.Is(err, io.EOF) {
				return total, nil
			}
			return total, c.opError("read", err)
		}
		n, err := c.writePart(w)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// writePart writes the bytes that lie next in the receive buffer to w, without
// the lock. Nobody else takes any out meanwhile, except by closing.
func (c *Conn) writePart(w io.Writer) (n int, err error) {
	p, start := c.in.peek(), c.in.r
	c.reading = true
	c.dev.mu.Unlock()
	defer func() {
		c.dev.mu.Lock()
		c.reading = false
		if c.in.r == start {
			c.in.discard(n)
			c.consumed()
		}
		c.rd.Signal()
	}()
	n, err = w.Write(p)
	if n < 0 || n > len(p) {
		n, err = 0, errors.New("write to: invalid count of the writer")
	} else if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return n, err
}

// waitData blocks until there is something to read, or returns why there never
// will be.
func (c *Conn) waitData() error {
	for {
		switch {
		case c.closed:
			return net.ErrClosed
		case c.rdDeadline.expired:
			return os.ErrDeadlineExceeded
		case c.shut&VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE != 0:
			return io.EOF
		case c.reading: // its turn first
		case c.in.len() > 0:
			return nil
		case c.state == stateGone && c.err != nil && c.peerShut&VIRTIO_VSOCK_SHUTDOWN_F_SEND == 0:
			return c.err
		case c.state == stateGone || c.peerShut&VIRTIO_VSOCK_SHUTDOWN_F_SEND != 0:
			return io.EOF
		}
		c.rd.Wait()
	}
}

// consumed goes on after a reader has taken something out.
func (c *Conn) consumed() {
	if c.in.len() > 0 {
		c.rd.Signal() // for the next reader
	}
	if c.giveCredit() {
		c.dev.schedule(c)
		c.dev.flush()
	}
}

// giveCredit tells the guest of the room that reading made, once that is a
// quarter of the buffer: the guest then still has credit while it hears of more,
// and never waits for a reader who has read.
func (c *Conn) giveCredit() bool {
	if c.state != stateOpen || c.peerShut&VIRTIO_VSOCK_SHUTDOWN_F_SEND != 0 || c.in.r-c.advertised < c.bufAlloc/4 {
		return false
	}
	c.pend |= pendCreditUpdate
	return true
}

// Write sends p to the guest, and blocks while the guest has no room.
func (c *Conn) Write(p []byte) (n int, err error) {
	c.dev.mu.Lock()
	defer c.dev.mu.Unlock()
	for c.writing {
		if err := c.writeErr(); err != nil {
			return 0, c.opError("write", err)
		}
		c.wr.Wait()
	}
	if err := c.writeErr(); err != nil {
		return 0, c.opError("write", err)
	}
	if len(p) == 0 {
		return 0, nil
	}
	c.out, c.writing = p, true
	c.askCredit()
	c.dev.schedule(c)
	c.dev.flush()
	for len(c.out) > 0 {
		if err = c.writeErr(); err != nil {
			err = c.opError("write", err)
			break
		}
		c.wr.Wait()
	}
	n = len(p) - len(c.out)
	c.out, c.writing = nil, false
	c.wr.Broadcast() // for the next writer
	return n, err
}

// writeErr returns why nothing can be written, or nil.
func (c *Conn) writeErr() error {
	switch {
	case c.closed:
		return net.ErrClosed
	case c.wrDeadline.expired:
		return os.ErrDeadlineExceeded
	case c.state == stateGone && c.err != nil:
		return c.err
	case c.state == stateGone,
		c.shut&VIRTIO_VSOCK_SHUTDOWN_F_SEND != 0,
		c.peerShut&VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE != 0:
		return syscall.EPIPE
	}
	return nil
}

// askCredit asks the guest once for its counters when a Write has run out of
// credit, in case its update got lost in its own thresholds (v1.2 §5.10.6.3).
func (c *Conn) askCredit() {
	if len(c.out) > 0 && c.credit.free() == 0 && !c.asked {
		c.asked = true
		c.pend |= pendCreditRequest
	}
}

// CloseRead ends the direction from the guest: the guest's writes fail with
// EPIPE, what was not read is dropped, and Read returns io.EOF.
func (c *Conn) CloseRead() error { return c.shutdown(VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE) }

// CloseWrite ends the direction to the guest, which reads all that was written
// and then the end of the stream. A Write under way fails with EPIPE.
func (c *Conn) CloseWrite() error { return c.shutdown(VIRTIO_VSOCK_SHUTDOWN_F_SEND) }

func (c *Conn) shutdown(how uint32) error {
	c.dev.mu.Lock()
	defer c.dev.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.end(how)
	c.dev.flush()
	return nil
}

// end ends the directions how on our side, and lets the guest know.
func (c *Conn) end(how uint32) {
	if c.shut&how == how {
		return
	}
	c.shut |= how
	if c.shut&VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE != 0 {
		c.in.drop()
	}
	if c.state == stateOpen {
		c.pend |= pendShutdown
		c.dev.schedule(c)
	}
	c.wake()
}

// Close ends both directions. It does not wait for the guest. Reads and writes
// under way fail with net.ErrClosed, as does a second Close.
func (c *Conn) Close() error {
	c.dev.mu.Lock()
	defer c.dev.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.close()
	c.dev.flush()
	return nil
}

func (c *Conn) close() {
	c.closed = true
	c.end(shutdownBoth)
	if c.state == stateOpen {
		c.dev.linger(c)
	}
	c.rdDeadline.stop()
	c.wrDeadline.stop()
	c.wake()
}

// HungUp says whether the guest takes nothing more: it closed the stream, and did
// not only end its own direction, or the stream was reset, or closed here.
func (c *Conn) HungUp() bool {
	c.dev.mu.Lock()
	defer c.dev.mu.Unlock()
	return c.hungUp()
}

// AwaitHangUp returns when HungUp does so.
func (c *Conn) AwaitHangUp() {
	c.dev.mu.Lock()
	defer c.dev.mu.Unlock()
	for !c.hungUp() {
		c.wr.Wait()
	}
}

func (c *Conn) hungUp() bool {
	return c.closed || c.state == stateGone || c.peerShut&VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE != 0
}

// LocalAddr returns the host's address, an Addr.
func (c *Conn) LocalAddr() net.Addr { return Addr{CID: hostCID, Port: c.key.host} }

// RemoteAddr returns the guest's address, an Addr.
func (c *Conn) RemoteAddr() net.Addr { return Addr{CID: c.dev.guestCID, Port: c.key.guest} }

// opError wraps err as the net package does, io.EOF excepted.
func (c *Conn) opError(op string, err error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return &net.OpError{Op: op, Net: network, Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
