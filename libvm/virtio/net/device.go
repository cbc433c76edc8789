// Package net is the network device. Follows "Virtual I/O Device (VIRTIO) Version
// 1.2" (v1.2 §5.1 Network Device).
//
//	link ── readv ──▶ receiveq1…N ──▶ guest
//	link ◀── writev ── transmitq1…N ◀── guest
//
// The link is a tap, or whatever else gives and takes one frame, with the header
// of virtio in front of it, a system call. It comes and goes while the guest runs:
// a device without one is a card without a cable. Frames are not copied: the
// kernel reads and writes the guest's memory. The kernel checks the headers of the
// guest's frames, as it does for any other program with a tap.
package net

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
)

// Largest queues, in descriptors. A frame of 64 KiB takes 44 buffers of a page's
// third, which is what Linux offers for small packets.
const (
	dataQueueSize    = 256
	controlQueueSize = 64
)

// Offload says which frames the guest takes (v1.2 §5.1.3.1).
type Offload struct {
	Checksum bool // without their checksum
	TSO4     bool // longer than the MTU, of TCP over IPv4
	TSO6     bool // … over IPv6
	ECN      bool // … with the congestion bits of TCP
}

// Link is the host's end of a card.
type Link interface {
	// FD is the descriptor of a queue, which does not block. A read takes one frame,
	// a write sends one, HeaderBytes of header included.
	FD(queue int) int
	// SetQueues says how many of its queues, the first ones, are in use from now on.
	// It has as many as the card has pairs.
	SetQueues(n int) error
	// SetOffload says what frames may be like from now on.
	SetOffload(o Offload) error
}

// Device is a network card.
type Device struct {
	workers virtio.Workers
	pairs   []pair

	// Whoever uses the link holds mu for reading. Whoever changes it holds gate, behind
	// which receivers stay once they are woken, so that it gets mu (see change).
	gate     sync.Mutex
	mu       sync.RWMutex
	link     Link // nil: no cable
	active   int  // pairs that the driver uses, the first ones
	features uint64
	running  bool

	config  sync.Mutex
	mac     [macBytes]byte
	status  uint16
	changed func()
}

var (
	_ virtio.Device         = (*Device)(nil)
	_ virtio.ConfigNotifier = (*Device)(nil)
)

// New returns a card with an Ethernet address of 6 bytes, 1 to MaxPairs pairs of
// queues, and without a link. Close frees it.
func New(mac net.HardwareAddr, pairs int) (*Device, error) {
	d := &Device{active: 1}
	if copy(d.mac[:], mac) != macBytes || len(mac) != macBytes {
		return nil, errors.New("network card: " + mac.String() + " is not an Ethernet address")
	}
	if pairs < 1 || pairs > MaxPairs {
		return nil, fmt.Errorf("network card: %d pairs of queues, want 1 to %d", pairs, MaxPairs)
	}
	for range pairs {
		p, err := newPair()
		if err != nil {
			d.Close()
			return nil, err
		}
		d.pairs = append(d.pairs, p)
	}
	return d, nil
}

// Close frees a card whose transport has stopped it. The link is its maker's.
func (d *Device) Close() {
	for i := range d.pairs {
		d.pairs[i].close()
	}
}

// MAC returns the address that the card was made with.
func (d *Device) MAC() net.HardwareAddr { return append(net.HardwareAddr(nil), d.mac[:]...) }

// Attach plugs a link in; nil pulls the one that is there. When it returns the
// device does not use the old one any more. The driver does not hear of it before
// SetCarrier.
func (d *Device) Attach(l Link) error {
	return d.change(func() error {
		d.link = l
		err := d.setLink()
		if err != nil {
			d.link = nil
		}
		return err
	})
}

// change has f change what mu guards.
func (d *Device) change(f func() error) error {
	d.gate.Lock()
	defer d.gate.Unlock()
	d.interrupt()
	defer d.interrupt()
	d.mu.Lock()
	defer d.mu.Unlock()
	return f()
}

