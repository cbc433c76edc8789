package mmio

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"runv/libvm/mem"
	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
)

// vring is what the driver has said about one queue.
type vring struct {
	max    uint16 // largest size, in descriptors
	num    uint32 // QueueNum, as it was written
	desc   mem.GPA
	driver mem.GPA
	device mem.GPA
	ready  bool
	next   uint16 // where SetState has a start go on

	// event is the eventfd of QueueNotify, -1 before the queue is first used.
	// It stays for as long as the transport does: a guest that resets in a loop
	// does not make the host change the VM's wiring.
	event     int
	connected bool // event is signalled by the kernel, without us
}

// reset forgets what the driver said.
func (q *vring) reset() {
	q.num, q.desc, q.driver, q.device, q.ready = 0, 0, 0, 0, false
}

// connect makes the eventfd.
func (q *vring) connect(lines Lines, index uint16) error {
	if q.event >= 0 {
		return nil
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("eventfd2", err)
	}
	err = lines.Notify(index, fd)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		unix.Close(fd) //nolint:errcheck // an eventfd
		return err
	}
	q.event, q.connected = fd, err == nil
	return nil
}

// disconnect undoes connect.
func (q *vring) disconnect(lines Lines, index uint16) (err error) {
	if q.event < 0 {
		return nil
	}
	if q.connected {
		err = lines.Unnotify(index, q.event)
	}
	unix.Close(q.event) //nolint:errcheck // an eventfd
	q.event, q.connected = -1, false
	return err
}

// queue returns the selected queue, or nil.
func (t *Transport) queue() *vring {
	if uint64(t.queueSel) >= uint64(len(t.queues)) {
		return nil
	}
	return &t.queues[t.queueSel]
}

// notify does what the kernel does with QueueNotify where it can. The value is
// the index of the queue (v1.2 §4.2.3.3, without VIRTIO_F_NOTIFICATION_DATA).
func (t *Transport) notify(v uint32) {
	if uint64(v) >= uint64(len(t.queues)) || t.queues[v].event < 0 {
		return
	}
	// A full counter (EAGAIN) says all that there is to say.
	unix.Write(t.queues[v].event, []byte{1, 0, 0, 0, 0, 0, 0, 0}) //nolint:errcheck // see above
}

// place takes the size and the addresses of the selected queue, which the driver
// must not change once it is ready (v1.2 §4.2.2.2).
func (t *Transport) place(off uint64, v uint32) {
	q := t.queue()
	if q == nil || q.ready {
		return
	}
	switch off {
	case regQueueNum:
		q.num = v
	case regQueueDescLow:
		setLow(&q.desc, v)
	case regQueueDescHigh:
		setHigh(&q.desc, v)
	case regQueueDriverLow:
		setLow(&q.driver, v)
	case regQueueDriverHigh:
		setHigh(&q.driver, v)
	case regQueueDeviceLow:
		setLow(&q.device, v)
	case regQueueDeviceHigh:
		setHigh(&q.device, v)
	}
}

func setLow(a *mem.GPA, v uint32)  { *a = *a>>32<<32 | mem.GPA(v) }
func setHigh(a *mem.GPA, v uint32) { *a = *a&0xffffffff | mem.GPA(v)<<32 }

// setReady takes the selected queue into use, or out of it. Queues of a running
// device do not come and go: a queue that comes too late stays unready. A driver
// that takes one away gets what it was promised, that the device does not use
// the queue any more, at the price of a reset: no driver of ours does it.
func (t *Transport) setReady(v uint32) *run {
	q := t.queue()
	switch {
	case q == nil:
	case v == 0 && t.run == nil:
		q.ready = false
	case v == 0 && q.ready:
		t.run.stop(fmt.Errorf("driver took queue %d away", t.queueSel))
		return t.run
	case v == 1 && t.run == nil && t.status&statusDriverOK == 0:
		q.ready = true
	}
	return nil
}

// open makes the queue of r that q describes.
func (t *Transport) open(q *vring, index uint16, r *run) (*queue.Queue, error) {
	if q.num == 0 || q.num > uint32(q.max) {
		return nil, fmt.Errorf("size %d, at most %d: %w", q.num, q.max, queue.ErrBadRing)
	}
	if err := q.connect(t.lines, index); err != nil {
		return nil, err
	}
	kick, err := queue.OpenKick(q.event)
	if err != nil {
		return nil, err
	}
	c := queue.Config{Size: uint16(q.num), Desc: q.desc, Driver: q.driver, Device: q.device,
		EventIdx:  t.features&(1<<virtio.RingFEventIdx) != 0,
		Indirect:  t.features&(1<<virtio.RingFIndirectDesc) != 0,
		Next:      q.next,
		Kick:      kick,
		Interrupt: func() { r.interrupt(t) },
	}
	opened, err := queue.New(t.mem, c)
	if err != nil {
		kick.Close() //nolint:errcheck // an eventfd
		return nil, err
	}
	return opened, nil
}
