package console

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
)

const patience = 10 * time.Second

// guest is a started console and its driver.
type guest struct {
	t      *testing.T
	d      *Device
	rx, tx *queuetest.Driver
}

func start(t *testing.T, d *Device) *guest {
	t.Helper()
	g := &guest{t: t, d: d, rx: queuetest.New(t, 16, queue.Config{}), tx: queuetest.New(t, 16, queue.Config{})}
	if err := d.Start(1<<virtio.FVersion1, []*queue.Queue{g.rx.Queue, g.tx.Queue}); err != nil {
		t.Fatal(err)
	}
	return g
}

// stop does what a transport does to reset the device.
func (g *guest) stop() {
	g.t.Helper()
	g.rx.Queue.Close()
	g.tx.Queue.Close()
	if err := g.d.Wait(); err != nil {
		g.t.Errorf("Wait: %v", err)
	}
}

func (g *guest) offer(d *queuetest.Driver, bufs ...queuetest.Buffer) {
	g.t.Helper()
	d.Offer(bufs...)
	if err := d.Notify(); err != nil {
		g.t.Fatal(err)
	}
}

// within fails the test if f does not return in time.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s does not return", what)
	}
}

func room(n int) queuetest.Buffer { return queuetest.Buffer{Data: make([]byte, n), Write: true} }

func text(s string) queuetest.Buffer { return queuetest.Buffer{Data: []byte(s)} }

// TestOutput: bytes arrive in order, whatever their chains are like.
func TestOutput(t *testing.T) {
	var out bytes.Buffer
	d := New(Options{Out: &out})
	g := start(t, d)
	long := strings.Repeat("0123456789abcdef", 3*maxChunk/16) + "tail"
	want := ""
	for _, bufs := range [][]queuetest.Buffer{{text("a")}, {text("bc"), text("d")}, {text(long)}, {text("e"), room(8)}, {room(8)}} {
		g.offer(g.tx, bufs...)
		if u := g.tx.Take(t, patience); u.Len != 0 {
			t.Errorf("device says to have written %d bytes", u.Len)
		}
		for _, b := range bufs {
			if !b.Write {
				want += string(b.Data)
			}
		}
	}
	g.stop()
	d.Close()
	if got := out.String(); got != want {
		t.Errorf("output of %d bytes, want %d: %.60q", len(got), len(want), got)
	}
}

// stuck is a Writer that blocks until it is released.
type stuck struct {
	release chan struct{}
	mu      sync.Mutex
	got     int
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.release
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got += len(p)
	return len(p), nil
}

// TestFloodIntoStuckOutput: the guest writes and nobody takes it. It gets no
// buffer back beyond those that are on the way, the device can be stopped and
// started, and the writer's one chunk still arrives.
func TestFloodIntoStuckOutput(t *testing.T) {
	out := &stuck{release: make(chan struct{})}
	d := New(Options{Out: out})
	g := start(t, d)
	for range 8 {
		g.offer(g.tx, text(strings.Repeat("x", maxChunk)))
	}
	g.tx.Take(t, patience) // in the writer's hands
	within(t, "stop with a stuck output", g.stop)
	if _, ok := g.tx.Poll(); ok {
		t.Error("a second chunk was taken from the guest")
	}
	g = start(t, d)
	within(t, "second stop", g.stop)
	close(out.release)
	within(t, "Close", d.Close)
	if out.got != maxChunk {
		t.Errorf("%d bytes of output, want the chunk that was taken, %d", out.got, maxChunk)
	}
}

