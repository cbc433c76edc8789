package fs

import (
	"time"

	"runv/libvm/virtio/queue"
)

// hiprio is the index of the queue for FORGET and INTERRUPT (v1.2 §5.11.2).
const hiprio = 0

// lull is how long the hiprio queue is left alone after there was something on
// it. Nobody waits for a FORGET, which has no reply, but each file that the guest
// removes or evicts is one: served at once, each would cost two notifications,
// three wake-ups and an interrupt of the processor that makes the next request.
// The guest's kernel holds back what does not fit into the queue meanwhile, and
// an unmount waits for the last of them. What it delays is when the host learns
// that a removed file is not in use any more.
const lull = 5 * time.Millisecond

// serveHiprio serves the hiprio queue until it is closed or the driver breaks it.
func (d *Device) serveHiprio(q *queue.Queue) error {
	pause := time.NewTimer(lull)
	defer pause.Stop()
	for {
		c, err := q.Next()
		if err != nil {
			return err
		}
		if c != nil {
			err = d.drain(q, c)
		} else {
			err = q.Wait()
		}
		if err != nil {
			return err
		}
		pause.Reset(lull)
		select {
		case <-pause.C:
		case <-q.Done():
			return queue.ErrClosed
		}
	}
}

// drain serves c and all that is on the queue behind it, with one interrupt.
func (d *Device) drain(q *queue.Queue, c *queue.Chain) (err error) {
	for c != nil && err == nil {
		q.PutUsed(c, d.request(c))
		c, err = q.NextQuiet()
	}
	q.Signal()
	return err
}
