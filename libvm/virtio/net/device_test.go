package net

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
)

const patience = 20 * time.Second

// cable is a link in memory: a pair of sockets that keep what belongs together, for
// each of its queues; next are those of the further ones.
type cable struct {
	fd, far int
	next    []*cable
	mu      sync.Mutex
	offload []Offload
	queues  int // in use
	refuse  error
}

// newCables is a cable of several queues.
func newCables(t testing.TB, queues int) *cable {
	c := newCable(t)
	for range queues - 1 {
		c.next = append(c.next, newCable(t))
	}
	return c
}

func newCable(t testing.TB) *cable {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		for _, o := range []int{unix.SO_SNDBUF, unix.SO_RCVBUF} {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, o, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return &cable{fd: fds[0], far: fds[1]}
}

func (c *cable) FD(queue int) int {
	if queue > 0 {
		return c.next[queue-1].fd
	}
	return c.fd
}

func (c *cable) SetQueues(n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queues = n
	return nil
}

func (c *cable) SetOffload(o Offload) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offload = append(c.offload, o)
	return c.refuse
}

// send puts a frame, header included, into the cable's far end.
func (c *cable) send(t testing.TB, frame []byte) {
	t.Helper()
	if _, err := unix.Write(c.far, frame); err != nil {
		t.Fatal(os.NewSyscallError("write", err))
	}
}

// receive waits for a frame at the far end.
func (c *cable) receive(t testing.TB) []byte {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(c.far), Events: unix.POLLIN}}
	for end := time.Now().Add(patience); ; {
		n, err := unix.Poll(p, int(time.Until(end).Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			t.Fatalf("no frame (%v)", err)
		}
		b := make([]byte, 1<<20)
		if n, err = unix.Read(c.far, b); err != nil {
			t.Fatal(err)
		}
		return b[:n]
	}
}

// guest is a started card and its driver.
type guest struct {
	t            testing.TB
	d            *Device
	rx, tx, ctrl *queuetest.Driver
	stopped      bool
}

func newDevice(t testing.TB) *Device {
	t.Helper()
	return newMultiqueue(t, 1)
}

