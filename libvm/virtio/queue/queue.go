// Package queue is the device's side of a split virtqueue. Follows "Virtual I/O
// Device (VIRTIO) Version 1.2" (v1.2 §2.7 Split Virtqueues).
//
// The driver is hostile: every index, length and address that it wrote is read
// once, checked, and only then used. Whatever is wrong with a ring is an error
// that ends the device (DEVICE_NEEDS_RESET), never a panic.
package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"runv/libvm/mem"
)

// MaxSize is the largest queue size, in descriptors (v1.2 §2.7: 32768).
const MaxSize = 32768

// Descriptor flags (v1.2 §2.7.5) and ring flags (v1.2 §2.7.6, §2.7.8).
const (
	descFNext     = 1
	descFWrite    = 2
	descFIndirect = 4

	availFNoInterrupt = 1
)

// Layout of the three areas, in bytes: a descriptor is addr u64, len u32,
// flags u16, next u16; a used element is id u32, len u32; both rings begin with
// flags u16 and idx u16 and end with one event index u16.
const (
	descBytes     = 16
	ringHeadBytes = 4
	usedElemBytes = 8
	eventBytes    = 2
)

// ErrBadRing says that the driver broke the rules of the virtqueue.
var ErrBadRing = errors.New("driver broke the virtqueue")

// ErrClosed is returned by Wait once the queue was closed.
var ErrClosed = errors.New("virtqueue closed")

// Config says where a queue is and how its two sides wake one another.
type Config struct {
	Size   uint16  // descriptors, a power of two
	Desc   mem.GPA // descriptor table
	Driver mem.GPA // available ring
	Device mem.GPA // used ring
	// EventIdx and Indirect are the negotiated VIRTIO_F_EVENT_IDX and
	// VIRTIO_F_INDIRECT_DESC.
	EventIdx bool
	Indirect bool
	// Next is the index of the first available entry to serve, and of the used
	// entry to write: 0 but for a queue that is taken over from elsewhere.
	Next uint16
	// Kick is readable (an eventfd, 8 bytes a read) when the driver notified
	// the device. Close ends a Read in progress. Owned by the queue.
	Kick Kick
	// Interrupt raises the queue's interrupt in the guest. It must not block.
	Interrupt func()
}

// Kick is the end of an eventfd from which a queue learns of new buffers. It is
// satisfied by *os.File over a non-blocking eventfd.
type Kick interface {
	Read(p []byte) (int, error)
	Close() error
}

// Queue is one split virtqueue. Next, Used and Wait are for the device: Wait
// and Next from one goroutine at a time, Used from any.
type Queue struct {
	mem      *mem.Memory
	size     uint16
	eventIdx bool
	indirect bool
	desc     []byte
	avail    []byte
	used     []byte
	kick     Kick
	irq      func()
	closed   atomic.Bool

	lastAvail uint16 // next available entry that Next looks at

	mu           sync.Mutex // guards the used ring
	usedIdx      uint16     // free running index of the next used entry
	lastSignaled uint16     // usedIdx when the last interrupt was raised
	everSignaled bool
}

// New checks c against m and returns the queue. It fails, with ErrBadRing, when
// the size is not a power of two up to MaxSize, or an area is misaligned or
// outside of guest memory.
func New(m *mem.Memory, c Config) (*Queue, error) {
	if c.Size == 0 || c.Size > MaxSize || c.Size&(c.Size-1) != 0 {
		return nil, fmt.Errorf("queue size %d: %w", c.Size, ErrBadRing)
	}
	q := &Queue{mem: m, size: c.Size, eventIdx: c.EventIdx, indirect: c.Indirect,
		kick: c.Kick, irq: c.Interrupt, lastAvail: c.Next, usedIdx: c.Next, lastSignaled: c.Next}
	n := uint64(c.Size)
	areas := []struct {
		name  string
		gpa   mem.GPA
		align mem.GPA
		bytes uint64
		dst   *[]byte
	}{
		{"descriptor table", c.Desc, 16, n * descBytes, &q.desc},
		{"available ring", c.Driver, 2, ringHeadBytes + 2*n + eventBytes, &q.avail},
		{"used ring", c.Device, 4, ringHeadBytes + usedElemBytes*n + eventBytes, &q.used},
	}
	for _, a := range areas {
		if a.gpa%a.align != 0 {
			return nil, fmt.Errorf("%s at gpa %#x is not aligned to %d: %w", a.name, a.gpa, a.align, ErrBadRing)
		}
		s, err := m.Slice(a.gpa, a.bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", a.name, ErrBadRing, err)
		}
		*a.dst = s
	}
	return q, nil
}

