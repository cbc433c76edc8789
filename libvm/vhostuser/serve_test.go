package vhostuser

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
	"runv/libvm/virtio/rng"
)

func room(n int) queuetest.Buffer { return queuetest.Buffer{Data: make([]byte, n), Write: true} }

// TestGuestResets has a driver come and go: with the same features and with
// others, from index 0 and, as after a pause, from where it was.
func TestGuestResets(t *testing.T) {
	before := openFDs(t)
	t.Run("guest", guestResets)
	if got := openFDs(t); got != before {
		t.Errorf("%d descriptors, %d before", got, before)
	}
}

func guestResets(t *testing.T) {
	d := &Recorder{Device: rng.New()}
	f := newFrontend(t, d)
	f.connect(1)
	call := f.calls[0]
	at := uint16(0)
	for round, start := range []struct {
		features uint64
		base     uint16
	}{{defaultFeatures, 0}, {1 << virtio.FVersion1, 0}, {defaultFeatures, 65530}, {defaultFeatures, 0}} {
		if round == 3 {
			start.base = at // the driver goes on
		}
		f.boot(start.features, 1, start.base)
		for range 10 {
			u := f.request(0, call, room(100), room(28))
			if u.Len != 128 || bytes.Equal(u.Data[0], make([]byte, 100)) {
				t.Fatalf("round %d: %d bytes: %x", round, u.Len, u.Data)
			}
		}
		at = start.base + 10
		if got := f.halt(1); got[0] != uint32(at) {
			t.Errorf("round %d: ring stopped at %d, want %d", round, got[0], at)
		}
	}
	if got := len(d.Started()); got != 4 {
		t.Errorf("device was started %d times, want 4", got)
	}
	f.conn.Close() //nolint:errcheck // QEMU exits
	if err := f.wait(); err != nil {
		t.Errorf("Serve: %v, want nil when the front-end goes away", err)
	}
}

// slow is a device that holds each request until it is told to end it.
type slow struct {
	Idle
	taken, release chan struct{}
}

func (d *slow) Start(_ uint64, queues []*queue.Queue) error {
	d.workers.Serve(queues, func(_ int, q *queue.Queue) error {
		for {
			c, err := q.Next()
			if err == nil && c == nil {
				err = q.Wait()
			}
			if err != nil {
				return err
			}
			if c != nil {
				d.taken <- struct{}{}
				<-d.release
				q.Used(c, uint32(copy(c.Writable[0], "answer")))
			}
		}
	})
	return nil
}

// TestStopDrains: the answer to GET_VRING_BASE comes behind that to the request
// in flight, and counts it.
func TestStopDrains(t *testing.T) {
	d := &slow{Idle: Idle{Type: virtio.IDBlock, Sizes: []uint16{64}}, taken: make(chan struct{}), release: make(chan struct{})}
	f := newFrontend(t, d)
	f.connect(1)
	f.boot(defaultFeatures, 1, 0)
	f.drv[0].Offer(room(6))
	if err := f.drv[0].Notify(); err != nil {
		t.Fatal(err)
	}
	<-d.taken
	f.raw(packet(VHOST_USER_GET_VRING_BASE, 0, state(0, 0)))
	if err := f.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := f.conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatal("GET_VRING_BASE was answered while a request was in flight")
	}
	close(d.release)
	if v := parseVringState(f.answer(VHOST_USER_GET_VRING_BASE)); v.num != 1 {
		t.Errorf("ring stopped at %d, want 1", v.num)
	}
	if u, ok := f.drv[0].Poll(); !ok || string(u.Data[0]) != "answer" {
		t.Errorf("request in flight: %+v %v", u, ok)
	}
}