// TestOverlappingOutput: one chain of 1 GB, all of it the same megabyte, is
// printed chunk by chunk, and does not hold up the end.
func TestOverlappingOutput(t *testing.T) {
	out := &stuck{release: make(chan struct{})}
	d := New(Options{Out: out})
	rx, tx := queuetest.New(t, 16, queue.Config{}), queuetest.New(t, 1024, queue.Config{})
	g := &guest{t: t, d: d, rx: rx, tx: tx}
	for i := range uint16(1024) {
		tx.SetDesc(i, 0x400000, 1<<20, 1, i+1)
	}
	tx.SetDesc(1023, 0x400000, 1<<20, 0, 0)
	tx.PutAvail(0)
	if err := d.Start(0, []*queue.Queue{rx.Queue, tx.Queue}); err != nil {
		t.Fatal(err)
	}
	out.release <- struct{}{}
	within(t, "stop", g.stop)
	close(out.release)
	within(t, "Close", d.Close)
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestOutputNobodyWants: a guest whose output goes nowhere does not wait.
func TestOutputNobodyWants(t *testing.T) {
	closed := New(Options{Out: failing{}})
	closed.Close()
	for _, d := range []*Device{New(Options{}), New(Options{Out: failing{}}), closed} {
		g := start(t, d)
		for range 20 {
			g.offer(g.tx, text("lost"))
			g.tx.Take(t, patience)
		}
		g.stop()
		d.Close()
	}
}

// TestInput: bytes reach the guest in order; buffers that are too short get the
// first part; what one driver did not take, the next one gets.
func TestInput(t *testing.T) {
	in, w := io.Pipe()
	d := New(Options{In: in})
	g := start(t, d)
	if _, err := w.Write([]byte("hello")); err != nil { // before there is a buffer
		t.Fatal(err)
	}
	g.offer(g.rx, room(2), room(1))
	if u := g.rx.Take(t, patience); u.Len != 3 || string(u.Data[0])+string(u.Data[1]) != "hel" {
		t.Errorf("guest read %d bytes %q, want hel", u.Len, u.Data)
	}
	g.offer(g.rx, text("only readable"))
	if u := g.rx.Take(t, patience); u.Len != 0 {
		t.Errorf("guest read %d bytes into no room", u.Len)
	}
	g.stop()
	g = start(t, d)
	g.offer(g.rx, room(100))
	if u := g.rx.Take(t, patience); u.Len != 2 || string(u.Data[0][:2]) != "lo" {
		t.Errorf("guest read %d bytes %q, want lo", u.Len, u.Data[0][:2])
	}
	g.offer(g.rx, room(100)) // waits for input
	if _, err := w.Write([]byte("!")); err != nil {
		t.Fatal(err)
	}
	if u := g.rx.Take(t, patience); u.Len != 1 || u.Data[0][0] != '!' {
		t.Errorf("guest read %d bytes %q, want !", u.Len, u.Data[0][:1])
	}
	w.Close() //nolint:errcheck // a pipe's
	g.stop()
	within(t, "Close", d.Close)
}

// endless gives bytes for ever, and counts them.
type endless struct {
	mu  sync.Mutex
	got int
}

func (e *endless) Read(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.got += len(p)
	return len(p), nil
}

// TestInputIsBounded: a guest that does not read leaves the input where it is.
func TestInputIsBounded(t *testing.T) {
	in := &endless{}
	d := New(Options{In: in})
	g := start(t, d)
	for range 100 {
		g.offer(g.rx, room(1))
		g.rx.Take(t, patience)
	}
	g.stop()
	within(t, "Close", d.Close)
	if in.got > 3*maxChunk {
		t.Errorf("%d bytes were read for a guest that took 100", in.got)
	}
}

func TestSize(t *testing.T) {
	d := New(Options{Cols: 80, Rows: 24})
	defer d.Close()
	if got, want := d.Config(), []byte{80, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0}; !bytes.Equal(got, want) {
		t.Errorf("Config = %v, want %v", got, want)
	}
	changes := 0
	d.Resize(1, 1) // nobody asked to be told
	d.NotifyConfig(func() { changes++ })
	d.Resize(0x1234, 300)
	if got, want := d.Config()[:4], []byte{0x34, 0x12, 0x2c, 1}; !bytes.Equal(got, want) || changes != 1 {
		t.Errorf("Config = %v, want %v; %d changes", got, want, changes)
	}
}

// TestBrokenRing: one queue that the driver broke ends both.
func TestBrokenRing(t *testing.T) {
	d := New(Options{})
	defer d.Close()
	g := start(t, d)
	g.tx.SetAvailIndex(17)
	if err := g.tx.Notify(); err != nil {
		t.Fatal(err)
	}
	within(t, "Wait", func() {
		if err := d.Wait(); !errors.Is(err, queue.ErrBadRing) {
			t.Errorf("Wait = %v, want ErrBadRing", err)
		}
	})
}
