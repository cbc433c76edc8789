package vsock

import "runv/libvm/virtio/queue"

// receiveBurst takes packets of the guest from the tx queue, up to a burst, and
// sends what they gave cause to. more says that the queue may hold others.
func (d *Device) receiveBurst(r *run) (more bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.run != r {
		return false, queue.ErrClosed
	}
	packets, bytes := 0, 0
	for packets < burstPackets && bytes < burstBytes {
		c, err := r.tx.Next()
		if err != nil {
			return false, err
		}
		if c == nil {
			break
		}
		packets++
		if h, data, ok := split(c.Readable); ok {
			bytes += int(h.len)
			d.receive(h, data)
		}
		r.tx.PutUsed(c, 0)
	}
	if packets == 0 {
		return false, nil
	}
	r.tx.Signal()
	d.flush()
	return true, nil
}

// split copies the header out of a packet and returns the parts of its payload,
// h.len bytes in all. A chain too short for its header is no packet. One too
// short for its payload is turned into VIRTIO_VSOCK_OP_INVALID, which resets
// the connection, if there is one. The parts are reused for the answer.
func split(parts [][]byte) (h header, data [][]byte, ok bool) {
	var b [headerSize]byte
	got := 0
	for got < headerSize {
		if len(parts) == 0 {
			return header{}, nil, false
		}
		n := copy(b[got:], parts[0])
		got += n
		if parts[0] = parts[0][n:]; len(parts[0]) == 0 {
			parts = parts[1:]
		}
	}
	h = decodeHeader(&b)
	if h.op != VIRTIO_VSOCK_OP_RW {
		h.len = 0
		return h, nil, true
	}
	left := uint64(h.len)
	for i, p := range parts {
		if uint64(len(p)) >= left {
			parts[i] = p[:left]
			return h, parts[:i+1], true
		}
		left -= uint64(len(p))
	}
	if left > 0 {
		h.op, h.len = VIRTIO_VSOCK_OP_INVALID, 0
	}
	return h, nil, true
}
