package vsock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

const (
	shutRecv = VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE
	shutSend = VIRTIO_VSOCK_SHUTDOWN_F_SEND
)

func wantRead(t *testing.T, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v, want %q", b, err, want)
	}
}

func wantReadErr(t *testing.T, c net.Conn, want error) {
	t.Helper()
	if n, err := c.Read(make([]byte, 10)); n != 0 || !errors.Is(err, want) {
		t.Fatalf("read: got %d, %v, want %v", n, err, want)
	}
}

func wantWriteErr(t *testing.T, c net.Conn, want error) {
	t.Helper()
	if n, err := c.Write([]byte("x")); n != 0 || !errors.Is(err, want) {
		t.Fatalf("write: got %d, %v, want %v", n, err, want)
	}
}

// write writes on the host and checks what arrives.
func (g *guest) wantWrite(c net.Conn, k key, s string) {
	g.t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		g.t.Fatal(err)
	}
	if _, data := g.expect(k, VIRTIO_VSOCK_OP_RW); string(data) != s {
		g.t.Fatalf("got %q, want %q", data, s)
	}
}

func (g *guest) rw(k key, s string) { g.send(k, VIRTIO_VSOCK_OP_RW, nil, []byte(s)) }

func (g *guest) shutdown(k key, flags uint32) {
	g.send(k, VIRTIO_VSOCK_OP_SHUTDOWN, shutFlags(flags))
}

func (g *guest) wantShutdown(k key, flags uint32) {
	g.t.Helper()
	if h, _ := g.expect(k, VIRTIO_VSOCK_OP_SHUTDOWN); h.flags != flags {
		g.t.Fatalf("got SHUTDOWN of %#x, want %#x", h.flags, flags)
	}
}

// TestGuestEndsSend: a request that ends with the guest's half-close still gets
// its response (cloud-hypervisor#8300).
func TestGuestEndsSend(t *testing.T) {
	g, c, k := connected(t, options{})
	g.rw(k, "request")
	g.shutdown(k, shutSend)
	wantRead(t, c, "request")
	wantReadErr(t, c, io.EOF)
	g.wantWrite(c, k, "response")
	c.Close()
	g.wantShutdown(k, shutdownBoth)
	g.send(k, VIRTIO_VSOCK_OP_RST, nil)
	g.sync()
}

// TestHostEndsSend is the same from the host: what the guest answers arrives.
func TestHostEndsSend(t *testing.T) {
	g, c, k := connected(t, options{})
	g.wantWrite(c, k, "request")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	g.wantShutdown(k, shutSend)
	wantWriteErr(t, c, syscall.EPIPE)
	g.rw(k, "response")
	wantRead(t, c, "response")
	g.shutdown(k, shutdownBoth)
	g.expect(k, VIRTIO_VSOCK_OP_RST)
	wantReadErr(t, c, io.EOF)
}

// TestHostEndsReceive: the guest hears of it, and what it had under way is dropped.
func TestHostEndsReceive(t *testing.T) {
	g, c, k := connected(t, options{})
	g.rw(k, "unread")
	g.sync()
	if err := c.CloseRead(); err != nil {
		t.Fatal(err)
	}
	h, _ := g.expect(k, VIRTIO_VSOCK_OP_SHUTDOWN)
	if h.flags != shutRecv || h.bufAlloc < 2*largeBuf {
		t.Errorf("got flags %#x, buf_alloc %d, want %#x and credit", h.flags, h.bufAlloc, shutRecv)
	}
	wantReadErr(t, c, io.EOF)
	const step, steps = 50 << 10, 10
	acknowledged := uint32(0)
	for range steps { // what a guest can have under way, and more
		g.send(k, VIRTIO_VSOCK_OP_RW, nil, make([]byte, step))
	}
	for acknowledged < step*steps-largeBuf/4 { // so that its writers are not left waiting
		h, _ := g.expect(k, VIRTIO_VSOCK_OP_CREDIT_UPDATE)
		acknowledged = h.fwdCnt
	}
	g.sync()
	g.wantWrite(c, k, "still open")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	g.wantShutdown(k, shutdownBoth)
	g.send(k, VIRTIO_VSOCK_OP_RST, nil)
	g.sync()
	wantReadErr(t, c, io.EOF) // a clean end, no abort
	wantWriteErr(t, c, syscall.EPIPE)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	g.sync() // nothing is left to say
}