// TestCallIsExchanged: QEMU gives a running ring another call eventfd. What was
// signalled on the old one may be lost, so the new one is signalled at once.
func TestCallIsExchanged(t *testing.T) {
	f := newFrontend(t, rng.New())
	f.connect(1)
	f.boot(defaultFeatures, 1, 0)
	f.request(0, f.calls[0], room(1))
	second := f.setCall(0)
	awaitCall(t, second)
	f.request(0, second, room(1))
	f.ok(VHOST_USER_SET_VRING_CALL, u64(0|VHOST_USER_VRING_NOFD_MASK)) // the driver polls
	f.drv[0].Offer(room(1))
	if err := f.drv[0].Notify(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for {
		if _, ok := f.drv[0].Poll(); ok {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no answer without a call")
		}
	}
}

// TestRingsThatTheGuestLeaves: the device has three rings, the front-end two,
// and the driver sets up one of them.
func TestRingsThatTheGuestLeaves(t *testing.T) {
	d := &Recorder{Device: &Idle{Type: virtio.IDVsock, Sizes: []uint16{64, 64, 64}}}
	f := newFrontend(t, d)
	f.connect(2)
	f.boot(defaultFeatures, 1, 0)
	if got := d.Started(); len(got) != 0 {
		t.Errorf("started with %q before ring 1 was enabled", got)
	}
	f.ok(VHOST_USER_SET_VRING_ENABLE, state(1, 1))
	if got := d.Started(); len(got) != 1 || got[0] != "[64]--" {
		t.Errorf("started with %q, want one queue", got)
	}
}

// TestDeviceFails: the guest breaks its ring.
func TestDeviceFails(t *testing.T) {
	f := newFrontend(t, rng.New())
	f.connect(1)
	f.boot(defaultFeatures, 1, 0)
	f.drv[0].PutAvail(64)
	if err := f.drv[0].Notify(); err != nil {
		t.Fatal(err)
	}
	if err := f.wait(); !errors.Is(err, queue.ErrBadRing) {
		t.Errorf("Serve: %v, want ErrBadRing", err)
	}
	var b [8]byte
	if n, err := unix.Read(f.errs[0], b[:]); n != 8 || err != nil {
		t.Errorf("err eventfd was not signalled: %v", err)
	}
	if _, err := f.conn.Read(b[:]); !errors.Is(err, io.EOF) {
		t.Errorf("connection: %v, want EOF", err)
	}
}

func TestServeEnds(t *testing.T) {
	tests := []struct {
		name string
		do   func(f *frontend)
		want error
	}{
		{"front-end goes away", func(f *frontend) { f.conn.Close() }, nil},
		{"inside a header", func(f *frontend) { f.raw([]byte{1, 2}); f.conn.Close() }, io.ErrUnexpectedEOF},
		{"inside a payload", func(f *frontend) {
			f.raw(packet(VHOST_USER_SET_FEATURES, 0, u64(1))[:15])
			f.conn.Close()
		}, io.ErrUnexpectedEOF},
		{"context ends", func(f *frontend) { f.cancel() }, context.Canceled},
	}
	for _, running := range []bool{false, true} {
		for _, tt := range tests {
			f := newFrontend(t, rng.New())
			if running {
				f.connect(1)
				f.boot(defaultFeatures, 1, 0)
			}
			tt.do(f)
			if err := f.wait(); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Errorf("%s (running %v): Serve: %v, want %v", tt.name, running, err, tt.want)
			}
		}
	}
}

// writable is a device whose configuration the driver may write.
type writable struct{ Idle }

func (w *writable) WriteConfig(off uint32, p []byte) error {
	if int(off)+len(p) > len(w.Space) {
		return errors.New("outside of the configuration space")
	}
	copy(w.Space[off:], p)
	return nil
}

func configMessage(off, size, flags uint32, data []byte) []byte {
	return append(header{request: off, flags: size, size: flags}.append(nil), data...)
}

func TestConfig(t *testing.T) {
	f := newFrontend(t, &writable{Idle{Type: virtio.IDBlock, Sizes: []uint16{64}, Space: []byte("01234567")}})
	f.connect(1)
	if got := f.call(VHOST_USER_GET_CONFIG, configMessage(2, 4, 0, make([]byte, 4))); string(got[configBytes:]) != "2345" {
		t.Errorf("configuration is %q, want 2345", got[configBytes:])
	}
	if got := f.call(VHOST_USER_GET_CONFIG, configMessage(2, 8, 0, make([]byte, 8))); len(got) != 0 {
		t.Errorf("configuration outside of the space: %d bytes, want none", len(got))
	}
	f.ok(VHOST_USER_SET_CONFIG, configMessage(6, 2, 0, []byte("ab")))
	if got := f.call(VHOST_USER_GET_CONFIG, configMessage(0, 8, 0, make([]byte, 8))); string(got[configBytes:]) != "012345ab" {
		t.Errorf("configuration is %q, want 012345ab", got[configBytes:])
	}
	if got := le64(f.call(VHOST_USER_GET_QUEUE_NUM, nil), 0); got != 1 {
		t.Errorf("%d queues, want 1", got)
	}
}

func TestPairIsCloseOnExec(t *testing.T) {
	conn, frontend, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()     //nolint:errcheck // a test's
	defer frontend.Close() //nolint:errcheck // a test's
	var _ net.Conn = conn
	flags, err := unix.FcntlInt(frontend.Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("front-end's end: flags %#x, %v", flags, err)
	}
}

// pairs is a device of which all rings but the first two are optional.
type pairs struct{}

func (pairs) Optional(i int) bool { return i > 1 }

// TestOptionalRings: QEMU enables a card's further pairs when the guest says that it
// uses them, and may disable them again.
func TestOptionalRings(t *testing.T) {
	rec := &Recorder{Device: &Idle{Type: virtio.IDNet, Sizes: []uint16{64, 64, 64, 64, 64}}}
	d := struct {
		*Recorder
		virtio.Multiqueue
	}{rec, pairs{}}
	f := newFrontend(t, d)
	f.connect(4)
	f.boot(defaultFeatures, 4, 0)
	f.enable(4, 0)
	f.enable(2, 1)
	f.ok(VHOST_USER_SET_VRING_ENABLE, state(2, 1))
	f.ok(VHOST_USER_SET_VRING_ENABLE, state(3, 1))
	f.ok(VHOST_USER_SET_VRING_ENABLE, state(3, 0))
	f.ok(VHOST_USER_SET_VRING_ENABLE, state(1, 0)) // not without its first pair
	got := rec.Started()
	want := []string{"[64][64]---", "[64][64][64]--", "[64][64][64][64]-", "[64][64][64]--"}
	if len(got) < len(want) || !slices.Equal(got[len(got)-len(want):], want) {
		t.Errorf("started with %q, want %q at the end", got, want)
	}
}
