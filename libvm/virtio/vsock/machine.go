package vsock

import (
	"math"
	"syscall"
	"time"
)

// The life of a connection
//
// A connection is a pair of ports; whoever dials picks the unused one. Numbers
// are sections of v1.2.
//
//	     guest dials                               host dials
//	guest        host                         guest        host
//	  │──REQUEST──▶│ a Listener? else RST       │◀──REQUEST──│ stateDialing
//	  │◀─RESPONSE──│ stateOpen, in its backlog  │──RESPONSE─▶│ stateOpen (or RST: refused)
//
// Open, both sides send RW packets. Each packet, whatever it is, carries the
// sender's buf_alloc and fwd_cnt; what the other side may have in flight is
// buf_alloc - (tx_cnt - fwd_cnt) (§5.10.6.3). So a full receive buffer stops the
// guest's sender by itself: the tx queue is always emptied, and a slow reader
// delays nobody else. Data beyond the credit is a broken guest: reset.
//
// A direction ends by SHUTDOWN (§5.10.6.5), F_SEND for the sender's own and
// F_RECEIVE for the other's. The bits add up, on each side for itself:
//
//	guest                          host
//	shutdown(SHUT_WR) ─F_SEND────▶ Read drains the buffer, then io.EOF
//	shutdown(SHUT_RD) ─F_RECEIVE─▶ Write: EPIPE
//	read: EOF         ◀────F_SEND─ CloseWrite
//	write: EPIPE      ◀─F_RECEIVE─ CloseRead
//
// One side that has ended both directions has closed, and the other answers RST,
// which frees the ports:
//
//	guest closes                              host closes
//	  │──SHUTDOWN both─▶│ stateGone             │◀─SHUTDOWN both─│ stateClosing
//	  │◀──────RST───────│ (buffer still drains) │──────RST──────▶│ stateGone
//
// Linux keeps a closed socket until this RST comes, for 8 s. We have taken over
// all that the guest sent before its SHUTDOWN, the queue being in order, so the
// answer goes out at once, however much the reader has still to drain. Linux in
// turn answers when its reader has drained, which may be never: after
// closeTimeout we send a RST and forget the connection. Both may close at once:
// each answers the other's SHUTDOWN.
//
// A writer in the guest that polls (every Go program) is not woken by F_RECEIVE:
// Linux reports its socket as writable only when there is credit, and EPIPE only
// to who then writes. So one that may receive nothing more is given credit all
// the same: buf_alloc doubles with the SHUTDOWN (Linux up to 6.18 believes it,
// later ones take their own buffer's size at most), and what was under way is
// acknowledged as if it had been read. A RST carries credit for the same reason.
//
// A RST at any other time is an abort: what was received can be read, then
// ECONNRESET. A RST is never answered. All other packets without a connection
// are answered by RST, so that the guest does not wait.

// state of a connection.
type state uint8

const (
	stateDialing state = iota // REQUEST is sent or pending
	stateOpen                 // RESPONSE is sent, pending or received
	stateClosing              // we have closed; only RST is expected
	stateGone                 // not in Device.conns: the guest knows it no more
)

// receive handles one packet of the guest. data is guest memory, h.len bytes.
func (d *Device) receive(h header, data [][]byte) {
	if h.srcCID != d.guestCID {
		return // nobody of that address would get an answer
	}
	if h.dstCID != hostCID || h.typ != VIRTIO_VSOCK_TYPE_STREAM {
		d.refuse(h)
		return
	}
	k := key{host: h.dstPort, guest: h.srcPort}
	c := d.conns[k]
	if c != nil && c.state == stateClosing && h.op == VIRTIO_VSOCK_OP_REQUEST {
		d.forget(c, nil) // the guest is done with it, or it would not reuse the port
		c = nil
	}
	switch {
	case c == nil && h.op == VIRTIO_VSOCK_OP_REQUEST:
		d.accept(k, h)
		return
	case c == nil:
		d.refuse(h)
		return
	case h.op == VIRTIO_VSOCK_OP_RST:
		d.peerReset(c)
		return
	}
	if c.credit.update(h.bufAlloc, h.fwdCnt) != nil {
		d.abort(c, syscall.ECONNRESET)
		return
	}
	c.asked = c.asked && c.credit.free() == 0
	switch c.state {
	case stateDialing:
		d.receiveDialing(c, h)
	case stateOpen:
		d.receiveOpen(c, h, data)
	case stateClosing:
		d.receiveClosing(c, h)
	}
}

// accept answers a REQUEST that belongs to no connection.
func (d *Device) accept(k key, h header) {
	l := d.listeners[k.host]
	var peer credit
	if l == nil || len(l.backlog) >= maxBacklog || peer.update(h.bufAlloc, h.fwdCnt) != nil || !d.room() {
		d.refuse(h)
		return
	}
	// A RST that still waits would hit the new connection, not the old one.
	for i := 0; i < len(d.resets); i++ {
		if d.resets[i].key == k && d.resets[i].cid == hostCID {
			d.resets = append(d.resets[:i], d.resets[i+1:]...)
			i--
		}
	}
	c := d.newConn(k, stateOpen, len(l.backlog))
	c.credit = peer
	c.pend = pendResponse
	d.schedule(c)
	l.backlog = append(l.backlog, c)
	l.cond.Signal()
}

