package vsock

import (
	"bytes"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/mem"
	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
)

const (
	testCID     = 3
	testTimeout = 10 * time.Second
	rxBufSize   = 4096 // bytes, as Linux has it
	linuxBuf    = 256 << 10
)

// options of a guest's driver.
type options struct {
	size     uint16 // of each queue, 128 if 0
	rxBufs   int    // rx buffers to offer at boot, size if 0, none if negative
	rxBytes  int    // size of each, rxBufSize if 0
	eventIdx bool
	indirect bool
}

// guest plays the driver of one device: both of its queues in one memory.
type guest struct {
	t      testing.TB
	dev    *Device
	o      options
	rx, tx *queuetest.Driver
	queues []*queue.Queue
	irqs   [2]chan struct{}
	seen   [2]uint16 // used entries taken, of rx and tx
	busy   int       // tx chains that the device has
}

// boot starts the device with fresh queues.
func boot(t testing.TB, d *Device, o options) *guest {
	t.Helper()
	if o.size == 0 {
		o.size = 128
	}
	if o.rxBytes == 0 {
		o.rxBytes = rxBufSize
	}
	if o.rxBufs == 0 {
		o.rxBufs = int(o.size)
	}
	g := &guest{t: t, dev: d, o: o}
	ram := make([]byte, 3*queuetest.PlaceBytes)
	g.rx = queuetest.Place(t, ram, queuetest.PlaceBytes, o.size, o.eventIdx)
	g.tx = queuetest.Place(t, ram, 2*queuetest.PlaceBytes, o.size, o.eventIdx)
	m, err := mem.New(mem.Region{Host: ram})
	if err != nil {
		t.Fatal(err)
	}
	for i, drv := range []*queuetest.Driver{g.rx, g.tx} {
		irq := make(chan struct{}, 1)
		g.irqs[i] = irq
		fd, err := unix.FcntlInt(uintptr(drv.KickFD()), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		desc, driver, device := drv.Addrs()
		q, err := queue.New(m, queue.Config{Size: o.size, Desc: desc, Driver: driver, Device: device,
			EventIdx: o.eventIdx, Indirect: o.indirect, Kick: os.NewFile(uintptr(fd), "kick"),
			Interrupt: func() {
				select {
				case irq <- struct{}{}:
				default:
				}
			}})
		if err != nil {
			t.Fatal(err)
		}
		g.queues = append(g.queues, q)
	}
	g.fill(o.rxBufs)
	if err := d.Start(0, append(g.queues, nil)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.halt() //nolint:errcheck // tests that care have called it
	})
	return g
}

// halt resets the device, as a transport does.
func (g *guest) halt() error {
	for _, q := range g.queues {
		q.Close()
	}
	return g.dev.Wait()
}

// fill offers n rx buffers.
func (g *guest) fill(n int) {
	for range max(n, 0) {
		g.rx.Offer(queuetest.Buffer{Data: make([]byte, g.o.rxBytes), Write: true})
	}
	g.notify(g.rx)
}

func (g *guest) notify(d *queuetest.Driver) {
	if d.NeedsNotify() {
		if err := d.Notify(); err != nil {
			g.t.Error(err)
		}
	}
}

// put offers a packet on the tx queue, in the pieces given, without notifying.
func (g *guest) put(parts ...[]byte) {
	g.reclaim()
	for g.busy >= max(1, min(32, int(g.o.size)/4)) { // up to 4 descriptors each, 4 MiB for all
		if !g.wait(queueTX, nil) {
			g.t.Error("the device does not empty its tx queue")
			return
		}
		g.reclaim()
	}
	var bufs []queuetest.Buffer
	for _, p := range parts {
		bufs = append(bufs, queuetest.Buffer{Data: p})
	}
	if g.o.indirect {
		g.tx.OfferIndirect(bufs...)
	} else {
		g.tx.Offer(bufs...)
	}
	g.busy++
}

func (g *guest) reclaim() {
	for {
		if _, ok := g.tx.Poll(); !ok {
			return
		}
		g.seen[queueTX]++
		g.busy--
	}
}