// TestGuestEndsReceive: our writes fail as on a broken pipe, reading goes on.
func TestGuestEndsReceive(t *testing.T) {
	g, c, k := connected(t, options{})
	g.shutdown(k, shutRecv)
	g.sync()
	wantWriteErr(t, c, syscall.EPIPE)
	g.rw(k, "tail")
	wantRead(t, c, "tail")
	g.shutdown(k, shutSend) // the second half: now it has closed
	g.expect(k, VIRTIO_VSOCK_OP_RST)
	wantReadErr(t, c, io.EOF)
	wantWriteErr(t, c, syscall.EPIPE)
}

// TestGuestCloses: the RST goes out at once, and the data is drained before EOF.
func TestGuestCloses(t *testing.T) {
	g, c, k := connected(t, options{})
	want := pattern(200<<10, 1)
	for p := want; len(p) > 0; p = p[10<<10:] {
		g.send(k, VIRTIO_VSOCK_OP_RW, nil, p[:10<<10])
	}
	g.shutdown(k, shutdownBoth)
	g.expect(k, VIRTIO_VSOCK_OP_RST)
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v, want %d", len(got), err, len(want))
	}
	wantWriteErr(t, c, syscall.EPIPE)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	g.sync()
}

// TestGuestAborts: a RST without a SHUTDOWN is an error, after the data.
func TestGuestAborts(t *testing.T) {
	g, c, k := connected(t, options{})
	g.rw(k, "tail")
	g.send(k, VIRTIO_VSOCK_OP_RST, nil)
	g.sync()
	wantRead(t, c, "tail")
	wantReadErr(t, c, syscall.ECONNRESET)
	wantWriteErr(t, c, syscall.ECONNRESET)
}

// TestGuestAbortsAfterEnd: the end of the stream had arrived before the RST.
func TestGuestAbortsAfterEnd(t *testing.T) {
	g, c, k := connected(t, options{})
	g.rw(k, "tail")
	g.shutdown(k, shutSend)
	g.send(k, VIRTIO_VSOCK_OP_RST, nil)
	g.sync()
	wantRead(t, c, "tail")
	wantReadErr(t, c, io.EOF)
	wantWriteErr(t, c, syscall.ECONNRESET)
}

// TestSimultaneousClose: both SHUTDOWNs cross; each is answered.
func TestSimultaneousClose(t *testing.T) {
	g, c, k := connected(t, options{})
	c.Close()
	g.shutdown(k, shutdownBoth) // sent before ours was seen
	g.wantShutdown(k, shutdownBoth)
	g.expect(k, VIRTIO_VSOCK_OP_RST)
	g.send(k, VIRTIO_VSOCK_OP_RST, nil)
	g.sync()
}

// TestSimultaneousHalfClose: each side has ended its own direction, then closes.
func TestSimultaneousHalfClose(t *testing.T) {
	for _, first := range []string{"guest", "host"} {
		t.Run(first, func(t *testing.T) {
			g, c, k := connected(t, options{})
			g.shutdown(k, shutSend)
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			g.wantShutdown(k, shutSend)
			wantReadErr(t, c, io.EOF)
			if first == "guest" {
				g.shutdown(k, shutdownBoth)
				g.expect(k, VIRTIO_VSOCK_OP_RST)
				c.Close()
			} else {
				c.Close()
				g.wantShutdown(k, shutdownBoth)
				g.send(k, VIRTIO_VSOCK_OP_RST, nil)
			}
			g.sync()
			if n := g.dev.count(); n != 0 {
				t.Errorf("%d connections left", n)
			}
		})
	}
}

// TestCloseDrops: what the guest had under way when we closed is no error, and
// no second answer.
func TestCloseDrops(t *testing.T) {
	g, c, k := connected(t, options{})
	c.Close()
	g.wantShutdown(k, shutdownBoth)
	g.rw(k, "late")
	g.send(k, VIRTIO_VSOCK_OP_CREDIT_REQUEST, nil)
	g.shutdown(k, shutSend)
	g.sync()
	g.send(k, VIRTIO_VSOCK_OP_RST, nil)
	g.sync()
	wantReadErr(t, c, net.ErrClosed)
	wantWriteErr(t, c, net.ErrClosed)
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
}

