package net

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
)

// MaxPairs bounds the pairs of queues of a card. Each may take two threads, and two
// descriptors of each spare card.
const MaxPairs = 8

// The queues of a card with one pair (v1.2 §5.1.2); those of the next follow by twos,
// and the control queue is behind the last one that the driver may use.
const (
	receiveq  = 0 // frames for the guest
	transmitq = 1 // frames of the guest
)

// pair wakes the receiver of a pair of queues.
type pair struct {
	wake  int           // eventfd: it is to look at its queue and at the link
	woken chan struct{} // the same, for when there is no link
}

func newPair() (pair, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return pair{wake: fd, woken: make(chan struct{}, 1)}, os.NewSyscallError("eventfd2", err)
}

func (p *pair) close() { unix.Close(p.wake) } //nolint:errcheck // an eventfd

// interrupt ends the wait of the receiver.
func (p *pair) interrupt() {
	unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) //nolint:errcheck // a full counter says it, too
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

// interrupt ends the waits of all receivers.
func (d *Device) interrupt() {
	for i := range d.pairs {
		d.pairs[i].interrupt()
	}
}

// Pairs returns how many pairs of queues the card has.
func (d *Device) Pairs() int { return len(d.pairs) }

// QueueSizes returns the pairs' and the control queue's, of which it depends on the
// driver where it is.
func (d *Device) QueueSizes() []uint16 {
	var sizes []uint16
	for range d.pairs {
		sizes = append(sizes, dataQueueSize, dataQueueSize)
	}
	return append(sizes, controlQueueSize)
}

var _ virtio.Multiqueue = (*Device)(nil)

// Optional says that a card needs its first pair.
func (d *Device) Optional(i int) bool { return i > transmitq }

// multiqueue says whether the driver knows of more than one pair.
func multiqueue(features uint64) bool { return features&(1<<VIRTIO_NET_F_MQ) != 0 }

// controlq is the index of the queue for commands; under QEMU they are QEMU's
// business, and there is none.
func (d *Device) controlq(features uint64) int {
	if multiqueue(features) {
		return 2 * len(d.pairs)
	}
	return 2
}

// used says how many pairs a driver uses to begin with: one, until it has commanded
// otherwise; but if QEMU hears the commands it gives us no other queues.
func (d *Device) used(features uint64, queues []*queue.Queue) int {
	control := d.controlq(features)
	if !multiqueue(features) || len(queues) > control && queues[control] != nil {
		return 1
	}
	n := 1
	for 2*n+transmitq < min(control, len(queues)) && queues[2*n+receiveq] != nil && queues[2*n+transmitq] != nil {
		n++
	}
	return n
}

// setPairs has the driver's first n pairs used.
func (d *Device) setPairs(n int) error {
	return d.change(func() error {
		if !multiqueue(d.features) || n < 1 || n > len(d.pairs) {
			return fmt.Errorf("%d of %d pairs of queues", n, len(d.pairs))
		}
		before := d.active
		d.active = n
		err := d.setLink()
		if err != nil {
			d.active = before
		}
		return err
	})
}

// fd is the link's descriptor for a pair. What a driver sends by one that it does not
// use is sent like the first one's. It runs under mu, with a link.
func (d *Device) fd(pair int) int {
	if pair >= d.active {
		pair = 0
	}
	return d.link.FD(pair)
}
