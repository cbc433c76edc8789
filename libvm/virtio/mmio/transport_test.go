package mmio

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
	"runv/libvm/virtio/rng"
	"runv/libvm/virtio/vsock"
)

const allFeatures = 1<<virtio.FVersion1 | 1<<virtio.RingFEventIdx | 1<<virtio.RingFIndirectDesc

func TestIdentity(t *testing.T) {
	g := newGuest(t, rng.New())
	for _, r := range []struct {
		name string
		off  uint64
		want uint32
	}{
		{"MagicValue", regMagicValue, 0x74726976},
		{"Version", regVersion, 2},
		{"DeviceID", regDeviceID, 4},
		{"QueueNumMax", regQueueNumMax, 64},
		{"Status", regStatus, 0},
		{"SHMLenLow", regSHMLenLow, 0xffffffff},
		{"write-only", regQueueNotify, 0},
		{"nowhere", 0xf0, 0},
		{"behind the configuration", WindowBytes - 4, 0},
	} {
		if got := g.get(r.off); got != r.want {
			t.Errorf("%s: got %#x, want %#x", r.name, got, r.want)
		}
	}
	if got := g.offeredFeatures(); got != allFeatures {
		t.Errorf("features: got %#x, want %#x", got, uint64(allFeatures))
	}
	g.set(regQueueSel, 1)
	if got := g.get(regQueueNumMax); got != 0 {
		t.Errorf("QueueNumMax of no queue: got %d, want 0", got)
	}
	g.set(regDeviceFeaturesSel, 2)
	if got := g.get(regDeviceFeatures); got != 0 {
		t.Errorf("features from bit 64 on: got %#x, want 0", got)
	}
	for _, n := range []int{1, 2, 8} {
		p := bytes.Repeat([]byte{0xff}, n)
		if g.Read(regMagicValue, p); !bytes.Equal(p, make([]byte, n)) {
			t.Errorf("register read by %d bytes: got %x, want zeros", n, p)
		}
	}
}

func TestNegotiation(t *testing.T) {
	for _, c := range []struct {
		name     string
		features uint64
		ok       bool
	}{
		{"all", allFeatures, true},
		{"least", 1 << virtio.FVersion1, true},
		{"legacy", 1 << virtio.RingFIndirectDesc, false},
		{"none", 0, false},
		{"not offered", allFeatures | 1<<virtio.FAccessPlatform, false},
		{"not the device's", allFeatures | 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuest(t, rng.New())
			g.negotiate(c.features)
			if got := g.get(regStatus)&statusFeaturesOK != 0; got != c.ok {
				t.Fatalf("FEATURES_OK: got %v, want %v", got, c.ok)
			}
			g.set(regStatus, g.get(regStatus)|statusDriverOK)
			if got := g.get(regStatus)&statusDriverOK != 0; got != c.ok {
				t.Errorf("DRIVER_OK: got %v, want %v", got, c.ok)
			}
		})
	}
}

func TestFeaturesFreeze(t *testing.T) {
	g := newGuest(t, rng.New())
	g.negotiate(1 << virtio.FVersion1)
	g.set(regDriverFeaturesSel, 0)
	g.set(regDriverFeatures, 0xffffffff)
	if got := g.features; got != 1<<virtio.FVersion1 {
		t.Errorf("features after FEATURES_OK: got %#x, want them unchanged", got)
	}
	g.set(regStatus, statusAcknowledge)
	if got, want := g.get(regStatus), uint32(statusAcknowledge|statusDriver|statusFeaturesOK); got != want {
		t.Errorf("status bits taken back: got %#x, want %#x", got, want)
	}
}

