// Package mmio is the virtio-mmio transport: the registers through which a
// guest's driver finds, configures and resets one virtio device. Follows
// "Virtual I/O Device (VIRTIO) Version 1.2" (v1.2 §4.2 Virtio Over MMIO).
//
// The driver is hostile. It may access any register at any time, in any width,
// from all of its vCPUs at once; what it must not do (v1.2 §4.2.2.2) is ignored,
// or makes the device need a reset. No access blocks a vCPU for longer than
// resetPatience.
package mmio

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"runv/libvm/mem"
	"runv/libvm/virtio"
)

// resetPatience is how long a vCPU waits for the device to stop. Linux does not
// look whether its reset is done (v1.2 §2.4.2 has it read Status) before it
// reuses the memory of the queues, so we have the vCPU wait. But a request in
// flight may hang on something outside of the VM, and while a vCPU is here it can
// be neither paused nor interrupted. Afterwards the driver can see by Status that
// the reset is not done.
const resetPatience = time.Second

// errClosed is what happened to a device that is being removed.
var errClosed = errors.New("device removed")

// Lines are the wires between a device and its guest.
type Lines interface {
	// Notify has a 32-bit write of queue to QueueNotify signal the eventfd fd,
	// until Unnotify. With an error that is errors.ErrUnsupported such writes
	// come to Transport.Write, as all others do.
	Notify(queue uint16, fd int) error
	// Unnotify ends what Notify began; it comes before fd is closed.
	Unnotify(queue uint16, fd int) error
	// Interrupt raises the device's interrupt, as an edge. It must not block,
	// and is called from any goroutine.
	Interrupt() error
}

// Transport is a device's registers and what the driver has written to them.
// Its methods are safe for concurrent use.
type Transport struct {
	dev      virtio.Device
	mem      *mem.Memory
	lines    Lines
	offered  uint64         // feature bits
	pending  atomic.Uint32  // InterruptStatus
	live     atomic.Bool    // DRIVER_OK is set: the driver takes interrupts (v1.2 §2.1.2)
	lost     atomic.Value   // error of the first interrupt that could not be raised
	closing  chan struct{}  // closed by Close
	watchers sync.WaitGroup // one for each run

	mu         sync.Mutex // guards the fields below; not held while anything is waited for
	status     uint32
	deviceSel  uint32 // DeviceFeaturesSel
	driverSel  uint32 // DriverFeaturesSel
	features   uint64 // DriverFeatures
	queueSel   uint32
	queues     []vring
	config     []byte // configuration space when the driver last looked
	generation uint32 // of config
	run        *run   // nil while the device is stopped
	failure    error  // why the device last needed a reset
	closed     bool
	patience   time.Duration // resetPatience, but for tests
}

// New returns the transport of d, a device that is not started yet, for a guest
// with the memory m.
func New(d virtio.Device, m *mem.Memory, lines Lines) *Transport {
	t := &Transport{dev: d, mem: m, lines: lines, closing: make(chan struct{}), patience: resetPatience}
	t.offered = d.Features() | 1<<virtio.RingFIndirectDesc | 1<<virtio.RingFEventIdx | 1<<virtio.FVersion1
	for _, size := range d.QueueSizes() {
		t.queues = append(t.queues, vring{max: size, event: -1})
	}
	t.config = d.Config()
	if n, ok := d.(virtio.ConfigNotifier); ok {
		n.NotifyConfig(t.configChanged)
	}
	return t
}

// Err returns why the device last needed a reset, or why interrupts are lost;
// nil if neither ever happened. It is for the log: the guest can cause it.
func (t *Transport) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failure != nil {
		return t.failure
	}
	err, _ := t.lost.Load().(error)
	return err
}

// Close stops the device and waits until it does not use the guest's memory any
// more; the registers are dead from then on. It returns why the device had
// failed, if it had and was not reset since.
func (t *Transport) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		t.watchers.Wait()
		return nil
	}
	t.closed = true
	close(t.closing)
	var failure error
	if t.status&statusNeedsReset != 0 {
		failure = t.failure
	}
	if t.run != nil {
		t.run.stop(errClosed)
	}
	t.mu.Unlock()

	if n, ok := t.dev.(virtio.ConfigNotifier); ok {
		n.NotifyConfig(nil)
	}
	t.watchers.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	errs := []error{failure}
	for i := range t.queues {
		if err := t.queues[i].disconnect(t.lines, uint16(i)); err != nil {
			errs = append(errs, fmt.Errorf("queue %d: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// interrupt raises the interrupt for the reason bit. It is called from any
// goroutine, with locks of the device held, so it takes none.
func (t *Transport) interrupt(bit uint32) {
	t.pending.Or(bit)
	if err := t.lines.Interrupt(); err != nil {
		t.lost.CompareAndSwap(nil, interruptError{err})
	}
}

// interruptError gives atomic.Value the one type that it wants.
type interruptError struct{ error }

func (e interruptError) Unwrap() error { return e.error }

// configChanged is called by the device. The generation is not its concern: it
// changes when the driver looks (refresh).
func (t *Transport) configChanged() {
	if t.live.Load() {
		t.interrupt(intConfigChange)
	}
}