func (d *Device) receiveDialing(c *Conn, h header) {
	switch h.op {
	case VIRTIO_VSOCK_OP_RESPONSE:
		c.state, c.opened = stateOpen, true
		c.wr.Broadcast()
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
	default:
		d.abort(c, syscall.ECONNRESET)
	}
}

func (d *Device) receiveOpen(c *Conn, h header, data [][]byte) {
	switch h.op {
	case VIRTIO_VSOCK_OP_RW:
		d.receiveData(c, h, data)
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		c.peerShut |= h.flags & shutdownBoth
		if c.peerShut == shutdownBoth {
			d.answer(c)
			return
		}
		c.wake()
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		c.pend |= pendCreditUpdate
	default:
		d.abort(c, syscall.ECONNRESET)
		return
	}
	c.askCredit()
	d.schedule(c)
}

// receiveData takes payload over. After CloseRead it only counts: the guest may
// not have heard of that yet.
func (d *Device) receiveData(c *Conn, h header, data [][]byte) {
	if uint64(c.in.len())+uint64(h.len) > uint64(c.bufAlloc) || c.peerShut&VIRTIO_VSOCK_SHUTDOWN_F_SEND != 0 {
		d.abort(c, syscall.ECONNRESET)
		return
	}
	if c.shut&VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE != 0 {
		c.in.pass(int(h.len))
		c.giveCredit()
		return
	}
	c.in.write(data, int(h.len))
	c.rd.Signal()
}

func (d *Device) receiveClosing(c *Conn, h header) {
	if h.op != VIRTIO_VSOCK_OP_SHUTDOWN {
		return // under way before the guest knew
	}
	if c.peerShut |= h.flags & shutdownBoth; c.peerShut == shutdownBoth {
		d.answer(c)
	}
}

// peerReset ends c as the guest's RST says: refused, closed cleanly if we had
// ended both directions, or aborted.
func (d *Device) peerReset(c *Conn) {
	switch {
	case c.state == stateDialing:
		d.forget(c, syscall.ECONNREFUSED)
	case c.shut == shutdownBoth:
		d.forget(c, nil)
	default:
		d.forget(c, syscall.ECONNRESET)
	}
}

// answer sends the RST that a guest waits for which has ended both directions.
func (d *Device) answer(c *Conn) { d.abort(c, nil) }

// abort sends a RST in the middle of whatever c was about. Its user gets err.
func (d *Device) abort(c *Conn, err error) {
	d.forget(c, err)
	d.sendReset(reset{cid: hostCID, key: c.key, typ: VIRTIO_VSOCK_TYPE_STREAM, bufAlloc: 2 * c.bufAlloc, fwdCnt: c.in.w})
}

// refuse answers a packet that belongs to nothing with RST from the address it
// went to. A seqpacket socket of Linux only listens to its own type.
func (d *Device) refuse(h header) {
	if h.op != VIRTIO_VSOCK_OP_RST {
		d.sendReset(reset{cid: h.dstCID, key: key{host: h.dstPort, guest: h.srcPort}, typ: h.typ, bufAlloc: math.MaxUint32})
	}
}

func (d *Device) sendReset(r reset) {
	if d.run != nil && len(d.resets) < maxResets {
		d.resets = append(d.resets, r)
	}
}

// forget takes c out of the table. What it has received stays readable.
func (d *Device) forget(c *Conn, err error) {
	if c.state == stateGone {
		return
	}
	delete(d.conns, c.key)
	d.ready.remove(c)
	d.unlinger(c)
	c.state, c.err, c.pend = stateGone, err, 0
	c.wake()
}

// linger waits for the guest's answer to the SHUTDOWN of both directions, up to
// closeTimeout.
func (d *Device) linger(c *Conn) {
	c.state, c.expires = stateClosing, time.Now().Add(closeTimeout)
	c.lingering = d.closing.PushBack(c)
	if d.reaper == nil {
		d.reaper = time.AfterFunc(closeTimeout, d.reap)
	}
}

func (d *Device) unlinger(c *Conn) {
	if c.lingering == nil {
		return
	}
	d.closing.Remove(c.lingering)
	c.lingering = nil
	if d.closing.Len() == 0 {
		d.reaper.Stop()
		d.reaper = nil
	}
}

// reap aborts the connections that have lingered long enough. It is the reaper
// timer's function.
func (d *Device) reap() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reaper == nil {
		return
	}
	now := time.Now()
	for e := d.closing.Front(); e != nil && d.reaper != nil; e = d.closing.Front() {
		c := e.Value.(*Conn)
		if wait := c.expires.Sub(now); wait > 0 {
			d.reaper.Reset(wait)
			break
		}
		d.abort(c, nil)
	}
	d.flush()
}

// room reports whether one more connection may be. Those that only wait for the
// guest's answer make place, the oldest first.
func (d *Device) room() bool {
	if len(d.conns) < maxConns {
		return true
	}
	if e := d.closing.Front(); e != nil {
		d.abort(e.Value.(*Conn), nil)
		return true
	}
	return false
}
