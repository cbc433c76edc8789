package vsock

import (
	"context"
	"errors"
	"math"
	"net"
	"syscall"
	"testing"

	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
)

// TestRefused: what belongs to nothing is answered by RST from where it went to.
func TestRefused(t *testing.T) {
	tests := []struct {
		name string
		op   uint16
		edit func(*header)
		want bool // a RST comes
	}{
		{"no listener", VIRTIO_VSOCK_OP_REQUEST, nil, true},
		{"data", VIRTIO_VSOCK_OP_RW, nil, true},
		{"shutdown", VIRTIO_VSOCK_OP_SHUTDOWN, shutFlags(shutdownBoth), true},
		{"response", VIRTIO_VSOCK_OP_RESPONSE, nil, true},
		{"credit", VIRTIO_VSOCK_OP_CREDIT_UPDATE, nil, true},
		{"unknown op", 77, nil, true},
		{"reset", VIRTIO_VSOCK_OP_RST, nil, false},
		{"other context id", VIRTIO_VSOCK_OP_REQUEST, func(h *header) { h.dstCID = 4 }, true},
		{"context id beyond 32 bits", VIRTIO_VSOCK_OP_REQUEST, func(h *header) { h.dstCID = 1<<32 | hostCID }, true},
		{"seqpacket", VIRTIO_VSOCK_OP_REQUEST, func(h *header) { h.typ = VIRTIO_VSOCK_TYPE_SEQPACKET }, true},
		{"no type", VIRTIO_VSOCK_OP_REQUEST, func(h *header) { h.typ = 0 }, true},
		{"foreign source", VIRTIO_VSOCK_OP_REQUEST, func(h *header) { h.srcCID = hostCID }, false},
		{"claims what it was never sent", VIRTIO_VSOCK_OP_REQUEST, func(h *header) { h.dstPort, h.fwdCnt = 1024, 1 }, true},
	}
	d := New(testCID)
	listen(t, d, 1024)
	g := boot(t, d, options{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g.t = t
			sent := header{dstCID: hostCID, typ: VIRTIO_VSOCK_TYPE_STREAM}
			g.send(key{host: 9, guest: 5}, tt.op, func(h *header) {
				if tt.edit != nil {
					tt.edit(h)
				}
				sent = *h
			})
			if tt.want {
				h, _ := g.recv()
				want := header{srcCID: sent.dstCID, dstCID: testCID, srcPort: sent.dstPort, dstPort: 5, typ: sent.typ, op: VIRTIO_VSOCK_OP_RST, bufAlloc: math.MaxUint32}
				if h != want {
					t.Errorf("got %+v, want %+v", h, want)
				}
			}
			g.sync()
			if n := d.count(); n != 0 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestBroken: what breaks the rules of an open connection resets it.
func TestBroken(t *testing.T) {
	tests := []struct {
		name string
		do   func(g *guest, k key)
	}{
		{"request", func(g *guest, k key) { g.send(k, VIRTIO_VSOCK_OP_REQUEST, nil) }},
		{"response", func(g *guest, k key) { g.send(k, VIRTIO_VSOCK_OP_RESPONSE, nil) }},
		{"invalid op", func(g *guest, k key) { g.send(k, VIRTIO_VSOCK_OP_INVALID, nil) }},
		{"unknown op", func(g *guest, k key) { g.send(k, 0xffff, nil) }},
		{"length beyond the chain", func(g *guest, k key) {
			g.send(k, VIRTIO_VSOCK_OP_RW, func(h *header) { h.len = 6 }, []byte("short"))
		}},
		{"length of 4 GiB", func(g *guest, k key) {
			g.send(k, VIRTIO_VSOCK_OP_RW, func(h *header) { h.len = 0xffffffff }, []byte("short"))
		}},
		{"credit for what was not sent", func(g *guest, k key) {
			g.send(k, VIRTIO_VSOCK_OP_CREDIT_UPDATE, func(h *header) { h.fwdCnt = 1 })
		}},
		{"data after its end", func(g *guest, k key) {
			g.shutdown(k, shutSend)
			g.rw(k, "more")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g, c, k := connected(t, options{})
			tt.do(g, k)
			g.expect(k, VIRTIO_VSOCK_OP_RST)
			wantWriteErr(t, c, syscall.ECONNRESET)
			g.sync()
			if n := g.dev.count(); n != 0 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestOddPackets: legal, if strange.
func TestOddPackets(t *testing.T) {
	g, c, k := connected(t, options{})
	g.put(make([]byte, 10)) // no header: no packet
	g.rw(k, "")             // no data
	g.shutdown(k, 0)        // no direction
	g.shutdown(k, 0xf0)
	g.send(k, VIRTIO_VSOCK_OP_CREDIT_UPDATE, func(h *header) { h.len = 1 << 30 })       // no payload: not read
	g.send(k, VIRTIO_VSOCK_OP_RW, func(h *header) { h.len = 2 }, []byte("hi, ignored")) // longer chain
	h := header{srcCID: testCID, dstCID: hostCID, srcPort: k.guest, dstPort: k.host, typ: VIRTIO_VSOCK_TYPE_STREAM,
		op: VIRTIO_VSOCK_OP_RW, bufAlloc: linuxBuf, len: 4}
	var b [headerSize]byte
	h.encode(&b)
	g.put(b[:7], b[7:40], append(b[40:], " y"...), []byte("ou")) // cut anywhere
	g.notify(g.tx)
	wantRead(t, c, "hi you")
	g.sync()
}

// TestBadRings: a broken queue ends the device with an error, and every stream.
func TestBadRings(t *testing.T) {
	tests := []struct {
		name string
		do   func(g *guest, c *Conn)
	}{
		{"tx index", func(g *guest, _ *Conn) {
			g.tx.SetAvailIndex(5000)
			g.notify(g.tx)
		}},
		{"rx buffer too small", func(g *guest, c *Conn) {
			for range g.o.size { // the good ones go first
				g.rx.Offer(queuetest.Buffer{Data: make([]byte, headerSize), Write: true})
			}
			g.notify(g.rx)
			if _, err := c.Write(make([]byte, 100<<10)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("write: got %v, want %v", err, syscall.ECONNRESET)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := New(testCID)
			l := listen(t, d, 1024)
			g := boot(t, d, options{rxBufs: 2})
			c, _ := g.dial(l, 5000)
			tt.do(g, c)
			if err := d.Wait(); !errors.Is(err, queue.ErrBadRing) {
				t.Errorf("got %v, want %v", err, queue.ErrBadRing)
			}
			wantReadErr(t, c, syscall.ECONNRESET)
		})
	}
}

// TestLimits: backlog and table are bounded, and closing streams make place.
func TestLimits(t *testing.T) {
	d := New(testCID)
	l := listen(t, d, 1024)
	g := boot(t, d, options{})
	port := uint32(0)
	request := func(want uint16) {
		t.Helper()
		port++
		k := key{host: 1024, guest: port}
		g.send(k, VIRTIO_VSOCK_OP_REQUEST, nil)
		g.expect(k, want)
	}
	for range maxBacklog {
		request(VIRTIO_VSOCK_OP_RESPONSE)
	}
	request(VIRTIO_VSOCK_OP_RST)
	var c net.Conn
	for d.count() < maxConns {
		var err error
		if c, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		request(VIRTIO_VSOCK_OP_RESPONSE)
	}
	if _, err := l.Accept(); err != nil { // place in the backlog, none in the table
		t.Fatal(err)
	}
	request(VIRTIO_VSOCK_OP_RST)
	if _, err := d.Dial(t.Context(), 1); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("dial: got %v, want %v", err, syscall.EMFILE)
	}
	c.Close()
	k := c.(*Conn).key
	g.wantShutdown(k, shutdownBoth)
	g.send(key{host: 1024, guest: 9999}, VIRTIO_VSOCK_OP_REQUEST, nil)
	g.expect(k, VIRTIO_VSOCK_OP_RST)
	g.expect(key{host: 1024, guest: 9999}, VIRTIO_VSOCK_OP_RESPONSE)
	d.mu.Lock()
	sum := uint64(0)
	for _, c := range d.conns {
		sum += uint64(c.bufAlloc)
	}
	d.mu.Unlock()
	if most := uint64(largeConns*largeBuf + maxConns*smallBuf); sum > most {
		t.Errorf("guest has credit for %d bytes, want at most %d", sum, most)
	}
}

// TestPortReuse: a guest uses a port again as soon as it knows that it may.
func TestPortReuse(t *testing.T) {
	g, _, k := connected(t, options{})
	l := listen(t, g.dev, 1)
	for range 3 {
		g.shutdown(k, shutdownBoth)
		g.expect(k, VIRTIO_VSOCK_OP_RST)
		c, next := g.dial(l, 5000)
		k = next
		g.rw(k, "x")
		wantRead(t, c, "x")
		c.Close() // and before it has answered our close
		g.wantShutdown(k, shutdownBoth)
		_, k = g.dial(l, 5000)
	}
}

// TestReuseOvertakesReset: a RST for the old connection that still waits for a
// buffer does not hit the new one.
func TestReuseOvertakesReset(t *testing.T) {
	d := New(testCID)
	listen(t, d, 1024)
	g := boot(t, d, options{rxBufs: -1})
	k := key{host: 1024, guest: 5000}
	for range 3 {
		g.rw(k, "stray")
	}
	g.send(k, VIRTIO_VSOCK_OP_REQUEST, nil)
	waitFor(t, d, func() bool { return d.conns[k] != nil })
	g.fill(8)
	g.expect(k, VIRTIO_VSOCK_OP_RESPONSE)
	g.sync()
}

// TestDial covers the host's side of a connection's beginning.
func TestDial(t *testing.T) {
	type result struct {
		c   net.Conn
		err error
	}
	start := func(ctx context.Context, d *Device) <-chan result {
		done := make(chan result, 1)
		go func() { c, err := d.Dial(ctx, 22); done <- result{c, err} }()
		return done
	}
	g := boot(t, New(testCID), options{})
	request := func(ctx context.Context) (key, <-chan result) {
		t.Helper()
		done := start(ctx, g.dev)
		h, _ := g.recv()
		if h.op != VIRTIO_VSOCK_OP_REQUEST || h.srcCID != hostCID || h.dstPort != 22 || h.bufAlloc == 0 {
			t.Fatalf("got %+v, want a REQUEST", h)
		}
		return key{host: h.srcPort, guest: 22}, done
	}

	k, done := request(t.Context())
	g.send(k, VIRTIO_VSOCK_OP_RESPONSE, nil)
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	g.wantWrite(r.c, k, "hello")
	if got, want := r.c.RemoteAddr().String(), "3:22"; got != want {
		t.Errorf("got remote address %s, want %s", got, want)
	}

	k, done = request(t.Context())
	g.send(k, VIRTIO_VSOCK_OP_RST, nil)
	if r := <-done; !errors.Is(r.err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want %v", r.err, syscall.ECONNREFUSED)
	}

	k, done = request(t.Context())
	g.rw(k, "too early")
	if r := <-done; !errors.Is(r.err, syscall.ECONNRESET) {
		t.Errorf("got %v, want %v", r.err, syscall.ECONNRESET)
	}
	g.expect(k, VIRTIO_VSOCK_OP_RST)

	ctx, cancel := context.WithCancel(t.Context())
	k, done = request(ctx)
	cancel()
	if r := <-done; !errors.Is(r.err, context.Canceled) {
		t.Errorf("got %v, want %v", r.err, context.Canceled)
	}
	g.expect(k, VIRTIO_VSOCK_OP_RST)

	_, done = request(t.Context())
	if err := g.halt(); err != nil {
		t.Error(err)
	}
	if r := <-done; !errors.Is(r.err, syscall.ECONNRESET) {
		t.Errorf("got %v, want %v", r.err, syscall.ECONNRESET)
	}
	if r := <-start(t.Context(), g.dev); !errors.Is(r.err, syscall.ENETDOWN) {
		t.Errorf("got %v, want %v", r.err, syscall.ENETDOWN)
	}
}

// TestBacklogMemory: a guest that sends and closes before anybody accepts, again
// and again, pins little.
func TestBacklogMemory(t *testing.T) {
	d := New(testCID)
	l := listen(t, d, 1024)
	g := boot(t, d, options{})
	for i := range uint32(maxBacklog) {
		k := key{host: 1024, guest: i}
		g.send(k, VIRTIO_VSOCK_OP_REQUEST, nil)
		h, _ := g.expect(k, VIRTIO_VSOCK_OP_RESPONSE)
		for left := h.bufAlloc; left > 0; left -= smallBuf {
			g.send(k, VIRTIO_VSOCK_OP_RW, nil, make([]byte, smallBuf))
		}
		g.shutdown(k, shutdownBoth)
		g.expect(k, VIRTIO_VSOCK_OP_RST)
	}
	held := 0
	for range maxBacklog {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		held += len(c.(*Conn).in.buf)
	}
	if most := largeBacklog*largeBuf + maxBacklog*smallBuf; held > most || held == 0 {
		t.Errorf("%d bytes held, want at most %d", held, most)
	}
}
