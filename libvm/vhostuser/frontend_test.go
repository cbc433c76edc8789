package vhostuser

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue/queuetest"
)

const patience = 10 * time.Second

// The guest of the tests: ramBytes of memory from GPA 0, which the front-end
// says to have at frontendBase.
const (
	ramBytes     = 16 << 20
	frontendBase = 0x7f00_0000_0000
)

// frontend plays QEMU.
type frontend struct {
	t      testing.TB
	conn   *net.UnixConn
	memfd  int
	ram    []byte
	served chan error
	cancel context.CancelFunc
	drv    []*queuetest.Driver
	calls  []*os.File
	errs   []int
}

// newFrontend serves d to a new front-end.
func newFrontend(t testing.TB, d virtio.Device) *frontend {
	t.Helper()
	conn, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.FileConn(theirs)
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close() //nolint:errcheck // FileConn has a duplicate
	ctx, cancel := context.WithCancel(context.Background())
	f := &frontend{t: t, conn: c.(*net.UnixConn), served: make(chan error, 1), cancel: cancel}
	f.memfd = newMemfd(t, ramBytes, unix.F_SEAL_SHRINK)
	f.ram, err = unix.Mmap(f.memfd, 0, ramBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	go func() { f.served <- Serve(ctx, conn, d) }()
	t.Cleanup(f.close)
	return f
}

// close ends everything; a test that has not taken Serve's result does not
// care for it.
func (f *frontend) close() {
	f.conn.Close() //nolint:errcheck // may be closed
	f.cancel()
	if f.served != nil {
		f.wait() //nolint:errcheck // not cared for
	}
	for _, c := range f.calls {
		c.Close() //nolint:errcheck // ends its reader
	}
	for _, fd := range append(f.errs, f.memfd) {
		unix.Close(fd) //nolint:errcheck // ours
	}
	unix.Munmap(f.ram) //nolint:errcheck // ours
}

// wait returns what Serve returned.
func (f *frontend) wait() error {
	f.t.Helper()
	select {
	case err := <-f.served:
		f.served = nil
		return err
	case <-time.After(patience):
		f.t.Fatal("Serve did not return in time")
		return nil
	}
}

func newMemfd(t testing.TB, size int64, seals int) int {
	t.Helper()
	fd, err := unix.MemfdCreate("ram", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	return fd
}

func newEventfd(t testing.TB) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// raw sends bytes and descriptors as they are.
func (f *frontend) raw(b []byte, fds ...int) {
	f.t.Helper()
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := f.conn.WriteMsgUnix(b, oob, nil); err != nil {
		f.t.Fatal(err)
	}
}

func packet(request, flags uint32, payload []byte) []byte {
	h := header{request: request, flags: VHOST_USER_VERSION | flags, size: uint32(len(payload))}
	return append(h.append(nil), payload...)
}

// call sends a request and returns the payload of its answer.
func (f *frontend) call(request uint32, payload []byte, fds ...int) []byte {
	f.t.Helper()
	f.raw(packet(request, 0, payload), fds...)
	return f.answer(request)
}

func (f *frontend) answer(request uint32) []byte {
	f.t.Helper()
	if err := f.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		f.t.Fatal(err)
	}
	head := make([]byte, headerBytes)
	if _, err := io.ReadFull(f.conn, head); err != nil {
		f.t.Fatalf("answer to request %d: %v", request, err)
	}
	h := parseHeader(head)
	if h.request != request || h.flags != VHOST_USER_VERSION|VHOST_USER_REPLY_MASK || h.size > maxPayload {
		f.t.Fatalf("answer %+v to request %d", h, request)
	}
	payload := make([]byte, h.size)
	if _, err := io.ReadFull(f.conn, payload); err != nil {
		f.t.Fatal(err)
	}
	return payload
}

// ok sends a request that has no answer but the acknowledgement, which is 0.
func (f *frontend) ok(request uint32, payload []byte, fds ...int) {
	f.t.Helper()
	f.raw(packet(request, VHOST_USER_NEED_REPLY_MASK, payload), fds...)
	if got := le64(f.answer(request), 0); got != 0 {
		f.t.Fatalf("request %d: acknowledged with %d", request, got)
	}
}

func state(index, num uint32) []byte { return vringState{index: index, num: num}.append(nil) }

// connect does what QEMU does before the guest runs: features, and a call and
// err for each of n rings.
func (f *frontend) connect(n int) {
	f.t.Helper()
	features := le64(f.call(VHOST_USER_GET_FEATURES, nil), 0)
	if features&(1<<VHOST_USER_F_PROTOCOL_FEATURES) == 0 {
		f.t.Fatalf("features %#x without protocol features", features)
	}
	p := f.call(VHOST_USER_GET_PROTOCOL_FEATURES, nil)
	f.raw(packet(VHOST_USER_SET_PROTOCOL_FEATURES, 0, p))
	f.ok(VHOST_USER_SET_OWNER, nil)
	for i := range n {
		fd := newEventfd(f.t)
		f.errs = append(f.errs, fd)
		f.setCall(i)
		f.ok(VHOST_USER_SET_VRING_ERR, u64(uint64(i)), fd)
	}
}

// setCall gives ring i a new call eventfd, whose signals go to the driver.
func (f *frontend) setCall(i int) *os.File {
	f.t.Helper()
	fd := newEventfd(f.t)
	f.ok(VHOST_USER_SET_VRING_CALL, u64(uint64(i)), fd)
	file := os.NewFile(uintptr(fd), "call")
	f.calls = append(f.calls, file)
	return file
}

// table is the one memory region of the guest.
func memTable(regions ...memRegion) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(regions)))
	for _, r := range regions {
		for _, v := range []uint64{r.guestPhysAddr, r.memorySize, r.userspaceAddr, r.mmapOffset} {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
	}
	return b
}

