package vsock

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestCreditToGuest: no more goes out than the guest has room for, the guest is
// asked once, and all arrives as it makes room.
func TestCreditToGuest(t *testing.T) {
	const room = 1000
	d := New(testCID)
	l := listen(t, d, 1024)
	g := boot(t, d, options{})
	k := key{host: 1024, guest: 5000}
	g.send(k, VIRTIO_VSOCK_OP_REQUEST, func(h *header) { h.bufAlloc = room })
	g.expect(k, VIRTIO_VSOCK_OP_RESPONSE)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	want := pattern(10*room, 1)
	done := make(chan error, 1)
	go func() { _, err := c.Write(want); done <- err }()
	var got []byte
	for len(got) < len(want) {
		_, data := g.expect(k, VIRTIO_VSOCK_OP_RW)
		if len(data) != room {
			t.Fatalf("got %d bytes, want %d", len(data), room)
		}
		if got = append(got, data...); len(got) < len(want) {
			g.expect(k, VIRTIO_VSOCK_OP_CREDIT_REQUEST)
		}
		g.sync()
		g.send(k, VIRTIO_VSOCK_OP_CREDIT_UPDATE, func(h *header) { h.bufAlloc, h.fwdCnt = room, uint32(len(got)) })
	}
	if err := <-done; err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
	}
}

// TestCreditFromGuest: our fwd_cnt grows as the reader reads, in steps that are
// neither too many nor so late that the guest has to wait.
func TestCreditFromGuest(t *testing.T) {
	g, c, k := connected(t, options{})
	g.send(k, VIRTIO_VSOCK_OP_CREDIT_REQUEST, nil)
	h, _ := g.expect(k, VIRTIO_VSOCK_OP_CREDIT_UPDATE)
	if h.bufAlloc != largeBuf || h.fwdCnt != 0 {
		t.Fatalf("got buf_alloc %d, fwd_cnt %d, want %d, 0", h.bufAlloc, h.fwdCnt, largeBuf)
	}
	const step = 1 << 10
	var sent, forwarded uint32
	updates := 0
	for range 2048 {
		if left := largeBuf - (sent - forwarded); left < largeBuf/2 {
			t.Fatalf("guest has credit for %d bytes at %d, though all was read", left, sent)
		}
		g.send(k, VIRTIO_VSOCK_OP_RW, nil, make([]byte, step))
		sent += step
		if _, err := io.ReadFull(c, make([]byte, step)); err != nil {
			t.Fatal(err)
		}
		for h, _, ok := g.take(); ok; h, _, ok = g.take() {
			if h.op != VIRTIO_VSOCK_OP_CREDIT_UPDATE || h.fwdCnt > sent {
				t.Fatalf("got op %d, fwd_cnt %d, sent %d", h.op, h.fwdCnt, sent)
			}
			forwarded = h.fwdCnt
			updates++
		}
	}
	if most := 2048 * step / (largeBuf / 4); updates > most {
		t.Errorf("%d updates for %d bytes, want at most %d", updates, 2048*step, most)
	}
}

// TestCreditViolation: data beyond the credit resets that connection only.
func TestCreditViolation(t *testing.T) {
	g, c, k := connected(t, options{})
	d := g.dev
	l := listen(t, d, 1)
	other, ko := g.dial(l, 2)
	for range largeBuf / (64 << 10) {
		g.send(k, VIRTIO_VSOCK_OP_RW, nil, make([]byte, 64<<10))
	}
	g.sync()
	g.send(k, VIRTIO_VSOCK_OP_RW, nil, make([]byte, 1))
	g.expect(k, VIRTIO_VSOCK_OP_RST)
	if n, err := io.Copy(io.Discard, c); n != largeBuf || err == nil {
		t.Errorf("got %d bytes, %v, want %d and an error", n, err, largeBuf)
	}
	g.rw(ko, "fine")
	wantRead(t, other, "fine")
}

