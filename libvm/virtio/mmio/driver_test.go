package mmio

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/mem"
	"runv/libvm/virtio"
	"runv/libvm/virtio/queue/queuetest"
)

const limit = 10 * time.Second

// guest is a machine with one device, and its driver.
type guest struct {
	*Transport
	t   testing.TB
	ram []byte

	mu      sync.Mutex
	notify  map[uint16]int // eventfds of Notify, by queue
	wires   error          // what Notify answers
	drivers []*queuetest.Driver
	irqs    chan struct{} // an interrupt that is not a queue's
}

const ramBytes = 4 * queuetest.PlaceBytes

func newGuest(t testing.TB, d virtio.Device) *guest {
	t.Helper()
	return newGuestIn(t, d, make([]byte, ramBytes))
}

func newGuestIn(t testing.TB, d virtio.Device, ram []byte) *guest {
	t.Helper()
	g := &guest{t: t, ram: ram, notify: map[uint16]int{}, irqs: make(chan struct{}, 1)}
	m, err := mem.New(mem.Region{GPA: 0, Host: g.ram})
	if err != nil {
		t.Fatal(err)
	}
	g.Transport = New(d, m, g)
	t.Cleanup(func() { g.Close() }) //nolint:errcheck // tests look at it themselves
	return g
}

// Notify, Unnotify and Interrupt are the guest's Lines.
func (g *guest) Notify(queue uint16, fd int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.wires == nil {
		g.notify[queue] = fd
	}
	return g.wires
}

func (g *guest) Unnotify(queue uint16, fd int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if got, ok := g.notify[queue]; !ok || got != fd {
		g.t.Errorf("Unnotify(%d, %d): connected is %d", queue, fd, got)
	}
	delete(g.notify, queue)
	return nil
}

func (g *guest) Interrupt() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range g.drivers {
		d.Interrupt()
	}
	select {
	case g.irqs <- struct{}{}:
	default:
	}
	return nil
}

func (g *guest) get(off uint64) uint32 {
	var b [4]byte
	g.Read(off, b[:])
	return binary.LittleEndian.Uint32(b[:])
}

func (g *guest) set(off uint64, v uint32) {
	g.Write(off, binary.LittleEndian.AppendUint32(nil, v))
}

// negotiate is v1.2 §3.1.1, steps 1 to 6, with the features given.
func (g *guest) negotiate(features uint64) {
	g.t.Helper()
	g.set(regStatus, 0)
	if got := g.get(regStatus); got != 0 {
		g.t.Fatalf("status after a reset: got %#x, want 0", got)
	}
	g.set(regStatus, statusAcknowledge)
	g.set(regStatus, statusAcknowledge|statusDriver)
	for i := range uint32(2) {
		g.set(regDriverFeaturesSel, i)
		g.set(regDriverFeatures, uint32(features>>(32*i)))
	}
	g.set(regStatus, g.get(regStatus)|statusFeaturesOK)
}

// offered reads the features.
func (g *guest) offeredFeatures() (f uint64) {
	for i := range uint32(2) {
		g.set(regDeviceFeaturesSel, i)
		f |= uint64(g.get(regDeviceFeatures)) << (32 * i)
	}
	return f
}

// place lays out queue i and tells the device.
func (g *guest) place(i uint32, size uint16, eventIdx bool) *queuetest.Driver {
	g.t.Helper()
	d := queuetest.Place(g.t, g.ram, uint64(i)*queuetest.PlaceBytes, size, eventIdx)
	d.StartAt(0)
	g.mu.Lock()
	g.drivers = append(g.drivers, d)
	g.mu.Unlock()
	g.set(regQueueSel, i)
	if got := g.get(regQueueReady); got != 0 {
		g.t.Fatalf("queue %d is ready before it is set up", i)
	}
	if got := g.get(regQueueNumMax); got < uint32(size) {
		g.t.Fatalf("queue %d: largest size %d, want at least %d", i, got, size)
	}
	desc, driver, device := d.Addrs()
	g.set(regQueueNum, uint32(size))
	for _, a := range []struct {
		low uint64
		gpa mem.GPA
	}{{regQueueDescLow, desc}, {regQueueDriverLow, driver}, {regQueueDeviceLow, device}} {
		g.set(a.low, uint32(a.gpa))
		g.set(a.low+4, uint32(a.gpa>>32))
	}
	g.set(regQueueReady, 1)
	return d
}

// startUp brings the device up with all of its queues, 16 descriptors each at
// most, and returns them.
func (g *guest) startUp(features uint64) []*queuetest.Driver {
	g.t.Helper()
	g.mu.Lock()
	g.drivers = nil
	g.mu.Unlock()
	g.negotiate(features)
	var all []*queuetest.Driver
	for i, size := range g.dev.QueueSizes() {
		all = append(all, g.place(uint32(i), min(size, 16), features&(1<<virtio.RingFEventIdx) != 0))
	}
	g.set(regStatus, g.get(regStatus)|statusDriverOK)
	want := uint32(statusAcknowledge | statusDriver | statusFeaturesOK | statusDriverOK)
	if got := g.get(regStatus); got != want {
		g.t.Fatalf("status of a started device: got %#x, want %#x (%v)", got, want, g.Err())
	}
	return all
}

// kick notifies the device of queue i as the machine does: by the eventfd, or
// the register.
func (g *guest) kick(i uint16) {
	g.t.Helper()
	g.mu.Lock()
	fd, ok := g.notify[i]
	g.mu.Unlock()
	if !ok {
		g.set(regQueueNotify, uint32(i))
		return
	}
	if _, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		g.t.Fatal(err)
	}
}

// waitStatus waits until the bits of want are set, which an interrupt announces.
func (g *guest) waitStatus(want uint32) {
	g.t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for g.get(regStatus)&want != want {
		select {
		case <-g.irqs:
		case <-deadline.C:
			g.t.Fatalf("status %#x, want %#x", g.get(regStatus), want)
		}
	}
}

// random has the entropy device fill 32 bytes.
func (g *guest) random(d *queuetest.Driver) {
	g.t.Helper()
	d.WantNext()
	d.Offer(queuetest.Buffer{Data: make([]byte, 32), Write: true})
	g.kick(0)
	u := d.Take(g.t, limit)
	if u.Len != 32 || [32]byte(u.Data[0]) == [32]byte{} {
		g.t.Fatalf("random bytes: got %d, %x", u.Len, u.Data)
	}
}
