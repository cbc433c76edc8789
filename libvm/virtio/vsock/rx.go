package vsock

import (
	"fmt"

	"runv/libvm/virtio/queue"
)

// pending says which control packets a connection is to send. Each kind at most
// once, whatever the guest does: there is no queue that it could make longer.
type pending uint8

const (
	pendRequest pending = 1 << iota
	pendResponse
	pendShutdown
	pendCreditRequest
	pendCreditUpdate
)

// reset is a RST packet that belongs to no connection, or to none any more.
type reset struct {
	cid      uint64 // source context id, not always ours: see Device.refuse
	key      key
	typ      uint16
	bufAlloc uint32 // bytes
	fwdCnt   uint32 // bytes
}

// fifo is a queue of connections, each in it at most once. One that is gone is
// taken out: a guest that gives no buffers could pile them up behind the first.
type fifo struct {
	head, tail *Conn
}

func (f *fifo) push(c *Conn) {
	if c.queued {
		return
	}
	c.queued, c.prev, c.next = true, f.tail, nil
	if f.tail == nil {
		f.head = c
	} else {
		f.tail.next = c
	}
	f.tail = c
}

func (f *fifo) remove(c *Conn) {
	if !c.queued {
		return
	}
	if c.prev == nil {
		f.head = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		f.tail = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.queued, c.prev, c.next = false, nil, nil
}

// sendReady is what the rx queue's goroutine does when the guest gave buffers.
func (d *Device) sendReady(r *run) (more bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.run != r {
		return false, queue.ErrClosed
	}
	d.flush()
	return false, nil
}

// schedule remembers that c has something to send. A flush follows.
func (d *Device) schedule(c *Conn) {
	if c.state != stateGone {
		d.ready.push(c)
	}
}

// flush sends what is ready, as far as the guest has given buffers. What is
// left is sent when it gives more. It lets go of the lock between bursts, so
// callers look again at whatever they knew.
func (d *Device) flush() {
	for d.run != nil {
		r := d.run
		n, err := d.sendBurst(r.rx)
		if n > 0 {
			r.rx.Signal()
		}
		if err != nil {
			d.stop(r, err)
			return
		}
		if n < burstPackets {
			return
		}
		d.mu.Unlock()
		d.mu.Lock()
	}
}

// sendBurst fills up to burstPackets chains of the rx queue, one packet of each
// connection in turn, and returns how many. The queue is only asked for a chain
// when there is a packet for it: asking in vain makes the guest notify us.
func (d *Device) sendBurst(q *queue.Queue) (n int, err error) {
	for n < burstPackets {
		if len(d.resets) == 0 && !d.skipIdle() {
			return n, nil
		}
		chain, err := q.Next()
		if chain == nil || err != nil {
			return n, err
		}
		room := chain.WritableLen() - headerSize
		if room <= 0 {
			return n, fmt.Errorf("rx buffer of %d bytes holds no packet: %w", room+headerSize, queue.ErrBadRing)
		}
		var h header
		var data []byte
		if len(d.resets) > 0 {
			h = d.resets[0].header()
			d.resets = d.resets[1:]
		} else {
			c := d.ready.head
			h, data = c.packet(room)
			d.ready.remove(c)
			d.schedule(c) // at the end
		}
		h.dstCID = d.guestCID
		scatter(chain.Writable, &h, data)
		q.PutUsed(chain, uint32(headerSize+len(data)))
		n++
	}
	return n, nil
}

// skipIdle takes the connections from the front of ready that have nothing to
// send, and reports whether one is left.
func (d *Device) skipIdle() bool {
	for d.ready.head != nil && !d.ready.head.wants() {
		d.ready.remove(d.ready.head)
	}
	return d.ready.head != nil
}

func (r *reset) header() header {
	return header{srcCID: r.cid, srcPort: r.key.host, dstPort: r.key.guest, typ: r.typ, op: VIRTIO_VSOCK_OP_RST,
		bufAlloc: r.bufAlloc, fwdCnt: r.fwdCnt}
}

// wants reports whether c has something that it may send.
func (c *Conn) wants() bool {
	return c.state != stateGone && (c.pend != 0 || c.sendable() > 0)
}

// sendable returns the bytes of the current Write that the guest has room for.
func (c *Conn) sendable() int {
	if len(c.out) == 0 || c.writeErr() != nil {
		return 0
	}
	return min(len(c.out), c.credit.free())
}

// packet returns the next packet of c, which wants one, with at most room bytes
// of payload. A shutdown goes before data: none may follow one that ends our
// direction, and one that ends the guest's is not to wait.
func (c *Conn) packet(room int) (h header, data []byte) {
	h = header{srcCID: hostCID, srcPort: c.key.host, dstPort: c.key.guest, typ: VIRTIO_VSOCK_TYPE_STREAM,
		bufAlloc: c.bufAlloc, fwdCnt: c.in.r}
	if c.shut&VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE != 0 {
		h.bufAlloc *= 2 // wakes the guest's writers
	}
	var sent pending
	switch {
	case c.pend&pendRequest != 0:
		h.op, sent = VIRTIO_VSOCK_OP_REQUEST, pendRequest
	case c.pend&pendResponse != 0:
		h.op, sent = VIRTIO_VSOCK_OP_RESPONSE, pendResponse
	case c.pend&pendShutdown != 0:
		h.op, h.flags, sent = VIRTIO_VSOCK_OP_SHUTDOWN, c.shut, pendShutdown
	case c.pend&pendCreditRequest != 0:
		h.op, sent = VIRTIO_VSOCK_OP_CREDIT_REQUEST, pendCreditRequest
	case c.sendable() > 0:
		n := min(c.sendable(), room, maxPacket)
		h.op, h.len = VIRTIO_VSOCK_OP_RW, uint32(n)
		data, c.out = c.out[:n], c.out[n:]
		c.credit.txCnt += uint32(n)
		c.askCredit()
		if len(c.out) == 0 {
			c.wr.Broadcast()
		}
	default:
		h.op = VIRTIO_VSOCK_OP_CREDIT_UPDATE
	}
	// Every packet is a credit update.
	c.pend &^= sent | pendCreditUpdate
	c.advertised = c.in.r
	return h, data
}

// scatter writes a packet to the parts of a chain, which have room for it.
func scatter(parts [][]byte, h *header, data []byte) {
	var b [headerSize]byte
	h.encode(&b)
	for rest := b[:]; ; {
		n := copy(parts[0], rest)
		if rest = rest[n:]; len(rest) == 0 {
			parts[0] = parts[0][n:]
			break
		}
		parts = parts[1:]
	}
	for ; len(data) > 0; parts = parts[1:] {
		data = data[copy(parts[0], data):]
	}
}