var wholeRAM = memRegion{memorySize: ramBytes, userspaceAddr: frontendBase}

// defaultFeatures is what the tests' guest agrees to.
const defaultFeatures = 1<<virtio.FVersion1 | 1<<virtio.RingFEventIdx | 1<<virtio.RingFIndirectDesc

// boot does what QEMU does when the guest's driver is ready: n rings, which
// begin at index base.
func (f *frontend) boot(features uint64, n int, base uint16) {
	f.t.Helper()
	f.ok(VHOST_USER_SET_FEATURES, u64(features|1<<VHOST_USER_F_PROTOCOL_FEATURES))
	f.ok(VHOST_USER_SET_MEM_TABLE, memTable(wholeRAM), f.memfd)
	f.drv = nil
	for i := range n {
		d := queuetest.Place(f.t, f.ram, uint64(i)*queuetest.PlaceBytes, 64, features&(1<<virtio.RingFEventIdx) != 0)
		d.StartAt(base)
		f.drv = append(f.drv, d)
		f.place(i, d, base)
		f.ok(VHOST_USER_SET_VRING_KICK, u64(uint64(i)), d.KickFD())
	}
	f.enable(n, 1)
}

// place tells the back-end where ring i is.
func (f *frontend) place(i int, d *queuetest.Driver, base uint16) {
	f.t.Helper()
	f.ok(VHOST_USER_SET_VRING_NUM, state(uint32(i), uint32(d.Size)))
	f.ok(VHOST_USER_SET_VRING_BASE, state(uint32(i), uint32(base)))
	f.ok(VHOST_USER_SET_VRING_ADDR, ringAddr(i, d))
}

func ringAddr(i int, d *queuetest.Driver) []byte {
	desc, avail, used := d.Addrs()
	b := binary.LittleEndian.AppendUint64(nil, uint64(i))
	for _, gpa := range []uint64{uint64(desc), uint64(used), uint64(avail), 0} {
		b = binary.LittleEndian.AppendUint64(b, frontendBase+gpa)
	}
	return b
}

func (f *frontend) enable(n int, on uint32) {
	f.t.Helper()
	for i := range n {
		f.ok(VHOST_USER_SET_VRING_ENABLE, state(uint32(i), on))
	}
}

// halt stops n rings as QEMU does, and returns where they were.
func (f *frontend) halt(n int) []uint32 {
	f.t.Helper()
	f.enable(n, 0)
	var at []uint32
	for i := range n {
		v := parseVringState(f.call(VHOST_USER_GET_VRING_BASE, state(uint32(i), 0)))
		if v.index != uint32(i) {
			f.t.Fatalf("base of ring %d, asked for %d", v.index, i)
		}
		at = append(at, v.num)
	}
	return at
}

// awaitCall waits until the eventfd c is signalled.
func awaitCall(t testing.TB, c *os.File) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 8)); err != nil {
		t.Fatalf("no call: %v", err)
	}
}

// request offers one chain on ring i, and waits for it by the ring's call c.
func (f *frontend) request(i int, c *os.File, bufs ...queuetest.Buffer) queuetest.Used {
	f.t.Helper()
	d := f.drv[i]
	d.Offer(bufs...)
	if d.NeedsNotify() {
		if err := d.Notify(); err != nil {
			f.t.Fatal(err)
		}
	}
	for {
		if u, ok := d.Poll(); ok {
			d.WantNext()
			return u
		}
		awaitCall(f.t, c)
	}
}

// openFDs counts the descriptors of this process.
func openFDs(t testing.TB) int {
	t.Helper()
	es, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(es)
}
