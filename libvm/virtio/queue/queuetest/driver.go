// Package queuetest is the driver's side of a split virtqueue, for tests: it
// lays a queue out in memory of its own and plays the guest, so that a whole
// device is tested without a hypervisor.
package queuetest

import (
	"encoding/binary"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/mem"
	"runv/libvm/virtio/queue"
)

// Buffer is one descriptor's worth of a chain that the driver offers: bytes for
// the device to read, or, if Write, room for the device to fill.
type Buffer struct {
	Data  []byte
	Write bool
}

// Driver is the driver's side of one queue.
type Driver struct {
	Mem   *mem.Memory
	Queue *queue.Queue // the device's side; nil after Place
	RAM   []byte       // the guest's memory, from GPA 0
	Size  uint16       // descriptors

	kickFD    int
	eventIdx  bool
	irqs      atomic.Int64
	irqC      chan struct{}
	desc      uint64
	avail     uint64
	used      uint64
	data      uint64 // where the next buffer goes
	dataStart uint64
	dataEnd   uint64
	nextDesc  uint16
	availIdx  uint16
	notified  uint16 // availIdx when Notify was last asked
	usedIdx   uint16
	bufs      map[uint16][]place
}

type place struct {
	gpa   uint64
	n     int
	write bool
}

// RAMBytes is the memory that each Driver of New has by itself.
const RAMBytes = 16 << 20

// PlaceBytes is the memory that Place lays a queue and its buffers out in, in
// bytes; a queue of 32768 descriptors fits.
const PlaceBytes = 4 << 20

// New lays out a queue of size descriptors in fresh memory. Options that touch
// the ring (event index, indirect descriptors) come with c, and Next to begin
// somewhere else than at 0; its addresses, Kick and Interrupt are filled in.
func New(t testing.TB, size uint16, c queue.Config) *Driver {
	t.Helper()
	d := newDriver(t, make([]byte, RAMBytes), size)
	d.desc, d.avail, d.used = 0x1000, 0x100000, 0x200000
	d.data, d.dataStart, d.dataEnd = 0x400000, 0x400000, RAMBytes
	m, err := mem.New(mem.Region{GPA: 0, Host: d.RAM})
	if err != nil {
		t.Fatal(err)
	}
	d.Mem, d.eventIdx = m, c.EventIdx
	fd, err := unix.FcntlInt(uintptr(d.kickFD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(os.NewSyscallError("fcntl", err))
	}
	c.Size = size
	c.Desc, c.Driver, c.Device = d.Addrs()
	c.Kick = os.NewFile(uintptr(fd), "kick") // the queue's own: it closes it
	c.Interrupt = d.Interrupt
	d.StartAt(c.Next)
	q, err := queue.New(m, c)
	if err != nil {
		t.Fatal(err)
	}
	d.Queue = q
	t.Cleanup(q.Close)
	return d
}

// Place lays out the driver's side of a queue of size descriptors in the
// PlaceBytes from GPA base of ram, whose first byte is GPA 0. The device's side
// is somebody else's: tell it Addrs and KickFD, and call Interrupt when it
// interrupts.
func Place(t testing.TB, ram []byte, base uint64, size uint16, eventIdx bool) *Driver {
	t.Helper()
	d := newDriver(t, ram, size)
	d.eventIdx = eventIdx
	d.desc = base
	d.avail = d.desc + 16*uint64(size)
	d.used = (d.avail + 6 + 2*uint64(size) + 63) &^ 63
	d.dataStart = (d.used + 6 + 8*uint64(size) + 4095) &^ 4095
	d.data, d.dataEnd = d.dataStart, base+PlaceBytes
	return d
}

func newDriver(t testing.TB, ram []byte, size uint16) *Driver {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(os.NewSyscallError("eventfd2", err))
	}
	t.Cleanup(func() {
		if err := unix.Close(fd); err != nil {
			t.Error(os.NewSyscallError("close", err))
		}
	})
	return &Driver{RAM: ram, Size: size, kickFD: fd, irqC: make(chan struct{}, 1), bufs: map[uint16][]place{}}
}

// StartAt makes both rings begin at idx, as a driver's do that has been in use.
func (d *Driver) StartAt(idx uint16) {
	d.availIdx, d.usedIdx, d.notified = idx, idx, idx
	queue.SetRingHeadForTest(d.RAM[d.avail:], 0, idx)
	queue.SetRingHeadForTest(d.RAM[d.used:], 0, idx)
	d.WantInterruptAt(idx)
}

// Addrs returns where the descriptor table, the available ring (driver area)
// and the used ring (device area) are.
func (d *Driver) Addrs() (desc, driver, device mem.GPA) {
	return mem.GPA(d.desc), mem.GPA(d.avail), mem.GPA(d.used)
}

// KickFD returns the eventfd that Notify writes to; it stays the Driver's.
func (d *Driver) KickFD() int { return d.kickFD }

// Interrupt is what the device calls to interrupt the driver.
func (d *Driver) Interrupt() {
	d.irqs.Add(1)
	select {
	case d.irqC <- struct{}{}:
	default:
	}
}

// Interrupts returns how often the device has raised the queue's interrupt.
func (d *Driver) Interrupts() int64 { return d.irqs.Load() }

// WantInterruptAt writes used_event: interrupt me when the used entry with
// index idx is there (v1.2 §2.7.7).
func (d *Driver) WantInterruptAt(idx uint16) {
	queue.StoreForTest(d.RAM[d.avail:], 4+2*int(d.Size), idx)
}

