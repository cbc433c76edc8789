package vsock

import (
	"encoding/binary"
	"testing"

	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
)

// invariants checks what must hold whatever the guest has sent.
func (d *Device) invariants(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.conns) > maxConns || len(d.resets) > maxResets {
		t.Fatalf("%d connections, %d resets", len(d.conns), len(d.resets))
	}
	lingering := 0
	for k, c := range d.conns {
		if c.key != k || c.state == stateGone {
			t.Fatalf("connection %v is %v, state %d", k, c.key, c.state)
		}
		if c.in.len() > int(c.bufAlloc) || len(c.in.buf) > int(c.bufAlloc) || int32(c.in.r-c.advertised) < 0 {
			t.Fatalf("connection %v holds %d of %d bytes", k, c.in.len(), c.bufAlloc)
		}
		if c.lingering != nil {
			lingering++
		}
		if (c.lingering != nil) != (c.state == stateClosing) {
			t.Fatalf("connection %v in state %d: lingering %v", k, c.state, c.lingering != nil)
		}
	}
	if lingering != d.closing.Len() || (d.reaper != nil) != (lingering > 0) {
		t.Fatalf("%d linger, list has %d, timer %v", lingering, d.closing.Len(), d.reaper != nil)
	}
	n := 0
	for c := d.ready.head; c != nil; c = c.next {
		if n++; n > len(d.conns) || !c.queued || c.state == stateGone {
			t.Fatal("ready list is broken")
		}
	}
}

// FuzzPacket feeds packets, made of 12 bytes each so that they often meet a
// connection, while the host reads, writes and closes.
func FuzzPacket(f *testing.F) {
	packet := func(op, port, flags byte, n uint16) []byte {
		return []byte{op, port, flags, 0, byte(n), byte(n >> 8), 0, 4, 0, 0, 0, 0}
	}
	seed := func(p ...[]byte) (b []byte) {
		for _, x := range p {
			b = append(b, x...)
		}
		return b
	}
	f.Add(seed(packet(1, 1, 0, 0), packet(5, 1, 0, 100), packet(4, 1, 3, 0)))
	f.Add(seed(packet(1, 1, 0, 0), packet(4, 1, 2, 0), packet(5, 1, 0, 9), packet(3, 1, 0, 0), packet(1, 1, 0, 0)))
	f.Add(seed(packet(1, 1, 0, 0), packet(1, 2, 0, 0), packet(7, 1, 0, 0), packet(0x45, 1, 0, 0), packet(0x86, 2, 0, 0)))
	f.Fuzz(func(t *testing.T, in []byte) {
		d := New(testCID)
		l := listen(t, d, 1)
		g := boot(t, d, options{rxBufs: 64})
		var conns []*Conn
		for ; len(in) >= 12; in = in[12:] {
			k := key{host: 1, guest: uint32(in[1] % 8)}
			n := binary.LittleEndian.Uint16(in[4:])
			g.send(k, uint16(in[0]&15), func(h *header) {
				h.flags, h.typ = uint32(in[2]), h.typ+uint16(in[3]>>7)
				h.len = uint32(n)
				h.bufAlloc = uint32(in[6]) | uint32(in[7])<<8
				h.fwdCnt = binary.LittleEndian.Uint32(in[8:])
			}, make([]byte, n&^(uint16(in[3])&1)))
			for g.busy > 0 {
				if g.reclaim(); g.busy > 0 && !g.wait(queueTX, nil) {
					t.Fatal("the tx queue stands still")
				}
			}
			for ok := true; ok; {
				_, _, ok = g.take()
			}
			d.mu.Lock()
			waiting := len(l.(*Listener).backlog)
			d.mu.Unlock()
			for range waiting {
				c, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				conns = append(conns, c.(*Conn))
			}
			for _, c := range conns {
				hostDoes(c, in[0]>>4)
			}
			d.invariants(t)
		}
		for _, c := range conns {
			c.Close()
		}
		d.invariants(t)
		if err := g.halt(); err != nil {
			t.Fatal(err)
		}
		d.invariants(t)
	})
}

// hostDoes one thing that does not block. Whether it fails is up to the guest.
func hostDoes(c *Conn, what byte) {
	switch what {
	case 1:
		c.dev.mu.Lock()
		some := c.in.len() > 0
		c.dev.mu.Unlock()
		if some {
			c.Read(make([]byte, 1000)) //nolint:errcheck // see above
		}
	case 2:
		c.dev.mu.Lock()
		n := c.credit.free()
		c.dev.mu.Unlock()
		c.Write(make([]byte, min(n, 2000))) //nolint:errcheck // see above
	case 3:
		c.CloseRead() //nolint:errcheck // see above
	case 4:
		c.CloseWrite() //nolint:errcheck // see above
	case 5:
		c.Close()
	}
}

// FuzzTx offers arbitrary chains, on both queues. Each input is a list of
// descriptors, 4 bytes each: flags, length, and bits that end a chain and choose
// the queue.
func FuzzTx(f *testing.F) {
	f.Add([]byte{0, 44, 0, 1, 0, 20, 0, 2, 0, 24, 1, 1}, []byte("payload"))
	f.Add([]byte{2, 200, 0, 5, 0, 44, 10, 3}, []byte{3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, descs, data []byte) {
		d := New(testCID)
		listen(t, d, 1)
		g := boot(t, d, options{rxBufs: -1, indirect: true})
		chain, places := []queuetest.Buffer(nil), 0
		for ; len(descs) >= 4 && places < 100; descs = descs[4:] {
			n := min(int(descs[1])|int(descs[2])<<8, 8192)
			b := make([]byte, n)
			data = data[copy(b, data):]
			chain = append(chain, queuetest.Buffer{Data: b, Write: descs[0]&2 != 0})
			places++
			if descs[3]&1 == 0 {
				continue
			}
			drv := g.tx
			if descs[3]&4 != 0 {
				drv = g.rx
			}
			if descs[3]&2 != 0 {
				drv.OfferIndirect(chain...)
			} else {
				drv.Offer(chain...)
			}
			chain = nil
			if err := drv.Notify(); err != nil {
				t.Fatal(err)
			}
		}
		// The queue's goroutines have looked once an empty chain came back, or
		// the driver has broken a queue.
		g.tx.Offer(queuetest.Buffer{Data: []byte{0}})
		if err := g.tx.Notify(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, d, func() bool {
			_, used := queueUsed(g.tx)
			return d.run == nil || used == queueAvail(g.tx)
		})
		d.invariants(t)
		g.halt() //nolint:errcheck // with an error or without
		d.invariants(t)
	})
}

func queueUsed(d *queuetest.Driver) (flags, idx uint16) { return queue.RingHeadForTest(usedRing(d)) }

func queueAvail(d *queuetest.Driver) uint16 {
	_, avail, _ := d.Addrs()
	_, idx := queue.RingHeadForTest(d.RAM[avail:])
	return idx
}
