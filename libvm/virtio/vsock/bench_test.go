package vsock

import (
	"encoding/binary"
	"io"
	"testing"

	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
)

// BenchmarkFromGuest: packets of 64 KiB, which stay where they are in the
// guest's memory, read by the host in two ways. The guest keeps to its credit.
func BenchmarkFromGuest(b *testing.B) {
	for _, bb := range []struct {
		name string
		read func(c *Conn) error
	}{
		{"io.Copy", func(c *Conn) error { _, err := io.Copy(io.Discard, c); return err }},
		{"Read", func(c *Conn) error {
			p := make([]byte, 64<<10)
			for {
				if _, err := c.Read(p); err != nil {
					return err
				}
			}
		}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			const size = 64 << 10
			d := New(testCID)
			l := listen(b, d, 1024)
			g := boot(b, d, options{eventIdx: true})
			c, k := g.dial(l, 1)
			done := make(chan error)
			go func() { done <- bb.read(c) }()
			h := header{srcCID: testCID, dstCID: hostCID, srcPort: k.guest, dstPort: k.host,
				typ: VIRTIO_VSOCK_TYPE_STREAM, op: VIRTIO_VSOCK_OP_RW, bufAlloc: linuxBuf, len: size}
			var raw [headerSize]byte
			h.encode(&raw)
			g.reclaim()
			var heads [8]uint16 // more than fit the credit, so that one is free
			b.SetBytes(size)
			b.ResetTimer()
			var sent, forwarded uint32
			for i := range b.N {
				for sent+size-forwarded > largeBuf {
					h, _ := g.recv()
					forwarded = h.fwdCnt
				}
				if i < len(heads) {
					heads[i] = g.tx.Offer(queuetest.Buffer{Data: raw[:]}, queuetest.Buffer{Data: make([]byte, size)})
				} else {
					g.tx.PutAvail(heads[i%len(heads)])
				}
				g.notify(g.tx)
				sent += size
			}
			for forwarded != sent {
				g.send(k, VIRTIO_VSOCK_OP_CREDIT_REQUEST, nil)
				h, _ := g.recv()
				forwarded = h.fwdCnt
			}
			b.StopTimer()
			c.Close()
			<-done //nolint:errcheck // it was closed
		})
	}
}

// BenchmarkToGuest: the host writes 64 KiB at a time, into the guest's buffers
// of 4 KiB (Linux) or 64 KiB, which the guest offers again as they are.
func BenchmarkToGuest(b *testing.B) {
	for _, bb := range []struct {
		name string
		o    options
	}{
		{"4KiB", options{eventIdx: true}},
		{"64KiB", options{eventIdx: true, rxBytes: 64<<10 + headerSize, rxBufs: 16}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			const size = 64 << 10
			d := New(testCID)
			l := listen(b, d, 1024)
			g := boot(b, d, bb.o)
			c, k := g.dial(l, 1)
			b.SetBytes(size)
			b.ResetTimer()
			go func() {
				p := make([]byte, size)
				for range b.N {
					if _, err := c.Write(p); err != nil {
						b.Error(err)
						return
					}
				}
			}()
			var got, told uint32
			for total := uint64(0); total < uint64(b.N)*size; {
				_, idx := queue.RingHeadForTest(usedRing(g.rx))
				if idx == g.seen[queueRX] {
					if !g.wait(queueRX, nil) {
						b.Fatal("no packet in time")
					}
					continue
				}
				for ; g.seen[queueRX] != idx; g.seen[queueRX]++ {
					e := usedRing(g.rx)[4+8*int(g.seen[queueRX]%g.o.size):]
					n := max(binary.LittleEndian.Uint32(e[4:]), headerSize) - headerSize
					got += n
					total += uint64(n)
					g.rx.PutAvail(uint16(binary.LittleEndian.Uint32(e)))
				}
				g.notify(g.rx)
				if got-told >= size {
					told = got
					g.send(k, VIRTIO_VSOCK_OP_CREDIT_UPDATE, func(h *header) { h.fwdCnt = told })
				}
			}
		})
	}
}

// BenchmarkRoundTrip: the guest sends 4 bytes, the host answers with 4.
func BenchmarkRoundTrip(b *testing.B) {
	d := New(testCID)
	l := listen(b, d, 1024)
	g := boot(b, d, options{eventIdx: true})
	c, k := g.dial(l, 1)
	go func() {
		p := make([]byte, 4)
		for {
			if _, err := io.ReadFull(c, p); err != nil {
				return
			}
			if _, err := c.Write(p); err != nil {
				return
			}
		}
	}()
	var fwd uint32
	for b.Loop() {
		g.send(k, VIRTIO_VSOCK_OP_RW, func(h *header) { h.fwdCnt = fwd }, []byte("ping"))
		for {
			if h, _ := g.recv(); h.op == VIRTIO_VSOCK_OP_RW {
				fwd += h.len
				break
			}
		}
	}
	c.Close()
}

// BenchmarkDial: the guest dials, and closes again.
func BenchmarkDial(b *testing.B) {
	d := New(testCID)
	l := listen(b, d, 1024)
	g := boot(b, d, options{eventIdx: true})
	for b.Loop() {
		c, k := g.dial(l, 1)
		g.send(k, VIRTIO_VSOCK_OP_SHUTDOWN, shutFlags(shutdownBoth))
		g.expect(k, VIRTIO_VSOCK_OP_RST)
		c.Close()
	}
}