// WantNext asks for an interrupt at the next used entry that Poll has not seen.
func (d *Driver) WantNext() { d.WantInterruptAt(d.usedIdx) }

// SetNoInterrupt sets or clears VRING_AVAIL_F_NO_INTERRUPT (v1.2 §2.7.7).
func (d *Driver) SetNoInterrupt(on bool) {
	flags := uint16(0)
	if on {
		flags = 1
	}
	queue.SetRingHeadForTest(d.RAM[d.avail:], flags, d.availIdx)
}

// SetAvailIndex publishes idx, valid or not, as the available index.
func (d *Driver) SetAvailIndex(idx uint16) {
	d.availIdx = idx
	queue.SetRingHeadForTest(d.RAM[d.avail:], 0, idx)
}

// NeedsNotify says whether the device asked to be notified of what was offered
// since the last call: always, without event index.
func (d *Driver) NeedsNotify() bool {
	old := d.notified
	d.notified = d.availIdx
	if !d.eventIdx {
		return true
	}
	event := queue.LoadForTest(d.RAM[d.used:], 4+8*int(d.Size))
	return d.availIdx-event-1 < d.availIdx-old
}

// Offer puts one chain of direct descriptors on the available ring and returns
// its head. It does not notify.
func (d *Driver) Offer(bufs ...Buffer) uint16 {
	head := d.nextDesc
	var places []place
	for i, b := range bufs {
		p := d.place(b)
		places = append(places, p)
		flags := uint16(0)
		if b.Write {
			flags |= 2
		}
		next := (d.nextDesc + 1) % d.Size
		if i < len(bufs)-1 {
			flags |= 1
		}
		d.SetDesc(d.nextDesc, p.gpa, uint32(p.n), flags, next)
		d.nextDesc = next
	}
	d.bufs[head] = places
	d.PutAvail(head)
	return head
}

// OfferIndirect puts one chain on the available ring, as one descriptor that
// refers to an indirect table. It does not notify.
func (d *Driver) OfferIndirect(bufs ...Buffer) uint16 {
	table := d.place(Buffer{Data: make([]byte, 16*len(bufs))})
	var places []place
	for i, b := range bufs {
		p := d.place(b)
		places = append(places, p)
		flags, next := uint16(0), uint16(0)
		if b.Write {
			flags |= 2
		}
		if i < len(bufs)-1 {
			flags, next = flags|1, uint16(i+1)
		}
		putDesc(d.RAM[table.gpa+uint64(i)*16:], p.gpa, uint32(p.n), flags, next)
	}
	head := d.nextDesc
	d.nextDesc = (d.nextDesc + 1) % d.Size
	d.SetDesc(head, table.gpa, uint32(table.n), 4, 0)
	d.bufs[head] = places
	d.PutAvail(head)
	return head
}

// place puts b's bytes into memory.
func (d *Driver) place(b Buffer) place {
	if d.data+uint64(len(b.Data)) > d.dataEnd {
		d.data = d.dataStart
	}
	p := place{gpa: d.data, n: len(b.Data), write: b.Write}
	copy(d.RAM[p.gpa:], b.Data)
	d.data += (uint64(len(b.Data)) + 63) &^ 63
	return p
}

// SetDesc writes descriptor i as it is told, valid or not.
func (d *Driver) SetDesc(i uint16, gpa uint64, n uint32, flags, next uint16) {
	putDesc(d.RAM[d.desc+uint64(i)*16:], gpa, n, flags, next)
}

func putDesc(b []byte, gpa uint64, n uint32, flags, next uint16) {
	binary.LittleEndian.PutUint64(b, gpa)
	binary.LittleEndian.PutUint32(b[8:], n)
	binary.LittleEndian.PutUint16(b[12:], flags)
	binary.LittleEndian.PutUint16(b[14:], next)
}

// PutAvail puts head, valid or not, on the available ring.
func (d *Driver) PutAvail(head uint16) {
	binary.LittleEndian.PutUint16(d.RAM[d.avail+4+2*uint64(d.availIdx%d.Size):], head)
	d.availIdx++
	queue.SetRingHeadForTest(d.RAM[d.avail:], 0, d.availIdx)
}

// Notify kicks the device.
func (d *Driver) Notify() error {
	_, err := unix.Write(d.kickFD, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return os.NewSyscallError("write", err)
}

// Used is a chain that the device gave back.
type Used struct {
	Head uint16
	Len  uint32   // bytes written, as the device says
	Data [][]byte // a copy of the chain's buffers, in order
}

// Poll takes the next used chain if there is one.
func (d *Driver) Poll() (Used, bool) {
	_, idx := queue.RingHeadForTest(d.RAM[d.used:])
	if idx == d.usedIdx {
		return Used{}, false
	}
	b := d.RAM[d.used+4+8*uint64(d.usedIdx%d.Size):]
	u := Used{Head: uint16(binary.LittleEndian.Uint32(b)), Len: binary.LittleEndian.Uint32(b[4:])}
	for _, p := range d.bufs[u.Head] {
		u.Data = append(u.Data, append([]byte(nil), d.RAM[p.gpa:p.gpa+uint64(p.n)]...))
	}
	delete(d.bufs, u.Head)
	d.usedIdx++
	return u, true
}

// Take waits for the next used chain, and fails the test after timeout.
func (d *Driver) Take(t testing.TB, timeout time.Duration) Used {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for {
		if u, ok := d.Poll(); ok {
			return u
		}
		select {
		case <-d.irqC:
		case <-deadline.C:
			t.Fatal("the device did not give a buffer back in time")
		}
	}
}