// TestSlowReaderDelaysNobody: with one connection's buffer full and another
// one's writer out of credit, a third goes on.
func TestSlowReaderDelaysNobody(t *testing.T) {
	g, _, full := connected(t, options{})
	l := listen(t, g.dev, 1)
	stuck, ks := g.dial(l, 2)
	third, k3 := g.dial(l, 3)
	for range largeBuf / (64 << 10) {
		g.send(full, VIRTIO_VSOCK_OP_RW, nil, make([]byte, 64<<10))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := stuck.Write(make([]byte, linuxBuf+1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v, want %v", err, net.ErrClosed)
		}
	}()
	for n := 0; n < linuxBuf; {
		_, data := g.expect(ks, VIRTIO_VSOCK_OP_RW)
		n += len(data)
	}
	g.expect(ks, VIRTIO_VSOCK_OP_CREDIT_REQUEST)
	for range 100 {
		g.rw(k3, "ping")
		wantRead(t, third, "ping")
		g.wantWrite(third, k3, "pong")
	}
	stuck.Close()
	<-done
}

// TestRoundRobin: with a long Write waiting for buffers, a short one on another
// connection goes out in the next round.
func TestRoundRobin(t *testing.T) {
	d := New(testCID)
	l := listen(t, d, 1024)
	g := boot(t, d, options{rxBufs: -1})
	var conns []*Conn
	for i := range uint32(2) {
		g.send(key{host: 1024, guest: i}, VIRTIO_VSOCK_OP_REQUEST, nil)
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c.(*Conn))
	}
	for i, n := range []int{200_000, 2} {
		go conns[i].Write(make([]byte, n)) //nolint:errcheck // the first fails at the end of the test
		waitFor(t, d, func() bool { return len(conns[i].out) == n })
	}
	g.fill(5)
	var got []uint32
	for len(got) < 5 {
		h, _ := g.recv()
		got = append(got, h.dstPort)
	}
	want := []uint32{0, 1, 0, 1, 0}
	if !slices.Equal(got, want) {
		t.Errorf("got packets for ports %v, want %v", got, want)
	}
}

// waitFor waits until cond, which runs under the device's lock.
func waitFor(t *testing.T, d *Device, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); ; runtime.Gosched() {
		d.mu.Lock()
		ok := cond()
		d.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("condition does not come true")
		}
	}
}

