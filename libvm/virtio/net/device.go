// Package net is the network device. Follows "Virtual I/O Device (VIRTIO) Version
// 1.2" (v1.2 §5.1 Network Device).
//
//	link ── readv ──▶ receiveq1 ──▶ guest
//	link ◀── writev ── transmitq1 ◀── guest
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
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
)

// The queues of a card with one pair (v1.2 §5.1.2).
const (
	receiveq  = 0 // frames for the guest
	transmitq = 1 // frames of the guest
	controlq  = 2 // commands; under QEMU they are QEMU's business
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
	// FD is a descriptor that does not block. A read takes one frame, a write
	// sends one, HeaderBytes of header included.
	FD() int
	// SetOffload says what frames may be like from now on.
	SetOffload(o Offload) error
}

// Device is a network card.
type Device struct {
	workers virtio.Workers
	wake    int           // eventfd: receive is to look at its queue and at link
	woken   chan struct{} // the same, for when there is no link

	// Whoever uses the link holds mu for reading. Attach holds gate, behind which
	// receive stays once it is woken, so that it gets mu.
	gate     sync.Mutex
	mu       sync.RWMutex
	link     Link // nil: no cable
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

// New returns a card with an Ethernet address of 6 bytes and without a link.
// Close frees it.
func New(mac net.HardwareAddr) (*Device, error) {
	d := &Device{woken: make(chan struct{}, 1)}
	if copy(d.mac[:], mac) != macBytes || len(mac) != macBytes {
		return nil, errors.New("network card: " + mac.String() + " is not an Ethernet address")
	}
	var err error
	if d.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("eventfd2", err)
	}
	return d, nil
}

// Close frees a card whose transport has stopped it. The link is its maker's.
func (d *Device) Close() { unix.Close(d.wake) } //nolint:errcheck // an eventfd

// MAC returns the address that the card was made with.
func (d *Device) MAC() net.HardwareAddr { return append(net.HardwareAddr(nil), d.mac[:]...) }

// Attach plugs a link in; nil pulls the one that is there. When it returns the
// device does not use the old one any more. The driver does not hear of it before
// SetCarrier.
func (d *Device) Attach(l Link) error {
	d.gate.Lock()
	defer d.gate.Unlock()
	d.interrupt()
	d.mu.Lock()
	d.link = l
	err := d.setOffload()
	if err != nil {
		d.link = nil
	}
	d.mu.Unlock()
	d.interrupt()
	return err
}

// setOffload tells the link what the driver takes. It runs under mu.
func (d *Device) setOffload() error {
	if d.link == nil || !d.running {
		return nil
	}
	has := func(bit uint) bool { return d.features&(1<<bit) != 0 }
	return d.link.SetOffload(Offload{
		Checksum: has(VIRTIO_NET_F_GUEST_CSUM), TSO4: has(VIRTIO_NET_F_GUEST_TSO4),
		TSO6: has(VIRTIO_NET_F_GUEST_TSO6), ECN: has(VIRTIO_NET_F_GUEST_ECN),
	})
}

// interrupt ends the wait of receive.
func (d *Device) interrupt() {
	unix.Write(d.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) //nolint:errcheck // a full counter says it, too
	select {
	case d.woken <- struct{}{}:
	default:
	}
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

// QueueSizes returns one pair and the control queue.
func (d *Device) QueueSizes() []uint16 {
	return []uint16{receiveq: dataQueueSize, transmitq: dataQueueSize, controlq: controlQueueSize}
}

// Config returns address and status.
func (d *Device) Config() []byte {
	b := make([]byte, configBytes)
	d.config.Lock()
	defer d.config.Unlock()
	copy(b[configMAC:], d.mac[:])
	binary.LittleEndian.PutUint16(b[configStatus:], d.status)
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
	d.gate.Lock()
	defer d.gate.Unlock()
	d.interrupt()
	d.mu.Lock()
	d.features, d.running = features, true
	err := d.setOffload()
	d.mu.Unlock()
	if err != nil {
		return err
	}
	mergeable := features&(1<<VIRTIO_NET_F_MRG_RXBUF) != 0
	d.workers.Serve(queues, func(i int, q *queue.Queue) error {
		switch i {
		case receiveq:
			return d.receive(q, mergeable)
		case transmitq:
			return (&transmitter{device: d, queue: q}).run()
		}
		return d.control(q)
	})
	return nil
}

// receive moves frames to the guest, and notices the closing of its queue.
func (d *Device) receive(q *queue.Queue, mergeable bool) error {
	stop := make(chan struct{})
	var noticing sync.WaitGroup
	noticing.Go(func() {
		select {
		case <-q.Done():
			d.interrupt()
		case <-stop:
		}
	})
	defer noticing.Wait()
	defer close(stop)
	return (&receiver{device: d, queue: q, mergeable: mergeable}).run()
}

// Wait waits until the queues were closed, or the driver broke one.
func (d *Device) Wait() error { return d.workers.Wait() }