func TestEntropy(t *testing.T) {
	for _, c := range []struct {
		name     string
		features uint64
		wires    error
	}{
		{"ioeventfd", allFeatures, nil},
		{"register", allFeatures, errors.ErrUnsupported},
		{"no event index", 1 << virtio.FVersion1, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuest(t, rng.New())
			g.wires = c.wires
			for range 3 { // the driver is loaded again and again
				d := g.startUp(c.features)[0]
				if g.get(regQueueReady) != 1 {
					t.Error("a running queue is not ready")
				}
				for range 20 {
					g.random(d)
				}
				if got := g.get(regInterruptStatus); got != intUsedBuffer {
					t.Errorf("interrupt status: got %#x, want %#x", got, intUsedBuffer)
				}
				g.set(regInterruptACK, intUsedBuffer)
				if got := g.get(regInterruptStatus); got != 0 {
					t.Errorf("interrupt status after ACK: got %#x, want 0", got)
				}
			}
			if err := g.Close(); err != nil {
				t.Error(err)
			}
			if len(g.notify) != 0 {
				t.Errorf("eventfds still connected: %v", g.notify)
			}
			if got := g.get(regMagicValue); got != 0 {
				t.Errorf("register of a removed device: got %#x, want 0", got)
			}
		})
	}
}

func TestWiresFail(t *testing.T) {
	g := newGuest(t, rng.New())
	g.wires = errors.New("no space")
	g.negotiate(allFeatures)
	g.place(0, 16, true)
	g.set(regStatus, g.get(regStatus)|statusDriverOK)
	if g.get(regStatus)&statusNeedsReset == 0 || !errors.Is(g.Err(), g.wires) {
		t.Errorf("status %#x, error %v, want DEVICE_NEEDS_RESET for %v", g.get(regStatus), g.Err(), g.wires)
	}
}

func TestNeedsReset(t *testing.T) {
	bad := func(name string, spoil func(g *guest, d *queuetest.Driver)) {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, rng.New())
			d := g.startUp(allFeatures)[0]
			spoil(g, d)
			g.waitStatus(statusNeedsReset)
			if g.Err() == nil {
				t.Error("no reason")
			}
			if got := g.get(regInterruptStatus) & intConfigChange; got == 0 {
				t.Error("no configuration change interrupt (v1.2 §2.1.2)")
			}
			g.random(g.startUp(allFeatures)[0])
			if err := g.Close(); err != nil {
				t.Errorf("close after the device was reset: %v", err)
			}
		})
	}
	bad("descriptor outside of memory", func(g *guest, d *queuetest.Driver) {
		d.SetDesc(3, 1<<40, 16, 2, 0)
		d.PutAvail(3)
		g.kick(0)
	})
	bad("index far ahead", func(g *guest, d *queuetest.Driver) {
		d.SetAvailIndex(0x4000)
		g.kick(0)
	})
	bad("queue taken away", func(g *guest, _ *queuetest.Driver) {
		g.set(regQueueReady, 0)
		if got := g.get(regQueueReady); got != 0 {
			g.t.Errorf("QueueReady: got %d, want 0", got)
		}
	})
}

func TestBadQueue(t *testing.T) {
	for _, c := range []struct {
		name string
		off  uint64
		v    uint32
	}{
		{"size 0", regQueueNum, 0},
		{"size not a power of two", regQueueNum, 12},
		{"size above the largest", regQueueNum, 128},
		{"size that wraps", regQueueNum, 1<<16 | 16},
		{"misaligned", regQueueDescLow, 1},
		{"outside of memory", regQueueDeviceHigh, 1},
		{"at the end of memory", regQueueDriverLow, ramBytes - 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuest(t, rng.New())
			g.negotiate(allFeatures)
			g.place(0, 16, true)
			g.set(regQueueReady, 0)
			g.set(c.off, c.v)
			g.set(regQueueReady, 1)
			g.set(regStatus, g.get(regStatus)|statusDriverOK)
			if g.get(regStatus)&statusNeedsReset == 0 || !errors.Is(g.Err(), queue.ErrBadRing) {
				t.Fatalf("status %#x, error %v, want DEVICE_NEEDS_RESET for %v", g.get(regStatus), g.Err(), queue.ErrBadRing)
			}
			g.random(g.startUp(allFeatures)[0])
		})
	}
}

// A queue that is ready does not move.
func TestReadyQueueStays(t *testing.T) {
	g := newGuest(t, rng.New())
	g.negotiate(allFeatures)
	d := g.place(0, 16, true)
	g.set(regQueueNum, 3)
	g.set(regQueueDescLow, 1)
	g.set(regStatus, g.get(regStatus)|statusDriverOK)
	g.random(d)
}