// TestNoBuffers: a guest that gives none costs one pending packet a connection,
// whatever it sends, and gets all that matters once it gives some.
func TestNoBuffers(t *testing.T) {
	d := New(testCID)
	l := listen(t, d, 1024)
	g := boot(t, d, options{rxBufs: -1})
	k := key{host: 1024, guest: 1}
	g.send(k, VIRTIO_VSOCK_OP_REQUEST, nil)
	for range 5000 {
		g.send(k, VIRTIO_VSOCK_OP_CREDIT_REQUEST, nil)
	}
	for i := range uint32(5000) { // connect and abort: no trace of them remains
		k := key{host: 1024, guest: 10 + i}
		g.send(k, VIRTIO_VSOCK_OP_REQUEST, nil)
		g.send(k, VIRTIO_VSOCK_OP_RST, nil)
	}
	for i := range uint32(5000) {
		g.send(key{host: 7, guest: i}, VIRTIO_VSOCK_OP_RW, nil)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for g.busy > 0 {
		if g.reclaim(); g.busy > 0 && !g.wait(queueTX, nil) {
			t.Fatal("the tx queue stands still")
		}
	}
	d.mu.Lock()
	if n := len(d.resets); n != maxResets {
		t.Errorf("%d resets wait, want %d", n, maxResets)
	}
	n := 0
	for r := d.ready.head; r != nil; r = r.next {
		n++
	}
	if n != 1 || len(d.conns) != 1 {
		t.Errorf("%d connections, %d ready, want 1, 1", len(d.conns), n)
	}
	d.mu.Unlock()
	done := make(chan error)
	go func() { _, err := c.Write([]byte("late")); done <- err }()
	g.fill(100)
	for range maxResets {
		if h, _ := g.recv(); h.op != VIRTIO_VSOCK_OP_RST {
			t.Fatalf("got op %d, want RST", h.op)
		}
	}
	g.expect(k, VIRTIO_VSOCK_OP_RESPONSE)
	if _, data := g.expect(k, VIRTIO_VSOCK_OP_RW); string(data) != "late" {
		t.Errorf("got %q", data)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestBulk moves 100 MB each way through a slow reader, and looks at the memory
// that is held meanwhile.
func TestBulk(t *testing.T) {
	total := 100 << 20
	if testing.Short() {
		total = 10 << 20
	}
	for _, o := range []options{{}, {eventIdx: true, indirect: true, rxBytes: 64<<10 + headerSize, size: 32}} {
		t.Run(fmt.Sprintf("eventIdx=%v", o.eventIdx), func(t *testing.T) {
			p := newPair(t, o)
			a, b := p.conns(1024)
			chunk := pattern(100_003, 3)
			var wg sync.WaitGroup
			wg.Go(func() {
				for left := total; left > 0; left -= len(chunk) {
					if _, err := a.Write(chunk[:min(left, len(chunk))]); err != nil {
						t.Error(err)
						return
					}
				}
				if err := a.CloseWrite(); err != nil {
					t.Error(err)
				}
			})
			sum := &checker{chunk: chunk, c: b}
			n, err := io.Copy(sum, b)
			if err != nil || n != int64(total) || sum.bad {
				t.Errorf("got %d bytes, %v, equal %v, want %d", n, err, !sum.bad, total)
			}
			if sum.most > largeBuf {
				t.Errorf("receive buffer of %d bytes", sum.most)
			}
			wg.Wait()
			a.Close()
			b.Close()
		})
	}
}

// checker compares a stream with chunk again and again, and reads slowly: one
// part in eight it keeps the stream waiting until its buffer is full.
type checker struct {
	chunk []byte
	c     *Conn
	at, n int
	bad   bool
	most  int
}

func (w *checker) Write(p []byte) (int, error) {
	if w.n++; w.n%8 == 0 {
		deadline := time.Now().Add(20 * time.Millisecond) // the rest of a stream does not fill it
		for full := false; !full && time.Now().Before(deadline); {
			w.c.dev.mu.Lock()
			full = w.c.in.len() == largeBuf || w.c.peerShut != 0
			w.most = max(w.most, len(w.c.in.buf))
			w.c.dev.mu.Unlock()
		}
	}
	for rest := p; len(rest) > 0; {
		n := min(len(rest), len(w.chunk)-w.at)
		w.bad = w.bad || !bytes.Equal(rest[:n], w.chunk[w.at:w.at+n])
		rest, w.at = rest[n:], (w.at+n)%len(w.chunk)
	}
	return len(p), nil
}

// TestManyConns has 1,000 connections at once, half of them dialed by each side.
func TestManyConns(t *testing.T) {
	const n = 1000
	p := newPair(t, options{})
	l := listen(t, p.b, 7)
	var echo sync.WaitGroup
	echo.Go(func() {
		for range n {
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			echo.Go(func() {
				defer c.Close()
				if _, err := io.Copy(c, c); err != nil {
					t.Error(err)
				}
			})
		}
	})
	var wg sync.WaitGroup
	gate := make(chan struct{}, 100) // dials at once: the backlog holds 256
	open := sync.WaitGroup{}
	open.Add(n)
	for i := range n {
		wg.Go(func() {
			gate <- struct{}{}
			c, err := p.a.Dial(t.Context(), 7)
			<-gate
			open.Done()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			open.Wait() // all of them at once
			msg := pattern(3000, uint32(i))
			go func() {
				if _, err := c.Write(msg); err != nil {
					t.Error(err)
				}
				if err := c.(*Conn).CloseWrite(); err != nil {
					t.Error(err)
				}
			}()
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, msg) {
				t.Errorf("connection %d: got %d bytes, %v", i, len(got), err)
			}
		})
	}
	wg.Wait()
	echo.Wait()
	p.settle(t)
}