// wait waits for an interrupt of queue i, false if it does not come in time or
// stop is closed.
func (g *guest) wait(i int, stop <-chan struct{}) bool {
	d := []*queuetest.Driver{g.rx, g.tx}[i]
	d.WantInterruptAt(g.seen[i])
	_, idx := queue.RingHeadForTest(usedRing(d))
	if idx != g.seen[i] {
		return true
	}
	deadline := time.NewTimer(testTimeout)
	defer deadline.Stop()
	select {
	case <-g.irqs[i]:
		return true
	case <-stop:
	case <-deadline.C:
	}
	return false
}

func usedRing(d *queuetest.Driver) []byte {
	_, _, used := d.Addrs()
	return d.RAM[used:]
}

// send sends one packet whose addresses, type and length are filled in.
func (g *guest) send(k key, op uint16, edit func(*header), payload ...[]byte) {
	h := header{srcCID: testCID, dstCID: hostCID, srcPort: k.guest, dstPort: k.host,
		typ: VIRTIO_VSOCK_TYPE_STREAM, op: op, bufAlloc: linuxBuf, len: uint32(len(bytes.Join(payload, nil)))}
	if edit != nil {
		edit(&h)
	}
	var b [headerSize]byte
	h.encode(&b)
	g.put(append([][]byte{b[:]}, payload...)...)
	g.notify(g.tx)
}

// take takes the next packet of the device and offers a new buffer, ok is
// false if there is none now.
func (g *guest) take() (h header, data []byte, ok bool) {
	u, ok := g.rx.Poll()
	if !ok {
		return header{}, nil, false
	}
	g.seen[queueRX]++
	g.fill(1)
	b := u.Data[0][:u.Len]
	h = decodeHeader((*[headerSize]byte)(b))
	if int(h.len) != len(b)-headerSize {
		g.t.Errorf("packet of %d bytes has len %d", len(b), h.len)
	}
	return h, b[headerSize:], true
}

// recv waits for the next packet of the device.
func (g *guest) recv() (header, []byte) {
	g.t.Helper()
	for {
		if h, data, ok := g.take(); ok {
			return h, data
		}
		if !g.wait(queueRX, nil) {
			g.t.Fatal("no packet from the device in time")
		}
	}
}

// expect waits for the next packet, which is to be op on k.
func (g *guest) expect(k key, op uint16) (header, []byte) {
	g.t.Helper()
	h, data := g.recv()
	got := key{host: h.srcPort, guest: h.dstPort}
	if h.op != op || got != k {
		g.t.Fatalf("got op %d on %v, want op %d on %v", h.op, got, op, k)
	}
	if h.dstCID != testCID {
		g.t.Fatalf("got dst_cid %d, want %d", h.dstCID, testCID)
	}
	return h, data
}

// sync returns when the device has handled all that was sent, and fails if it
// has sent anything meanwhile: the RST for a stray packet is the next to come.
func (g *guest) sync() {
	g.t.Helper()
	k := key{host: 99, guest: 99}
	g.send(k, VIRTIO_VSOCK_OP_RW, nil)
	g.expect(k, VIRTIO_VSOCK_OP_RST)
}

// dial connects from port of the guest to l, and returns the host's end.
func (g *guest) dial(l net.Listener, port uint32) (*Conn, key) {
	g.t.Helper()
	k := key{host: l.Addr().(Addr).Port, guest: port}
	g.send(k, VIRTIO_VSOCK_OP_REQUEST, nil)
	g.expect(k, VIRTIO_VSOCK_OP_RESPONSE)
	c, err := l.Accept()
	if err != nil {
		g.t.Fatal(err)
	}
	return c.(*Conn), k
}

func listen(t testing.TB, d *Device, port uint32) net.Listener {
	t.Helper()
	l, err := d.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// connected boots a guest that has dialed port 1024 from port 5000.
func connected(t testing.TB, o options) (*guest, *Conn, key) {
	t.Helper()
	d := New(testCID)
	l := listen(t, d, 1024)
	g := boot(t, d, o)
	c, k := g.dial(l, 5000)
	return g, c, k
}

// shutFlags makes a SHUTDOWN packet end these directions.
func shutFlags(f uint32) func(*header) { return func(h *header) { h.flags = f } }

// pattern returns n bytes that differ from place to place.
func pattern(n int, seed uint32) []byte {
	b := make([]byte, n)
	x := seed*2654435761 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}
