package vhostuser

import (
	"fmt"
	"sync"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
)

// Recorder notes how often, and with which queues, a device was started.
type Recorder struct {
	virtio.Device
	mu     sync.Mutex
	starts []string
}

func (r *Recorder) Start(features uint64, queues []*queue.Queue) error {
	s := ""
	for _, q := range queues {
		if q == nil {
			s += "-"
		} else {
			s += fmt.Sprintf("[%d]", q.Size())
		}
	}
	r.mu.Lock()
	r.starts = append(r.starts, s)
	r.mu.Unlock()
	return r.Device.Start(features, queues)
}

func (r *Recorder) Started() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.starts
}

// Idle is a device of any type that takes nothing from its queues.
type Idle struct {
	Type    virtio.ID
	Sizes   []uint16
	Space   []byte // of the configuration
	workers virtio.Workers
}

func (d *Idle) ID() virtio.ID        { return d.Type }
func (d *Idle) Features() uint64     { return 0 }
func (d *Idle) QueueSizes() []uint16 { return d.Sizes }
func (d *Idle) Config() []byte       { return d.Space }
func (d *Idle) Wait() error          { return d.workers.Wait() }
func (d *Idle) Start(_ uint64, queues []*queue.Queue) error {
	d.workers.Serve(queues, func(_ int, q *queue.Queue) error {
		<-q.Done()
		return nil
	})
	return nil
}