// stuck is a device that takes its time to stop.
type stuck struct {
	queues []*queue.Queue
	let    chan struct{}
}

func (s *stuck) ID() virtio.ID        { return virtio.IDFS }
func (s *stuck) Features() uint64     { return 0 }
func (s *stuck) QueueSizes() []uint16 { return []uint16{16} }
func (s *stuck) Config() []byte       { return nil }
func (s *stuck) Start(_ uint64, queues []*queue.Queue) error {
	s.queues = queues
	return nil
}
func (s *stuck) Wait() error {
	<-s.queues[0].Done()
	<-s.let
	return nil
}

func TestResetOfStuckDevice(t *testing.T) {
	s := &stuck{let: make(chan struct{})}
	g := newGuest(t, s)
	g.patience = time.Millisecond
	g.startUp(allFeatures)
	before := g.get(regStatus)
	g.set(regStatus, 0)
	g.set(regStatus, statusAcknowledge)
	if got := g.get(regStatus); got != before {
		t.Fatalf("status while the device stops: got %#x, want %#x", got, before)
	}
	g.set(regQueueSel, 0)
	g.set(regQueueReady, 0)
	if got := g.get(regQueueReady); got != 1 {
		t.Error("the queue is said to be free while it is in use")
	}
	g.mu.Lock()
	done := g.run.done
	g.mu.Unlock()
	close(s.let)
	<-done
	if got := g.get(regStatus); got != 0 {
		t.Fatalf("status after the device has stopped: got %#x, want 0", got)
	}
	g.startUp(allFeatures)
}

func TestCloseEndsPatience(t *testing.T) {
	s := &stuck{let: make(chan struct{})}
	g := newGuest(t, s)
	g.patience = time.Hour
	g.startUp(allFeatures)
	var wg sync.WaitGroup
	wg.Go(func() { g.set(regStatus, 0) })
	wg.Go(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	<-s.queues[0].Done()
	<-g.closing
	close(s.let)
	wg.Wait()
}

func TestVsock(t *testing.T) {
	const rx, tx = 0, 1
	d := vsock.New(3)
	g := newGuest(t, d)
	if got := g.get(regConfig); got != 3 {
		t.Errorf("context id: got %d, want 3", got)
	}
	l, err := d.Listen(1024)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's
	for range 2 {
		qs := g.startUp(allFeatures)
		qs[rx].WantNext()
		qs[rx].Offer(queuetest.Buffer{Data: make([]byte, 4096), Write: true})
		g.kick(rx)
		// VIRTIO_VSOCK_OP_REQUEST from port 9 to (2, 1024) (v1.2 §5.10.6).
		request := append([]byte{3, 7: 0, 8: 2, 16: 9, 20: 0, 21: 4, 28: 1, 30: 1, 36: 0, 38: 1}, make([]byte, 44-39)...)
		qs[tx].Offer(queuetest.Buffer{Data: request})
		g.kick(tx)
		u := qs[rx].Take(t, limit)
		if op := u.Data[0][30]; u.Len != 44 || op != 2 {
			t.Fatalf("answer of %d bytes, op %d, want VIRTIO_VSOCK_OP_RESPONSE (2)", u.Len, op)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		g.set(regStatus, 0)
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a connection outlived the reset of the device")
		}
	}
}

// Several vCPUs at once: for the race detector.
func TestConcurrentAccess(t *testing.T) {
	g := newGuest(t, rng.New())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				g.set(regStatus, statusAcknowledge|statusDriver)
				g.set(regDriverFeaturesSel, 1)
				g.set(regDriverFeatures, 1)
				g.set(regStatus, g.get(regStatus)|statusFeaturesOK)
				g.set(regQueueNum, 16)
				g.set(regQueueDriverLow, 0x1000)
				g.set(regQueueDeviceLow, 0x2000)
				g.set(regQueueReady, 1)
				g.set(regStatus, g.get(regStatus)|statusDriverOK)
				g.set(regQueueNotify, 0)
				g.set(regInterruptACK, g.get(regInterruptStatus))
				g.set(regStatus, 0)
			}
		})
	}
	wg.Wait()
	g.random(g.startUp(allFeatures)[0])
}
