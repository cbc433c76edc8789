package net

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/virtio/queue"
)

// burst is how many frames are moved before the driver is told of them.
const burst = 64

// maxParts bounds the pieces of guest memory that a frame is read into. The rest
// of a frame that does not fit goes through overflow.
const maxParts = 64

// errSmallBuffer is a receive buffer that cannot even hold the header.
var errSmallBuffer = errors.New("receive buffer is smaller than the header")

// receiver moves frames to the guest.
type receiver struct {
	device    *Device
	queue     *queue.Queue
	pair      int
	mergeable bool // a frame may fill several buffers (v1.2 §5.1.6.3.1)
	dedicated bool
	broken    Link // has failed; there is nothing to wait for
	pace      pacer
	frames    int // moved since the last pause
	bytes     int // … in all

	held     []*queue.Chain // taken, in order, and not given back
	room     int            // bytes in held
	iovs     []unix.Iovec
	overflow []byte // made when it is first needed
	used     []uint32
}

func (r *receiver) run() error {
	for {
		ready, err := r.await()
		if err != nil {
			return err
		}
		if !ready {
			continue
		}
		for again := true; again; {
			r.frames, r.bytes = 0, 0
			for more := true; more; {
				// The driver's buffers first, and without the link: it may take long.
				if err := r.fill(true); err != nil {
					return err
				}
				if more, err = r.burst(); err != nil {
					return err
				}
			}
			if again = r.pace.next(r.frames, r.bytes); again {
				pause()
			}
		}
		// Nothing is kept while there is nothing to do: whoever takes the state of
		// the device finds no chain in flight.
		r.queue.Untake(len(r.held))
		r.held, r.room = r.held[:0], 0
	}
}

// await waits until there is a link with a frame. It returns false when it was
// interrupted.
func (r *receiver) await() (bool, error) {
	d := r.device
	select {
	case <-r.queue.Done():
		return false, queue.ErrClosed
	default:
	}
	d.gate.Lock()
	d.mu.RLock()
	d.gate.Unlock()
	p := &d.pairs[r.pair]
	if !r.linked() || d.link == r.broken {
		d.mu.RUnlock()
		select {
		case <-r.queue.Done():
			return false, queue.ErrClosed
		case <-p.woken:
			return false, nil
		}
	}
	defer d.mu.RUnlock()
	fds := []unix.PollFd{{Fd: int32(d.link.FD(r.pair)), Events: unix.POLLIN}, {Fd: int32(p.wake), Events: unix.POLLIN}}
	begin := time.Now()
	if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
		return false, os.NewSyscallError("poll", err)
	}
	r.pace.waited(time.Since(begin))
	if fds[1].Revents != 0 {
		var b [8]byte
		unix.Read(p.wake, b[:]) //nolint:errcheck // it was readable, or somebody else has read it
		return false, nil
	}
	return fds[0].Revents != 0, nil
}

// linked says whether there may be frames of a link for this pair. It runs under mu.
func (r *receiver) linked() bool { return r.device.link != nil && r.pair < r.device.active }

// fill takes buffers of the driver for a frame of any length, as far as there are
// some. If there is none it waits, if it may.
func (r *receiver) fill(wait bool) error {
	for len(r.held) == 0 || r.mergeable && r.room < maxFrame && len(r.held) < maxParts {
		c, err := r.queue.Next()
		if err != nil {
			return err
		}
		if c == nil {
			if len(r.held) > 0 || !wait {
				return nil
			}
			if !r.dedicated {
				r.dedicated = true
				if err := r.queue.Dedicate(); err != nil {
					return err
				}
			}
			r.queue.Signal() // what it has to look at before it has more
			if err := r.queue.Wait(); err != nil {
				return err
			}
			continue
		}
		n := c.WritableLen()
		if n < HeaderBytes {
			return fmt.Errorf("%w: %d bytes: %w", errSmallBuffer, n, queue.ErrBadRing)
		}
		r.held, r.room = append(r.held, c), r.room+n
	}
	return nil
}

// burst moves frames while there are some and buffers for them, and says whether
// there may be more frames.
func (r *receiver) burst() (more bool, err error) {
	d := r.device
	d.mu.RLock()
	defer d.mu.RUnlock()
	defer r.queue.Signal()
	for range burst {
		if !r.linked() {
			return false, nil
		}
		if len(r.held) == 0 || r.mergeable && r.room < maxFrame {
			if err := r.fill(false); err != nil {
				return false, err
			}
		}
		if len(r.held) == 0 {
			return true, nil
		}
		n, err := r.read(d.link.FD(r.pair))
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return false, nil
		case err != nil || n < HeaderBytes:
			r.broken = d.link // a tap that somebody has removed
			return false, nil
		default:
			r.deliver(n)
			r.frames, r.bytes = r.frames+1, r.bytes+n
		}
	}
	return true, nil
}

// read reads a frame into held, and what does not fit into overflow.
func (r *receiver) read(fd int) (int, error) {
	iovs := r.iovs[:0]
	inGuest := 0
	for _, c := range r.held {
		for _, w := range c.Writable {
			if len(iovs) == maxParts {
				break
			}
			iovs = append(iovs, iovec(w))
			inGuest += len(w)
		}
	}
	if r.overflow == nil {
		r.overflow = make([]byte, maxFrame)
	}
	iovs = append(iovs, iovec(r.overflow))
	r.iovs = iovs
	n, err := readv(fd, iovs)
	if err != nil {
		return 0, err
	}
	if n > inGuest {
		// A chain of more pieces than were read into: it has room behind them.
		r.spill(inGuest, r.overflow[:min(n-inGuest, len(r.overflow))])
	}
	return n, nil
}

// spill writes b behind the first skip bytes of held, as far as that has room.
func (r *receiver) spill(skip int, b []byte) {
	for _, c := range r.held {
		if skip, b = writeAt(c, skip, b); len(b) == 0 {
			return
		}
	}
}

// deliver gives the driver a frame of n bytes that is in held; one that does not
// fit is dropped, as by any card without buffers.
func (r *receiver) deliver(n int) {
	if n > r.room {
		return
	}
	used := r.used[:0]
	count, left := 0, n
	for ; left > 0; count++ {
		k := min(left, r.held[count].WritableLen())
		used = append(used, uint32(k))
		left -= k
	}
	r.used = used
	var num [2]byte
	binary.LittleEndian.PutUint16(num[:], uint16(count))
	writeAt(r.held[0], headerNumBuffers, num[:])
	r.queue.PutUsedTogether(r.held[:count], used)
	for _, c := range r.held[:count] {
		r.room -= c.WritableLen()
	}
	r.held = append(r.held[:0], r.held[count:]...)
}

// writeAt writes b at an offset of a chain's writable part. It returns what the chain
// had no room for, and where in the next chain that begins.
func writeAt(c *queue.Chain, off int, b []byte) (skip int, rest []byte) {
	for _, w := range c.Writable {
		if off >= len(w) {
			off -= len(w)
			continue
		}
		b = b[copy(w[off:], b):]
		off = 0
		if len(b) == 0 {
			break
		}
	}
	return off, b
}