// setLink tells the link what the driver uses and takes. It runs under mu.
func (d *Device) setLink() error {
	if d.link == nil || !d.running {
		return nil
	}
	if err := d.link.SetQueues(d.active); err != nil {
		return err
	}
	has := func(bit uint) bool { return d.features&(1<<bit) != 0 }
	return d.link.SetOffload(Offload{
		Checksum: has(VIRTIO_NET_F_GUEST_CSUM), TSO4: has(VIRTIO_NET_F_GUEST_TSO4),
		TSO6: has(VIRTIO_NET_F_GUEST_TSO6), ECN: has(VIRTIO_NET_F_GUEST_ECN),
	})
}

// SetCarrier shows the driver whether its frames go anywhere, and asks it to announce
// itself to new neighbours. Linux notices at once only if it uses the card already;
// otherwise it gets round to it within a second, in which IPv6 does not work.
func (d *Device) SetCarrier(up bool) {
	d.config.Lock()
	if up == (d.status&VIRTIO_NET_S_LINK_UP != 0) {
		d.config.Unlock()
		return
	}
	d.status = 0
	if up {
		d.status = VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE
	}
	changed := d.changed
	d.config.Unlock()
	if changed != nil {
		changed()
	}
}

// ID returns the device type.
func (d *Device) ID() virtio.ID { return virtio.IDNet }

// Features returns what a tap can do, and what the control queue takes.
func (d *Device) Features() uint64 {
	var f uint64
	if len(d.pairs) > 1 {
		f = 1 << VIRTIO_NET_F_MQ
	}
	for _, bit := range []uint{
		VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_ECN,
		VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_ECN,
		VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MAC, VIRTIO_NET_F_STATUS, VIRTIO_NET_F_CTRL_VQ,
		VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_CTRL_MAC_ADDR,
	} {
		f |= 1 << bit
	}
	return f
}

// Config returns address, status, and how many pairs there are.
func (d *Device) Config() []byte {
	b := make([]byte, configBytes)
	d.config.Lock()
	defer d.config.Unlock()
	copy(b[configMAC:], d.mac[:])
	binary.LittleEndian.PutUint16(b[configStatus:], d.status)
	binary.LittleEndian.PutUint16(b[configPairs:], uint16(len(d.pairs)))
	return b
}

// NotifyConfig has changed called when the status changes.
func (d *Device) NotifyConfig(changed func()) {
	d.config.Lock()
	defer d.config.Unlock()
	d.changed = changed
}

// Start begins to move frames.
func (d *Device) Start(features uint64, queues []*queue.Queue) error {
	err := d.change(func() error {
		d.features, d.running, d.active = features, true, d.used(features, queues)
		return d.setLink()
	})
	if err != nil {
		return err
	}
	mergeable := features&(1<<VIRTIO_NET_F_MRG_RXBUF) != 0
	control := d.controlq(features)
	d.workers.Serve(queues, func(i int, q *queue.Queue) error {
		switch {
		case i == control:
			return d.control(q)
		case i > control:
			<-q.Done() // of no use to a driver that knows of one pair only
			return nil
		case i%2 == receiveq:
			return d.receive(&receiver{device: d, queue: q, pair: i / 2, mergeable: mergeable})
		}
		return (&transmitter{device: d, queue: q, pair: i / 2}).run()
	})
	return nil
}

// receive moves frames to the guest, and notices the closing of its queue.
func (d *Device) receive(r *receiver) error {
	stop := make(chan struct{})
	var noticing sync.WaitGroup
	noticing.Go(func() {
		select {
		case <-r.queue.Done():
			d.pairs[r.pair].interrupt()
		case <-stop:
		}
	})
	defer noticing.Wait()
	defer close(stop)
	return r.run()
}

// Wait waits until the queues were closed, or the driver broke one.
func (d *Device) Wait() error { return d.workers.Wait() }
