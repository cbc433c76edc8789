package mmio

import (
	"errors"
	"fmt"

	"runv/libvm/mem"
)

// State is what a transport knows of its driver: the registers, and how far each
// queue has come. What the device itself holds (connections, open files) is not
// in it.
type State struct {
	Status          uint32
	InterruptStatus uint32
	DeviceSel       uint32 // DeviceFeaturesSel
	DriverSel       uint32 // DriverFeaturesSel
	Features        uint64 // DriverFeatures
	QueueSel        uint32
	Generation      uint32 // ConfigGeneration
	Config          []byte // configuration space when the driver last looked
	Queues          []QueueState
}

// QueueState is the state of one queue.
type QueueState struct {
	Size   uint32 // QueueNum, descriptors
	Ready  bool
	Desc   mem.GPA // descriptor table
	Driver mem.GPA // available ring
	Device mem.GPA // used ring
	Next   uint16  // index of the first available entry that is not served yet
}

// ErrBusy is why the state of a device cannot be taken yet: a request is in flight,
// or the device is being reset.
var ErrBusy = errors.New("device is busy")

// State returns the state of the transport, of which no vCPU writes a register
// meanwhile. The device keeps running, so that only a guest that does not run
// leaves it as it is. ErrBusy until the device has served what it took.
func (t *Transport) State() (State, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return State{}, errClosed
	}
	if t.run != nil && t.run.stopping {
		return State{}, ErrBusy
	}
	s := State{
		Status: t.status, InterruptStatus: t.pending.Load(), DeviceSel: t.deviceSel, DriverSel: t.driverSel,
		Features: t.features, QueueSel: t.queueSel, Generation: t.generation, Config: t.config,
	}
	for i := range t.queues {
		q := &t.queues[i]
		qs := QueueState{Size: q.num, Ready: q.ready, Desc: q.desc, Driver: q.driver, Device: q.device}
		if t.run != nil && t.run.queues[i] != nil {
			if t.run.queues[i].InFlight() != 0 {
				return State{}, ErrBusy
			}
			qs.Next = t.run.queues[i].NextIndex()
		}
		s.Queues = append(s.Queues, qs)
	}
	return s, nil
}

// SetState gives a transport whose driver has not begun yet the state of another,
// of the same kind of device, and starts the device if it ran there. The guest's
// memory is the caller's concern. It fails and changes nothing where the state
// does not fit.
func (t *Transport) SetState(s State) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return errClosed
	case t.run != nil || t.status != 0:
		return errors.New("the device is in use")
	case len(s.Queues) != len(t.queues):
		return fmt.Errorf("state of %d queues for a device of %d", len(s.Queues), len(t.queues))
	case s.Features&^t.offered != 0:
		return fmt.Errorf("features %#x are not offered", s.Features&^t.offered)
	}
	t.status, t.features = s.Status&(statusOfDriver|statusNeedsReset), s.Features
	t.deviceSel, t.driverSel, t.queueSel = s.DeviceSel, s.DriverSel, s.QueueSel
	t.generation, t.config = s.Generation, s.Config
	t.pending.Store(s.InterruptStatus)
	for i, q := range s.Queues {
		v := &t.queues[i]
		v.num, v.ready, v.desc, v.driver, v.device, v.next = q.Size, q.Ready, q.Desc, q.Driver, q.Device, q.Next
	}
	if t.status&statusDriverOK == 0 || t.status&statusNeedsReset != 0 {
		return nil
	}
	t.live.Store(true)
	err := t.start()
	for i := range t.queues {
		t.queues[i].next = 0 // the driver's next start begins anew
	}
	if err != nil {
		t.clear()
		return fmt.Errorf("start the device as it was: %w", err)
	}
	return nil
}
