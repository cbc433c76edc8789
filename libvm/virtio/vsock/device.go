// Package vsock is the virtio socket device (v1.2 §5.10 Socket Device). Streams
// of the guest end here, in user space: the host's side of each is a net.Conn
// of this process, so nothing needs /dev/vhost-vsock and no context id has to be
// unique on the host.
//
// One lock guards all state, and whoever changes what is to be sent also sends
// it, from its own goroutine, as far as the guest has given buffers: bytes go
// from the caller of Write into guest memory in one copy, with no goroutine and
// no queue in between. Nobody ever waits for the guest with the lock held.
package vsock

import (
	"container/list"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
)

// Limits on what a guest can make us hold.
const (
	// maxConns bounds the connections of one guest, those that wait for its
	// answer to our close among them.
	maxConns = 4096

	// The receive buffer of a connection, in bytes: a guest that sends on
	// connections which nobody reads pins it. The first connections get the
	// large one, the many the small one: 64 * 256 KiB + 4032 * 16 KiB = 79 MiB.
	// So do those behind the first in a backlog, where the guest can leave data
	// of streams that it has closed: 16 * 256 KiB + 240 * 16 KiB = 8 MiB.
	largeBuf     = 256 << 10
	smallBuf     = 16 << 10
	largeConns   = 64
	largeBacklog = 16

	// maxBacklog bounds the connections of one listener that were not accepted
	// yet; the next is refused.
	maxBacklog = 256

	// maxResets bounds the RST packets that wait for a guest that gives no
	// buffers. Further ones are dropped: the guest sees its own time-outs.
	maxResets = 1024

	// maxPacket is the most payload of one packet to the guest, in bytes, as
	// Linux has it (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE).
	maxPacket = 64 << 10

	// A burst is what is moved without letting go of the lock.
	burstPackets = 64
	burstBytes   = 256 << 10
)

// closeTimeout is how long the guest has to answer our close before its
// addresses are free again (v1.2 §5.10.6.5; VSOCK_CLOSE_TIMEOUT in Linux).
const closeTimeout = 8 * time.Second

// errNotRunning is what Dial answers while no driver serves the queues.
var errNotRunning = fmt.Errorf("guest has no vsock driver yet: %w", syscall.ENETDOWN)

// key names a connection: the context ids are always the same two.
type key struct {
	host, guest uint32 // ports
}

// Device is the virtio socket device of one guest. Its methods are safe for
// concurrent use.
//
// The event queue only ever carries a transport reset (v1.2 §5.10.6.7 Device
// Events), which a guest needs after it was restored elsewhere, and so is not
// served. Under QEMU's vhost-user-vsock it does not come here at all.
type Device struct {
	guestCID uint64

	mu        sync.Mutex // guards everything below, and every Conn and Listener
	run       *run       // nil unless the driver serves the queues
	last      *run       // what Wait waits for
	conns     map[key]*Conn
	listeners map[uint32]*Listener // by host port
	ready     fifo                 // connections that have something to send
	resets    []reset              // RST packets to send that belong to no connection
	closing   list.List            // of *Conn in stateClosing, oldest first
	reaper    *time.Timer          // ends the oldest of closing; nil if there is none
	nextPort  uint32               // where Dial begins to look for a free host port
}

// run is the time between Start and the end of its queues.
type run struct {
	queues []*queue.Queue
	rx, tx *queue.Queue // of queues
	wg     sync.WaitGroup
	err    error // why it ended, if the guest broke the queues
}

var _ virtio.Device = (*Device)(nil)

// New returns the device of a guest that is to have the context id guestCID,
// which is at least 3 and below 2^32-1 (v1.2 §5.10.4). Listen may be called
// before the guest runs.
func New(guestCID uint64) *Device {
	return &Device{
		guestCID:  guestCID,
		conns:     make(map[key]*Conn),
		listeners: make(map[uint32]*Listener),
		nextPort:  firstPort,
	}
}

// ID returns the device type.
func (d *Device) ID() virtio.ID { return virtio.IDVsock }

// Features returns none: only streams are offered.
func (d *Device) Features() uint64 { return 0 }

// QueueSizes returns the sizes of rx, tx and event queue. Linux fills the whole
// rx queue with buffers of 4 KiB.
func (d *Device) QueueSizes() []uint16 { return []uint16{128, 128, 16} }

// Config returns struct virtio_vsock_config: the guest's context id.
func (d *Device) Config() []byte {
	return binary.LittleEndian.AppendUint64(make([]byte, 0, configSize), d.guestCID)
}

// Start serves the rx and the tx queue; the event queue may be nil or missing.
func (d *Device) Start(_ uint64, queues []*queue.Queue) error {
	if len(queues) <= queueTX || queues[queueRX] == nil || queues[queueTX] == nil {
		return errors.New("start vsock: rx or tx queue missing")
	}
	r := &run{queues: queues, rx: queues[queueRX], tx: queues[queueTX]}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.run != nil {
		return errors.New("start vsock: already started")
	}
	d.run, d.last = r, r
	r.wg.Add(2)
	go d.serve(r, r.tx, d.receiveBurst)
	go d.serve(r, r.rx, d.sendReady)
	return nil
}

// Wait blocks until the queues are closed and both goroutines have ended. By
// then every connection is reset, and no caller of a Conn touches guest memory.
func (d *Device) Wait() error {
	d.mu.Lock()
	r := d.last
	d.mu.Unlock()
	if r == nil {
		return nil
	}
	r.wg.Wait()
	return r.err
}

// serve calls work until it finds nothing to do, then waits for the driver's
// next notification of q. The end of the queues ends it.
func (d *Device) serve(r *run, q *queue.Queue, work func(*run) (more bool, err error)) {
	defer r.wg.Done()
	for {
		more, err := work(r)
		if err == nil && !more {
			err = q.Wait()
		}
		if err != nil {
			d.mu.Lock()
			d.stop(r, err)
			d.mu.Unlock()
			return
		}
	}
}

// stop ends r for the reason err: from here on nobody looks at its queues, and
// its connections, which the guest has forgotten, are reset. Listeners stay.
func (d *Device) stop(r *run, err error) {
	if d.run != r {
		return
	}
	if !errors.Is(err, queue.ErrClosed) {
		r.err = fmt.Errorf("vsock: %w", err)
	}
	for _, q := range r.queues {
		if q != nil {
			q.Close()
		}
	}
	d.run = nil
	for _, l := range d.listeners {
		l.backlog = nil
	}
	for _, c := range d.conns {
		d.forget(c, syscall.ECONNRESET)
	}
	d.resets = nil
}
