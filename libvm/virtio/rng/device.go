// Package rng is the entropy device. Follows "Virtual I/O Device (VIRTIO)
// Version 1.2" (v1.2 §5.4 Entropy Device).
package rng

import (
	"crypto/rand"
	"fmt"
	"io"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
)

// queueSize is the largest request queue, in descriptors: a driver keeps one
// request in flight.
const queueSize = 64

// maxRequest bounds the bytes served per chain. Descriptors of one chain may
// overlap, so the sum of their lengths does not bound the host time that a
// request costs; this does. The device may answer short (v1.2 §5.4.6.2).
const maxRequest = 64 << 10 // bytes

// Device fills the driver's buffers with random bytes.
type Device struct {
	source  io.Reader
	workers virtio.Workers
}

var _ virtio.Device = (*Device)(nil)

// New returns an entropy device that gives bytes of the host's random source.
func New() *Device { return &Device{source: rand.Reader} }

// ID returns the device type.
func (d *Device) ID() virtio.ID { return virtio.IDRNG }

// Features returns none (v1.2 §5.4.3).
func (d *Device) Features() uint64 { return 0 }

// QueueSizes returns the one queue, requestq (v1.2 §5.4.2).
func (d *Device) QueueSizes() []uint16 { return []uint16{queueSize} }

// Config returns none (v1.2 §5.4.4).
func (d *Device) Config() []byte { return nil }

// Start begins to serve requests.
func (d *Device) Start(_ uint64, queues []*queue.Queue) error {
	d.workers.Serve(queues, func(_ int, q *queue.Queue) error { return d.serve(q) })
	return nil
}

// Wait waits until the queue was closed, or the driver broke it.
func (d *Device) Wait() error { return d.workers.Wait() }

func (d *Device) serve(q *queue.Queue) error {
	for {
		c, err := q.Take()
		if err != nil {
			return err
		}
		n, err := d.fill(c)
		if err != nil {
			return err
		}
		q.Used(c, n)
	}
}

// fill writes up to maxRequest bytes, and returns how many.
func (d *Device) fill(c *queue.Chain) (uint32, error) {
	n := 0
	for _, w := range c.Writable {
		w = w[:min(len(w), maxRequest-n)]
		if _, err := io.ReadFull(d.source, w); err != nil {
			return 0, fmt.Errorf("read random bytes: %w", err)
		}
		n += len(w)
	}
	return uint32(n), nil
}
