package net

import (
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"runv/libvm/virtio/queue"
)

// maxIovecs is how many pieces writev(2) takes (UIO_MAXIOV).
const maxIovecs = 1024

// minFrame is an Ethernet header behind ours, in bytes: no tap takes less.
const minFrame = HeaderBytes + 14

// transmitter moves frames of the guest.
type transmitter struct {
	device    *Device
	queue     *queue.Queue
	pair      int
	dedicated bool
	pace      pacer
	iovs      []unix.Iovec
}

func (t *transmitter) run() error {
	for {
		c, err := t.queue.Next()
		if err != nil {
			return err
		}
		if c == nil {
			begin := time.Now()
			if err := t.queue.Wait(); err != nil {
				return err
			}
			t.pace.waited(time.Since(begin))
			continue
		}
		if err := t.drain(c); err != nil {
			return err
		}
	}
}

// drain sends c and what follows it, until there is no more.
func (t *transmitter) drain(c *queue.Chain) (err error) {
	for {
		frames, bytes := 0, 0
		for c != nil {
			n, b, err := t.burst(c)
			if err != nil {
				return err
			}
			frames, bytes = frames+n, bytes+b
			if c, err = t.queue.NextQuiet(); err != nil {
				return err
			}
		}
		if !t.pace.next(frames, bytes) {
			return nil
		}
		pause()
		if c, err = t.queue.NextQuiet(); err != nil {
			return err
		}
	}
}

// burst sends c and some of what follows it, and returns how many frames that were,
// and of how many bytes.
func (t *transmitter) burst(c *queue.Chain) (frames, bytes int, err error) {
	d := t.device
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.link != nil && !t.dedicated {
		t.dedicated = true // one that sends is not a spare
		if err := t.queue.Dedicate(); err != nil {
			return 0, 0, err
		}
	}
	defer t.queue.Signal()
	for {
		if d.link != nil {
			bytes += t.send(d.fd(t.pair), c)
		}
		t.queue.PutUsed(c, 0)
		if frames++; frames == burst {
			return frames, bytes, nil
		}
		if c, err = t.queue.NextQuiet(); c == nil || err != nil {
			return frames, bytes, err
		}
	}
}

// send writes a frame. What the link does not take is lost, as on any cable: a
// header that makes no sense, a frame that is too long, a tap that is down. It
// returns the length of the frame, in bytes.
func (t *transmitter) send(fd int, c *queue.Chain) int {
	n := c.ReadableLen()
	if n < minFrame || n > maxFrame || len(c.Readable) > maxIovecs {
		return 0
	}
	iovs := t.iovs[:0]
	for _, b := range c.Readable {
		iovs = append(iovs, iovec(b))
	}
	t.iovs = iovs
	for writev(fd, iovs) == unix.EINTR { //nolint:revive // that is all there is to do
	}
	runtime.KeepAlive(c)
	return n
}

// iovec is a piece of memory that is not Go's, or that stays where it is.
func iovec(b []byte) unix.Iovec {
	return unix.Iovec{Base: unsafe.SliceData(b), Len: uint64(len(b))}
}

// The link does not block: Go's scheduler need not know of these calls.

func readv(fd int, iovs []unix.Iovec) (int, error) {
	n, _, e := unix.RawSyscall(unix.SYS_READV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iovs))), uintptr(len(iovs)))
	runtime.KeepAlive(iovs)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func writev(fd int, iovs []unix.Iovec) error {
	_, _, e := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iovs))), uintptr(len(iovs)))
	runtime.KeepAlive(iovs)
	if e != 0 {
		return e
	}
	return nil
}
