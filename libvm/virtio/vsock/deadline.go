package vsock

import (
	"net"
	"sync"
	"time"
)

// deadline is the time limit of one direction, guarded by the device's lock.
type deadline struct {
	timer   *time.Timer
	seq     uint64 // counts settings: a timer that fired late finds another
	expired bool
}

func (dl *deadline) stop() {
	dl.seq++
	if dl.timer != nil {
		dl.timer.Stop()
		dl.timer = nil
	}
}

// set makes the deadline t, never if t is zero, and wakes those who wait on
// cond when it is reached.
func (dl *deadline) set(t time.Time, cond *sync.Cond) {
	dl.stop()
	dl.expired = false
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		dl.expired = true
		cond.Broadcast()
		return
	}
	seq := dl.seq
	dl.timer = time.AfterFunc(left, func() {
		cond.L.Lock()
		defer cond.L.Unlock()
		if dl.seq == seq {
			dl.expired = true
			cond.Broadcast()
		}
	})
}

// SetDeadline sets the time after which Read and Write fail with
// os.ErrDeadlineExceeded; the zero time is never.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadline(t, true, true) }

// SetReadDeadline is SetDeadline for Read only.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(t, true, false) }

// SetWriteDeadline is SetDeadline for Write only.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(t, false, true) }

func (c *Conn) setDeadline(t time.Time, read, write bool) error {
	c.dev.mu.Lock()
	defer c.dev.mu.Unlock()
	if c.closed {
		return c.opError("set deadline", net.ErrClosed)
	}
	if read {
		c.rdDeadline.set(t, &c.rd)
	}
	if write {
		c.wrDeadline.set(t, &c.wr)
		if !c.wrDeadline.expired && len(c.out) > 0 {
			c.dev.schedule(c) // it may have been skipped for the old deadline
			c.dev.flush()
		}
	}
	return nil
}
