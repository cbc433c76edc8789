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
	ringIdx       = 2 // offset of idx
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
	// entry to write: 0 but for a queue that is taken over, drained, from
	// elsewhere (NextIndex).
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
	done     chan struct{}           // closed with closed
	sleeper  atomic.Pointer[sleeper] // waits instead of kick (Dedicate)

	lastAvail atomic.Uint32 // low 16 bits: next available entry that Next looks at; written by Next
	usedIdx   atomic.Uint32 // low 16 bits: index of the next used entry; written under mu

	mu           sync.Mutex // guards the used ring and the fields below
	lastSignaled uint16     // usedIdx when Signal last looked
	signaled     bool       // lastSignaled means something
}

// New checks c against m and returns the queue. It fails, with ErrBadRing, when
// the size is not a power of two up to MaxSize, or an area is misaligned or
// outside of guest memory.
func New(m *mem.Memory, c Config) (*Queue, error) {
	if c.Size == 0 || c.Size > MaxSize || c.Size&(c.Size-1) != 0 {
		return nil, fmt.Errorf("queue size %d: %w", c.Size, ErrBadRing)
	}
	q := &Queue{done: make(chan struct{}), mem: m, size: c.Size, eventIdx: c.EventIdx, indirect: c.Indirect,
		kick: c.Kick, irq: c.Interrupt, lastSignaled: c.Next}
	q.lastAvail.Store(uint32(c.Next))
	q.usedIdx.Store(uint32(c.Next))
	n := uint64(c.Size)
	areas := []struct {
		name  string
		gpa   mem.GPA
		align uint64 // bytes (v1.2 §2.7)
		bytes uint64
		dst   *[]byte
	}{
		{"descriptor table", c.Desc, 16, n * descBytes, &q.desc},
		{"available ring", c.Driver, 2, ringHeadBytes + 2*n + eventBytes, &q.avail},
		{"used ring", c.Device, 4, ringHeadBytes + usedElemBytes*n + eventBytes, &q.used},
	}
	for _, a := range areas {
		s, err := area(m, a.gpa, a.bytes, a.align)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.name, err)
		}
		*a.dst = s
	}
	return q, nil
}

// area returns the n bytes at gpa. The whole aligned words that hold the ends
// are guest memory too, and are aligned in this process as they are in the
// guest: an atomic access across a cache line could be torn, or, on hosts that
// detect split locks, kill us.
func area(m *mem.Memory, gpa mem.GPA, n, align uint64) ([]byte, error) {
	if uint64(gpa)%align != 0 {
		return nil, fmt.Errorf("gpa %#x is not aligned to %d: %w", gpa, align, ErrBadRing)
	}
	below := uint64(gpa) % wordBytes
	words := (below + n + wordBytes - 1) / wordBytes * wordBytes
	s, err := m.Slice(gpa-mem.GPA(below), words)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadRing, err)
	}
	if uintptr(unsafe.Pointer(&s[0]))%wordBytes != 0 {
		return nil, fmt.Errorf("gpa %#x is mapped misaligned: %w", gpa, ErrBadRing)
	}
	return s[below : below+n : below+n], nil
}

// Size returns the number of descriptors.
func (q *Queue) Size() uint16 { return q.size }

// NextIndex returns the index of the first available entry that was not given
// back, which is what a transport hands on when it has stopped the queue: a
// chain that the device took last and dropped is served again.
func (q *Queue) NextIndex() uint16 { return uint16(q.usedIdx.Load()) }

// InFlight returns how many chains the device has taken and not given back, at
// some moment of the call.
func (q *Queue) InFlight() uint16 {
	used := uint16(q.usedIdx.Load()) // first: what is given back in between is counted
	return uint16(q.lastAvail.Load()) - used
}

// Close ends Wait, now and later. It is safe to call from any goroutine and
// more than once. Wait and Next do not touch the rings afterwards; Used still
// does, so that requests in flight can end.
func (q *Queue) Close() {
	if !q.closed.CompareAndSwap(false, true) {
		return
	}
	close(q.done)
	if s := q.sleeper.Load(); s != nil {
		s.stop()
	}
	if q.kick != nil {
		q.kick.Close() //nolint:errcheck // there is nothing left to do about it
	}
}

// Done is closed when the queue is, for a device that waits for something else
// than the driver.
func (q *Queue) Done() <-chan struct{} { return q.done }

// Wait blocks until the driver notified the queue, or it was closed
// (ErrClosed). A device calls it when Next has nothing left.
func (q *Queue) Wait() error {
	var b [8]byte
	s := q.sleeper.Load()
	for !q.closed.Load() {
		var err error
		if s != nil {
			if err = s.wait(); err == nil && q.closed.Load() {
				return ErrClosed
			}
		} else {
			_, err = q.kick.Read(b[:])
		}
		if err == nil {
			return nil
		}
		if !q.closed.Load() {
			return fmt.Errorf("wait for notification: %w", err)
		}
	}
	return ErrClosed
}

