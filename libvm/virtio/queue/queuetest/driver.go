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
	Queue *queue.Queue
	RAM   []byte // the guest's memory, from GPA 0
	Size  uint16

	kickFD    int
	irqs      atomic.Int64
	irqC      chan struct{}
	desc      uint64
	avail     uint64
	used      uint64
	data      uint64 // where the next buffer goes
	dataStart uint64
	nextDesc  uint16
	availIdx  uint16
	usedIdx   uint16
	bufs      map[uint16][]place
}

type place struct {
	gpa   uint64
	n     int
	write bool
}

// RAMBytes is the memory that each Driver has by itself.
const RAMBytes = 16 << 20

// New lays out a queue of size descriptors in fresh memory. Options that touch
// the ring (event index, indirect descriptors) come with c; its addresses,
// Kick and Interrupt are filled in.
func New(t testing.TB, size uint16, c queue.Config) *Driver {
	t.Helper()
	d := &Driver{RAM: make([]byte, RAMBytes), Size: size, irqC: make(chan struct{}, 1), bufs: map[uint16][]place{}}
	m, err := mem.New(mem.Region{GPA: 0, Host: d.RAM})
	if err != nil {
		t.Fatal(err)
	}
	d.Mem = m
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(os.NewSyscallError("eventfd2", err))
	}
	kick := os.NewFile(uintptr(fd), "kick")
	d.kickFD = fd
	d.desc, d.avail, d.used = 0x1000, 0x100000, 0x200000
	d.data, d.dataStart = 0x400000, 0x400000
	c.Size, c.Desc, c.Driver, c.Device = size, mem.GPA(d.desc), mem.GPA(d.avail), mem.GPA(d.used)
	c.Kick = kick
	c.Interrupt = func() {
		d.irqs.Add(1)
		select {
		case d.irqC <- struct{}{}:
		default:
		}
	}
	q, err := queue.New(m, c)
	if err != nil {
		t.Fatal(err)
	}
	d.Queue = q
	t.Cleanup(q.Close)
	return d
}

// Interrupts returns how often the device has raised the queue's interrupt.
func (d *Driver) Interrupts() int64 { return d.irqs.Load() }

// Offer puts one chain of direct descriptors on the available ring and returns
// its head. It does not notify.
func (d *Driver) Offer(bufs ...Buffer) uint16 {
	head := d.nextDesc
	var places []place
	for i, b := range bufs {
		if d.data+uint64(len(b.Data)) > RAMBytes {
			d.data = d.dataStart
		}
		p := place{gpa: d.data, n: len(b.Data), write: b.Write}
		copy(d.RAM[p.gpa:], b.Data)
		d.data += (uint64(len(b.Data)) + 63) &^ 63
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

// SetDesc writes descriptor i as it is told, valid or not.
func (d *Driver) SetDesc(i uint16, gpa uint64, n uint32, flags, next uint16) {
	b := d.RAM[d.desc+uint64(i)*16:]
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