func newMultiqueue(t testing.TB, pairs int) *Device {
	t.Helper()
	d, err := New([]byte{2, 0, 0, 0, 0, 7}, pairs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func start(t testing.TB, d *Device, features uint64) *guest {
	t.Helper()
	g := &guest{t: t, d: d}
	for _, q := range []**queuetest.Driver{&g.rx, &g.tx, &g.ctrl} {
		*q = queuetest.New(t, 64, queue.Config{EventIdx: true, Indirect: true})
		(*q).WantNext()
	}
	if err := d.Start(features|1<<virtio.FVersion1, []*queue.Queue{g.rx.Queue, g.tx.Queue, g.ctrl.Queue}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !g.stopped {
			if err := g.stop(); err != nil {
				t.Errorf("Wait: %v", err)
			}
		}
	})
	return g
}

// stop does what a transport does to reset the device.
func (g *guest) stop() error {
	g.t.Helper()
	g.stopped = true
	for _, q := range []*queuetest.Driver{g.rx, g.tx, g.ctrl} {
		q.Queue.Close()
	}
	done := make(chan error)
	go func() { done <- g.d.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		g.t.Fatal("the device does not stop")
		return nil
	}
}

func (g *guest) offer(d *queuetest.Driver, bufs ...queuetest.Buffer) {
	g.t.Helper()
	d.WantNext()
	d.Offer(bufs...)
	if err := d.Notify(); err != nil {
		g.t.Fatal(err)
	}
}

func room(n int) queuetest.Buffer { return queuetest.Buffer{Data: make([]byte, n), Write: true} }

func data(b []byte) queuetest.Buffer { return queuetest.Buffer{Data: b} }

// frame is one of n bytes behind an empty header.
func frame(n int) []byte {
	f := make([]byte, HeaderBytes+n)
	for i := range n {
		f[HeaderBytes+i] = byte(i*7 + i>>8)
	}
	return f
}

func attach(t testing.TB, d *Device, l Link) {
	t.Helper()
	if err := d.Attach(l); err != nil {
		t.Fatal(err)
	}
}

const mergeable = 1 << VIRTIO_NET_F_MRG_RXBUF

// TestReceive: frames arrive whole, over as many buffers as they take, which the
// header says.
func TestReceive(t *testing.T) {
	d, c := newDevice(t), newCable(t)
	attach(t, d, c)
	g := start(t, d, mergeable)
	for range 40 {
		g.offer(g.rx, room(2000), room(48))
	}
	for _, n := range []int{60, 2048 - HeaderBytes, 2048, 10000, 64, 20000} {
		want := frame(n)
		c.send(t, want)
		var got []byte
		buffers := 0
		for len(got) < len(want) {
			g.rx.WantNext()
			u := g.rx.Take(t, patience)
			got = append(got, bytes.Join(u.Data, nil)[:u.Len]...)
			buffers++
		}
		if num := binary.LittleEndian.Uint16(got[headerNumBuffers:]); int(num) != buffers || buffers != (len(want)+2047)/2048 {
			t.Errorf("%d bytes: in %d buffers, the header says %d", n, buffers, num)
		}
		if !bytes.Equal(got[HeaderBytes:], want[HeaderBytes:]) {
			t.Errorf("%d bytes: arrived changed", n)
		}
	}
	waitIdle(t, g)
}

// waitIdle waits until the device holds no buffer: its state could be taken.
func waitIdle(t *testing.T, g *guest) {
	t.Helper()
	for end := time.Now().Add(patience); g.rx.Queue.InFlight() != 0; {
		if time.Now().After(end) {
			t.Fatalf("the idle device holds %d buffers", g.rx.Queue.InFlight())
		}
		time.Sleep(time.Millisecond) // nothing tells
	}
}

// TestReceiveUnmergeable: each frame is in one buffer, and one that is too long for
// it is lost.
func TestReceiveUnmergeable(t *testing.T) {
	d, c := newDevice(t), newCable(t)
	attach(t, d, c)
	g := start(t, d, 0)
	for range 4 {
		g.offer(g.rx, room(HeaderBytes), room(1514))
	}
	c.send(t, frame(1515))
	c.send(t, frame(1514))
	u := g.rx.Take(t, patience)
	if got := bytes.Join(u.Data, nil); u.Len != HeaderBytes+1514 || !bytes.Equal(got[HeaderBytes:], frame(1514)[HeaderBytes:]) {
		t.Errorf("got %d bytes", u.Len)
	}
}

// TestReceiveLater: frames wait for buffers, and for a frame that is longer than
// the buffers that are there the rest is waited for.
func TestReceiveLater(t *testing.T) {
	d, c := newDevice(t), newCable(t)
	g := start(t, d, mergeable)
	attach(t, d, c)
	c.send(t, frame(100))
	g.offer(g.rx, room(1000))
	if u := g.rx.Take(t, patience); u.Len != HeaderBytes+100 {
		t.Errorf("got %d bytes", u.Len)
	}
	c.send(t, frame(5000)) // no room for it now: lost, as is right
	g.offer(g.rx, room(1000))
	for range 20 {
		g.offer(g.rx, room(1000))
	}
	c.send(t, frame(3000))
	total := 0
	for total < HeaderBytes+3000 {
		g.rx.WantNext()
		total += int(g.rx.Take(t, patience).Len)
	}
}

// TestTransmit: what the driver gathers is one frame.
func TestTransmit(t *testing.T) {
	d, c := newDevice(t), newCable(t)
	attach(t, d, c)
	g := start(t, d, 0)
	for _, n := range []int{14, 60, 1514, 64 << 10} {
		f := frame(n)
		g.offer(g.tx, data(f[:5]), data(f[5:20]), data(f[20:]))
		if u := g.tx.Take(t, patience); u.Len != 0 {
			t.Errorf("%d bytes: device says to have written %d", n, u.Len)
		}
		if got := c.receive(t); !bytes.Equal(got, f) {
			t.Errorf("%d bytes: %d bytes arrived, or others", n, len(got))
		}
	}
}

// TestNoCable: a card without a link takes frames and drops them, and a link can
// come and go.
func TestNoCable(t *testing.T) {
	d := newDevice(t)
	changes := make(chan struct{}, 10)
	d.NotifyConfig(func() { changes <- struct{}{} })
	g := start(t, d, mergeable)
	status := func() uint16 { return binary.LittleEndian.Uint16(d.Config()[configStatus:]) }
	if status() != 0 {
		t.Errorf("status %d without a link", status())
	}
	g.offer(g.tx, data(frame(60)))
	g.tx.Take(t, patience)
	for range 3 {
		c := newCable(t)
		attach(t, d, c)
		d.SetCarrier(true)
		d.SetCarrier(true) // says nothing new
		<-changes
		if status()&VIRTIO_NET_S_LINK_UP == 0 {
			t.Error("status does not say that there is a link")
		}
		g.offer(g.tx, data(frame(61)))
		g.tx.Take(t, patience)
		if got := c.receive(t); len(got) != HeaderBytes+61 {
			t.Errorf("got %d bytes", len(got))
		}
		g.offer(g.rx, room(2000))
		c.send(t, frame(62))
		if u := g.rx.Take(t, patience); u.Len != HeaderBytes+62 {
			t.Errorf("guest got %d bytes", u.Len)
		}
		attach(t, d, nil)
		d.SetCarrier(false)
		<-changes
		c.send(t, frame(63)) // into nothing
	}
}

// TestBrokenCable: the far end of a link goes away. The device idles, and another
// link works.
func TestBrokenCable(t *testing.T) {
	d, c := newDevice(t), newCable(t)
	attach(t, d, c)
	g := start(t, d, mergeable)
	g.offer(g.rx, room(2000))
	if err := unix.Shutdown(c.far, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	waitIdle(t, g)
	c = newCable(t)
	attach(t, d, c)
	c.send(t, frame(70))
	if u := g.rx.Take(t, patience); u.Len != HeaderBytes+70 {
		t.Errorf("got %d bytes", u.Len)
	}
}

// TestOffload: the link learns what the driver takes, whichever comes first, and a
// link that cannot is not used.
func TestOffload(t *testing.T) {
	d, c := newDevice(t), newCable(t)
	attach(t, d, c)
	g := start(t, d, 1<<VIRTIO_NET_F_GUEST_CSUM|1<<VIRTIO_NET_F_GUEST_TSO4|1<<VIRTIO_NET_F_GUEST_ECN)
	want := Offload{Checksum: true, TSO4: true, ECN: true}
	if len(c.offload) != 1 || c.offload[0] != want {
		t.Errorf("got %+v, want %+v once", c.offload, want)
	}
	late := newCable(t)
	attach(t, d, late)
	if len(late.offload) != 1 || late.offload[0] != want {
		t.Errorf("got %+v, want %+v once", late.offload, want)
	}
	bad := newCable(t)
	bad.refuse = errors.New("no")
	if err := d.Attach(bad); !errors.Is(err, bad.refuse) {
		t.Errorf("got %v", err)
	}
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	start(t, d, 0)
}

func TestControl(t *testing.T) {
	d := newDevice(t)
	attach(t, d, newCable(t))
	d.SetCarrier(true)
	g := start(t, d, 0)
	tables := make([]byte, 2+4+6+4)
	tables[0], tables[2] = VIRTIO_NET_CTRL_MAC, 1
	big := make([]byte, 2+4+6*200+4)
	big[0], big[2] = VIRTIO_NET_CTRL_MAC, 200
	lies := append([]byte(nil), tables...)
	lies[2] = 2
	for _, tt := range []struct {
		name string
		b    []byte
		want byte
	}{
		{"promiscuous", []byte{VIRTIO_NET_CTRL_RX, 0, 1}, VIRTIO_NET_OK},
		{"receive mode unknown", []byte{VIRTIO_NET_CTRL_RX, 6, 1}, VIRTIO_NET_ERR},
		{"address", []byte{VIRTIO_NET_CTRL_MAC, 1, 2, 0, 0, 0, 0, 9}, VIRTIO_NET_OK},
		{"address too short", []byte{VIRTIO_NET_CTRL_MAC, 1, 2, 0, 0, 0, 0}, VIRTIO_NET_ERR},
		{"tables", tables, VIRTIO_NET_OK},
		{"tables, long", big, VIRTIO_NET_OK},
		{"tables that lie", lies, VIRTIO_NET_ERR},
		{"tables cut off", []byte{VIRTIO_NET_CTRL_MAC, 0, 0, 0}, VIRTIO_NET_ERR},
		{"vlan", []byte{VIRTIO_NET_CTRL_VLAN, 0, 1, 0}, VIRTIO_NET_OK},
		{"announced", []byte{VIRTIO_NET_CTRL_ANNOUNCE, 0}, VIRTIO_NET_OK},
		{"queue pairs, which were not offered", []byte{4, 0, 2, 0}, VIRTIO_NET_ERR},
		{"class only", []byte{0}, VIRTIO_NET_ERR},
	} {
		g.offer(g.ctrl, data(tt.b[:1]), data(tt.b[1:]), room(1))
		u := g.ctrl.Take(t, patience)
		if got := u.Data[len(u.Data)-1][0]; u.Len != 1 || got != tt.want {
			t.Errorf("%s: answered %d, %d bytes, want %d", tt.name, got, u.Len, tt.want)
		}
	}
	if s := d.Config()[configStatus]; s != VIRTIO_NET_S_LINK_UP {
		t.Errorf("status %d after the announcement", s)
	}
	g.offer(g.ctrl, data([]byte{VIRTIO_NET_CTRL_RX, 0, 1})) // nowhere to answer to
	if u := g.ctrl.Take(t, patience); u.Len != 0 {
		t.Errorf("wrote %d bytes into nothing", u.Len)
	}
}

// TestHostileReceive: a buffer without room for a header ends the device.
func TestHostileReceive(t *testing.T) {
	d, c := newDevice(t), newCable(t)
	attach(t, d, c)
	g := start(t, d, mergeable)
	g.offer(g.rx, room(HeaderBytes-1))
	c.send(t, frame(60))
	g.stopped = true
	if err := d.Wait(); !errors.Is(err, queue.ErrBadRing) {
		t.Errorf("got %v, want %v", err, queue.ErrBadRing)
	}
	select {
	case <-g.tx.Queue.Done():
	default:
		t.Error("the other queues are still served")
	}
}

// TestHostileTransmit: frames that are none are dropped, and cost nothing but
// themselves.
func TestHostileTransmit(t *testing.T) {
	d, c := newDevice(t), newCable(t)
	attach(t, d, c)
	g := start(t, d, 0)
	huge := make([]byte, maxFrame/2)
	bad := [][]queuetest.Buffer{
		{data(make([]byte, minFrame-1))},
		{room(100)},
		{data(huge), data(huge), data(huge)},
		{data(make([]byte, maxFrame+1))},
	}
	for _, bufs := range bad {
		g.offer(g.tx, bufs...)
		g.tx.Take(t, patience)
	}
	g.offer(g.tx, data(frame(60)))
	g.tx.Take(t, patience)
	if got := c.receive(t); len(got) != HeaderBytes+60 {
		t.Errorf("%d bytes came first", len(got))
	}
}

// TestRestart: the driver resets while frames come, and starts again.
func TestRestart(t *testing.T) {
	d, c := newDevice(t), newCable(t)
	attach(t, d, c)
	for range 20 {
		g := start(t, d, mergeable)
		for range 10 {
			g.offer(g.rx, room(500))
		}
		c.send(t, frame(400))
		if err := g.stop(); err != nil {
			t.Fatal(err)
		}
		if n := g.rx.Queue.InFlight(); n > 10 {
			t.Errorf("%d buffers in flight", n)
		}
	}
	g := start(t, d, mergeable)
	for range 30 {
		g.offer(g.rx, room(500))
	}
	c.send(t, frame(401))
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if u := g.rx.Take(t, patience); u.Len == HeaderBytes+401 {
			return
		}
		g.rx.WantNext()
	}
	t.Error("the last frame did not arrive")
}

func TestNewAddress(t *testing.T) {
	for _, mac := range [][]byte{nil, make([]byte, 5), make([]byte, 8)} {
		if d, err := New(mac, 1); err == nil {
			d.Close()
			t.Errorf("a card with the address %x", mac)
		}
	}
	d := newDevice(t)
	if got := d.MAC().String(); got != "02:00:00:00:00:07" || !bytes.Equal(d.Config()[:6], d.MAC()) {
		t.Errorf("address %s, configuration %x", got, d.Config())
	}
}