// Next takes the next available chain, or returns nil if there is none. Before
// it reports none, it asks the driver to notify (event index), and looks once
// more, so that Wait never sleeps over a buffer.
func (q *Queue) Next() (*Chain, error) { return q.next(true) }

// Take is Next for a device that has nothing else to do: it waits for a chain, or
// until the queue is closed (ErrClosed).
func (q *Queue) Take() (*Chain, error) {
	for {
		c, err := q.Next()
		if c != nil || err != nil {
			return c, err
		}
		if err := q.Wait(); err != nil {
			return nil, err
		}
	}
}

// NextQuiet is Next for a device that comes back by itself: when it reports
// none, the driver is not asked to notify, and Next has to be called before Wait.
func (q *Queue) NextQuiet() (*Chain, error) { return q.next(false) }

func (q *Queue) next(notify bool) (*Chain, error) {
	if q.closed.Load() {
		return nil, ErrClosed
	}
	idx, last := load16(q.avail, ringIdx), uint16(q.lastAvail.Load())
	if idx == last && q.eventIdx && notify {
		// avail_event: notify me when you put the entry with this index. The
		// store is a barrier: it is visible before the index is read again.
		store16(q.used, ringHeadBytes+usedElemBytes*int(q.size), last)
		idx = load16(q.avail, ringIdx)
	}
	pending := idx - last
	if pending == 0 {
		return nil, nil
	}
	if pending > q.size {
		return nil, fmt.Errorf("available index %d is %d ahead, queue size %d: %w", idx, pending, q.size, ErrBadRing)
	}
	// A driver has no more chains than descriptors to put on the ring. One that
	// offers a chain again before it got it back would have the device hold
	// ever more requests.
	if held := last - uint16(q.usedIdx.Load()); held >= q.size {
		return nil, fmt.Errorf("%d chains in flight, queue size %d: %w", held, q.size, ErrBadRing)
	}
	head := binary.LittleEndian.Uint16(q.avail[ringHeadBytes+2*int(last%q.size):])
	c, err := q.chain(head)
	if err != nil {
		return nil, err
	}
	q.lastAvail.Store(uint32(last + 1))
	return c, nil
}

// Used gives the chain back to the driver, with the number of bytes written to
// its writable part, and raises the interrupt if the driver wants one.
func (q *Queue) Used(c *Chain, written uint32) {
	q.mu.Lock()
	q.putUsed(c, written)
	wanted := q.wanted()
	q.mu.Unlock()
	if wanted {
		q.irq()
	}
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
	wanted := q.wanted()
	q.mu.Unlock()
	if wanted {
		q.irq()
	}
}

// PutUsedTogether gives chains back of which the driver sees all or none, each
// with the bytes written to it; Signal must follow. A driver that polls must not
// find half of what belongs together (v1.2 §5.1.6.4).
func (q *Queue) PutUsedTogether(chains []*Chain, written []uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	idx := uint16(q.usedIdx.Load())
	for i, c := range chains {
		q.setUsed(idx+uint16(i), c, written[i])
	}
	for range chains {
		q.advanceUsed()
	}
	setRingHead(q.used, 0, uint16(q.usedIdx.Load()))
}

// Untake gives the n chains that Next returned last back to itself: it will return
// them again. The device has not used them, nor given one of them back.
func (q *Queue) Untake(n int) { q.lastAvail.Store(uint32(uint16(q.lastAvail.Load()) - uint16(n))) }

// putUsed runs under mu.
func (q *Queue) putUsed(c *Chain, written uint32) {
	q.setUsed(uint16(q.usedIdx.Load()), c, written)
	q.advanceUsed()
	setRingHead(q.used, 0, uint16(q.usedIdx.Load()))
}

// setUsed writes the used entry with an index, which is not the driver's yet.
func (q *Queue) setUsed(idx uint16, c *Chain, written uint32) {
	off := ringHeadBytes + usedElemBytes*int(idx%q.size)
	binary.LittleEndian.PutUint32(q.used[off:], uint32(c.head))
	binary.LittleEndian.PutUint32(q.used[off+4:], written)
}

// advanceUsed counts a used entry. It runs under mu.
func (q *Queue) advanceUsed() {
	idx := uint16(q.usedIdx.Load()) + 1
	q.usedIdx.Store(uint32(idx))
	if idx == q.lastSignaled {
		q.signaled = false // 65536 entries without a Signal: the index says nothing any more
	}
}

// wanted says, as the driver asked (v1.2 §2.7.7 Used Buffer Notification
// Suppression), whether an interrupt is due. It runs under mu.
func (q *Queue) wanted() bool {
	if q.irq == nil {
		return false
	}
	fence() // the used index must be visible before the driver's wish is read
	if !q.eventIdx {
		return load16(q.avail, 0)&availFNoInterrupt == 0
	}
	event := load16(q.avail, ringHeadBytes+2*int(q.size))
	now, before, known := uint16(q.usedIdx.Load()), q.lastSignaled, q.signaled
	q.lastSignaled, q.signaled = now, true
	// vring_need_event: did the index pass event since the last look?
	return !known || now-event-1 < now-before
}