// Size returns the number of descriptors.
func (q *Queue) Size() uint16 { return q.size }

// NextIndex returns the index of the first available entry not yet taken, which
// is what a transport hands on when it stops the queue.
func (q *Queue) NextIndex() uint16 { return q.lastAvail }

// Close ends Wait, now and later. It is safe to call from any goroutine and
// more than once. The rings are not touched by Wait or Next afterwards.
func (q *Queue) Close() {
	if q.closed.CompareAndSwap(false, true) && q.kick != nil {
		q.kick.Close() //nolint:errcheck // there is nothing left to do about it
	}
}

// Wait blocks until the driver notified the queue, or it was closed
// (ErrClosed). A device calls it when Next has nothing left.
func (q *Queue) Wait() error {
	var b [8]byte
	for !q.closed.Load() {
		_, err := q.kick.Read(b[:])
		if err == nil {
			return nil
		}
		if !q.closed.Load() {
			return fmt.Errorf("wait for notification: %w", err)
		}
	}
	return ErrClosed
}

// ringHead reads the first word of a ring, flags and free running index, at
// once and with acquire semantics: what the other side wrote before it put the
// index there is seen after. Go has no 16-bit atomics, and needs none here.
func ringHead(ring []byte) (flags, idx uint16) {
	v := atomic.LoadUint32((*uint32)(unsafe.Pointer(&ring[0])))
	return uint16(v), uint16(v >> 16)
}

// setRingHead publishes the first word of a ring that is ours to write.
func setRingHead(ring []byte, flags, idx uint16) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&ring[0])), uint32(flags)|uint32(idx)<<16)
}

// fence is a full memory barrier (a locked instruction on x86-64).
func fence() { atomic.AddUint32(new(uint32), 1) }

// Next takes the next available chain, or returns nil if there is none. Before
// it reports none, it asks the driver to notify (event index), and looks once
// more, so that Wait never sleeps over a buffer.
func (q *Queue) Next() (*Chain, error) {
	if q.closed.Load() {
		return nil, ErrClosed
	}
	_, idx := ringHead(q.avail)
	if idx == q.lastAvail && q.eventIdx {
		// avail_event: notify me when you put the entry with this index.
		binary.LittleEndian.PutUint16(q.used[ringHeadBytes+usedElemBytes*int(q.size):], q.lastAvail)
		fence() // the store must be visible before the index is read again
		_, idx = ringHead(q.avail)
	}
	pending := idx - q.lastAvail
	if pending == 0 {
		return nil, nil
	}
	if pending > q.size {
		return nil, fmt.Errorf("available index %d is %d ahead, queue size %d: %w", idx, pending, q.size, ErrBadRing)
	}
	head := binary.LittleEndian.Uint16(q.avail[ringHeadBytes+2*int(q.lastAvail%q.size):])
	c, err := q.chain(head)
	if err != nil {
		return nil, err
	}
	q.lastAvail++
	return c, nil
}

// Used gives the chain back to the driver, with the number of bytes written to
// its writable part, and raises the interrupt if the driver wants one.
func (q *Queue) Used(c *Chain, written uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.putUsed(c, written)
	q.signal()
}

// PutUsed gives the chain back without raising an interrupt; Signal must follow.
func (q *Queue) PutUsed(c *Chain, written uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.putUsed(c, written)
}

// Signal raises the interrupt for what PutUsed gave back, if the driver wants it.
func (q *Queue) Signal() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.signal()
}

func (q *Queue) putUsed(c *Chain, written uint32) {
	off := ringHeadBytes + usedElemBytes*uint64(q.usedIdx%q.size)
	binary.LittleEndian.PutUint32(q.used[off:], uint32(c.head))
	binary.LittleEndian.PutUint32(q.used[off+4:], written)
	q.usedIdx++
	setRingHead(q.used, 0, q.usedIdx)
}

// signal decides as the driver asked (v1.2 §2.7.7 Used Buffer Notification
// Suppression) and raises the interrupt.
func (q *Queue) signal() {
	if q.irq == nil {
		return
	}
	fence() // the used index must be visible before the driver's wish is read
	if !q.eventIdx {
		if flags, _ := ringHead(q.avail); flags&availFNoInterrupt == 0 {
			q.irq()
		}
		return
	}
	event := binary.LittleEndian.Uint16(q.avail[ringHeadBytes+2*int(q.size):])
	before := q.lastSignaled
	fresh := q.everSignaled
	q.lastSignaled, q.everSignaled = q.usedIdx, true
	// vring_need_event: was event passed since the last interrupt?
	if !fresh || q.usedIdx-event-1 < q.usedIdx-before {
		q.irq()
	}
}