// TestCloseUnanswered: a guest that does not answer our close is forgotten.
func TestCloseUnanswered(t *testing.T) {
	g, c, k := connected(t, options{})
	c.Close()
	g.wantShutdown(k, shutdownBoth)
	g.dev.mu.Lock()
	c.expires = time.Now()
	g.dev.mu.Unlock()
	g.dev.reap() // the timer's function
	g.expect(k, VIRTIO_VSOCK_OP_RST)
	g.sync()
	if n := g.dev.count(); n != 0 {
		t.Errorf("%d connections left", n)
	}
}

// TestCloseWakes: Close ends calls that wait.
func TestCloseWakes(t *testing.T) {
	g, c, k := connected(t, options{})
	errs := make(chan error, 3)
	go func() { _, err := c.Read(make([]byte, 1)); errs <- err }()
	go func() { _, err := c.WriteTo(io.Discard); errs <- err }()
	go func() { _, err := c.Write(make([]byte, linuxBuf+1)); errs <- err }()
	for n := 0; n < linuxBuf; { // so that the writer waits for credit
		_, data := g.expect(k, VIRTIO_VSOCK_OP_RW)
		n += len(data)
	}
	c.Close()
	for range cap(errs) {
		if err := <-errs; !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v, want %v", err, net.ErrClosed)
		}
	}
}

// TestShutdownWakesWriter: a Write that waits for credit ends when the guest
// stops to receive, when we end our side, and when the guest resets.
func TestShutdownWakesWriter(t *testing.T) {
	tests := []struct {
		name string
		do   func(g *guest, c *Conn, k key)
		want error
	}{
		{"guest ends receive", func(g *guest, _ *Conn, k key) { g.shutdown(k, shutRecv) }, syscall.EPIPE},
		{"guest closes", func(g *guest, _ *Conn, k key) { g.shutdown(k, shutdownBoth) }, syscall.EPIPE},
		{"guest resets", func(g *guest, _ *Conn, k key) { g.send(k, VIRTIO_VSOCK_OP_RST, nil) }, syscall.ECONNRESET},
		{"host ends send", func(_ *guest, c *Conn, _ key) {
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
		}, syscall.EPIPE},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g, c, k := connected(t, options{})
			type result struct {
				n   int
				err error
			}
			done := make(chan result)
			go func() { n, err := c.Write(make([]byte, linuxBuf+1)); done <- result{n, err} }()
			for n := 0; n < linuxBuf; {
				_, data := g.expect(k, VIRTIO_VSOCK_OP_RW)
				n += len(data)
			}
			tt.do(g, c, k)
			if r := <-done; r.n != linuxBuf || !errors.Is(r.err, tt.want) {
				t.Errorf("got %d, %v, want %d, %v", r.n, r.err, linuxBuf, tt.want)
			}
		})
	}
}

// count returns the number of connections.
func (d *Device) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.conns)
}

// What the guest ends tells a close from the end of one direction.
func TestHangUp(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(g *guest, c *Conn, k key)
	}{
		{"closed", func(g *guest, _ *Conn, k key) { g.shutdown(k, shutSend|shutRecv) }},
		{"in two steps", func(g *guest, c *Conn, k key) {
			g.shutdown(k, shutSend)
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				g.t.Errorf("read: got %v, want EOF", err)
			}
			if c.HungUp() {
				g.t.Error("half a close is taken for a whole one")
			}
			g.shutdown(k, shutSend|shutRecv)
		}},
		{"reset", func(g *guest, _ *Conn, k key) { g.send(k, VIRTIO_VSOCK_OP_RST, nil) }},
		{"closed here", func(_ *guest, c *Conn, _ key) { _ = c.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := New(testCID)
			l := listen(t, d, 1024)
			g := boot(t, d, options{eventIdx: true})
			conn, k := g.dial(l, 1)
			if conn.HungUp() {
				t.Error("hung up from the start")
			}
			done := make(chan struct{})
			go func() { defer close(done); conn.AwaitHangUp() }()
			tt.end(g, conn, k)
			select {
			case <-done:
			case <-time.After(10 * time.Second):
				t.Fatal("not noticed")
			}
			if !conn.HungUp() {
				t.Error("not hung up")
			}
		})
	}
}
