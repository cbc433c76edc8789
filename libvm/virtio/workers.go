package virtio

import (
	"errors"
	"sync"

	"runv/libvm/virtio/queue"
)

// Workers runs the goroutines that serve a device's queues, one goroutine a
// queue, and gives a Device its Wait. The zero value is ready; a Workers is used
// again once Wait has returned.
type Workers struct {
	wg  sync.WaitGroup
	mu  sync.Mutex
	err error // why the first one failed
}

// Serve starts serve for each queue that the driver set up. A goroutine ends
// when serve returns, for which the queue is closed (queue.ErrClosed from Wait
// or Next) or the driver broke the protocol. One that fails closes all of the
// queues: a device works as a whole, or not at all.
func (w *Workers) Serve(queues []*queue.Queue, serve func(i int, q *queue.Queue) error) {
	for i, q := range queues {
		if q == nil {
			continue
		}
		w.wg.Go(func() {
			err := serve(i, q)
			if err == nil || errors.Is(err, queue.ErrClosed) {
				return
			}
			w.mu.Lock()
			if w.err == nil {
				w.err = err
			}
			w.mu.Unlock()
			for _, q := range queues {
				if q != nil {
					q.Close()
				}
			}
		})
	}
}

// Wait waits for all goroutines of Serve, and returns why the first one failed,
// if one did.
func (w *Workers) Wait() error {
	w.wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.err
	w.err = nil
	return err
}
