package vsock

import (
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestResetInUse resets the guest while streams are busy in all ways: each call
// ends, no goroutine is left, and the next guest finds the listener.
func TestResetInUse(t *testing.T) {
	d := New(testCID)
	l := listen(t, d, 1024)
	for round := range 3 {
		g := boot(t, d, options{})
		var calls sync.WaitGroup
		var conns []*Conn
		for i := range uint32(8) {
			c, k := g.dial(l, 1+i)
			conns = append(conns, c)
			g.rw(k, "tail")
		}
		k := key{host: 1024, guest: 100}
		g.send(k, VIRTIO_VSOCK_OP_REQUEST, nil) // nobody accepts it
		g.expect(k, VIRTIO_VSOCK_OP_RESPONSE)
		for _, c := range conns {
			calls.Go(func() {
				if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("read: got %v, want %v", err, syscall.ECONNRESET)
				}
			})
			calls.Go(func() {
				for {
					if _, err := c.Write(make([]byte, 10_000)); err != nil {
						if !errors.Is(err, syscall.ECONNRESET) {
							t.Errorf("write: got %v, want %v", err, syscall.ECONNRESET)
						}
						return
					}
				}
			})
		}
		g.recv() // the writers are at it
		if err := g.halt(); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		calls.Wait()
		for _, c := range conns {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		if d.count() != 0 || len(l.(*Listener).backlog) != 0 {
			t.Errorf("round %d: %d connections, backlog of %d", round, d.count(), len(l.(*Listener).backlog))
		}
	}
	if n := goroutines(); n != 0 {
		t.Errorf("%d goroutines of the device left", n)
	}
}

// goroutines counts those that serve a queue.
func goroutines() int {
	for deadline := time.Now().Add(time.Second); ; runtime.Gosched() {
		b := make([]byte, 1<<20)
		n := strings.Count(string(b[:runtime.Stack(b, true)]), "(*Device).serve(")
		if n == 0 || time.Now().After(deadline) {
			return n
		}
	}
}

// TestDrainAfterReset: what had arrived before the guest's reset is still read.
func TestDrainAfterReset(t *testing.T) {
	g, c, k := connected(t, options{})
	g.rw(k, "last words")
	g.sync()
	if err := g.halt(); err != nil {
		t.Error(err)
	}
	wantRead(t, c, "last words")
	wantReadErr(t, c, syscall.ECONNRESET)
	wantWriteErr(t, c, syscall.ECONNRESET)
}

func TestStartTwice(t *testing.T) {
	g := boot(t, New(testCID), options{})
	if err := g.dev.Start(0, g.queues); err == nil {
		t.Error("second start succeeded")
	}
	if err := New(testCID).Start(0, g.queues[:1]); err == nil {
		t.Error("start without a tx queue succeeded")
	}
	if err := New(testCID).Wait(); err != nil {
		t.Errorf("wait without start: %v", err)
	}
}

func TestListener(t *testing.T) {
	d := New(testCID)
	l := listen(t, d, 1024)
	if _, err := d.Listen(1024); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want %v", err, syscall.EADDRINUSE)
	}
	g := boot(t, d, options{})
	accepted, k := g.dial(l, 1)
	waiting := key{host: 1024, guest: 2}
	g.send(waiting, VIRTIO_VSOCK_OP_REQUEST, nil)
	g.expect(waiting, VIRTIO_VSOCK_OP_RESPONSE)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	g.expect(waiting, VIRTIO_VSOCK_OP_RST)
	g.send(key{host: 1024, guest: 3}, VIRTIO_VSOCK_OP_REQUEST, nil)
	g.expect(key{host: 1024, guest: 3}, VIRTIO_VSOCK_OP_RST)
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
	g.wantWrite(accepted, k, "lives on")

	l = listen(t, d, 1024)
	done := make(chan error)
	go func() { _, err := l.Accept(); done <- err }()
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
}

// TestDeadlines: one that is moved while a call waits counts.
func TestDeadlines(t *testing.T) {
	g, c, k := connected(t, options{})
	g.rw(k, "ready")
	g.sync()
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := c.Read(make([]byte, 5)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("got %v, want a timeout", err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	wantRead(t, c, "ready")
	if err := c.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { _, err := c.Read(make([]byte, 5)); done <- err }()
	if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("got %v, want a timeout", err)
	}
	c.Close()
	if err := c.SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
}
