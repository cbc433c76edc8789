package mmio

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
)

// The life of a device, by Status (v1.2 §3.1.1, §2.1, §2.4):
//
//	0 ─► ACKNOWLEDGE ─► DRIVER ─► FEATURES_OK ─► DRIVER_OK: start ─► run
//	▲                                               │ bad queue       │ device failed, queue taken away
//	│                                               ▼                 ▼
//	├───────────────── 0 written ───────────── DEVICE_NEEDS_RESET ◄───┤
//	└── the run has ended ◄── stopping (Status as it was) ◄───────────┘ 0 written
//
// While a run is stopping nothing starts, and only another reset is heard.

// run is the device between Start and the end of Wait.
type run struct {
	queues []*queue.Queue // as Start got them
	silent atomic.Bool    // it is stopping: no interrupts
	done   chan struct{}  // closed when the device has stopped, and the registers show it

	// The transport's mu guards these.
	stopping bool
	cause    error // why it is stopped
}

// errReset is a run's cause when the driver has reset the device.
var errReset = errors.New("driver reset the device")

// errEnded is the failure of a device that ended and does not say why.
var errEnded = errors.New("device ended by itself")

// setStatus does what a write of v to Status asks for. Bits are never taken
// back but by a reset (v1.2 §2.1.1).
func (t *Transport) setStatus(v uint32) *run {
	if v == 0 {
		return t.reset()
	}
	if t.run != nil && t.run.stopping {
		return nil
	}
	added := v & statusOfDriver &^ t.status
	if added&statusFeaturesOK != 0 && !t.acceptable() {
		added &^= statusFeaturesOK // the driver looks whether it stays (v1.2 §3.1.1, step 6)
	}
	if (t.status|added)&statusFeaturesOK == 0 || t.status&(statusNeedsReset|statusFailed) != 0 {
		added &^= statusDriverOK
	}
	t.status |= added
	if added&statusDriverOK == 0 {
		return nil
	}
	t.live.Store(true)
	if err := t.start(); err != nil {
		t.needReset(err)
	}
	return nil
}

// acceptable says whether the driver's features were offered, and are enough:
// there is no legacy interface.
func (t *Transport) acceptable() bool {
	return t.features&^t.offered == 0 && t.features&(1<<virtio.FVersion1) != 0
}

// reset stops the device; the run that it returns, if any, has to end first.
func (t *Transport) reset() *run {
	if t.run == nil {
		t.clear()
		return nil
	}
	t.run.stop(errReset)
	t.run.cause = errReset // even of a device that is stopping for something else
	return t.run
}

// clear is the state after a reset (v1.2 §4.2.2.1): all that the driver wrote is
// forgotten. The device is stopped, so that nothing interrupts.
func (t *Transport) clear() {
	t.live.Store(false)
	t.status, t.features = 0, 0
	t.deviceSel, t.driverSel, t.queueSel = 0, 0, 0
	for i := range t.queues {
		t.queues[i].reset()
	}
	t.pending.Store(0)
}

// needReset tells the driver that the device has failed (v1.2 §2.1.2).
func (t *Transport) needReset(err error) {
	t.failure = err
	t.status |= statusNeedsReset
	if t.live.Load() {
		t.interrupt(intConfigChange)
	}
}

// start starts the device with the queues that are ready.
func (t *Transport) start() error {
	r := &run{queues: make([]*queue.Queue, len(t.queues)), done: make(chan struct{})}
	for i := range t.queues {
		if !t.queues[i].ready {
			continue
		}
		q, err := t.open(&t.queues[i], uint16(i), r)
		if err != nil {
			r.close()
			return fmt.Errorf("queue %d: %w", i, err)
		}
		r.queues[i] = q
	}
	if err := t.dev.Start(t.features, r.queues); err != nil {
		r.close()
		return fmt.Errorf("start device: %w", err)
	}
	t.run = r
	t.watchers.Go(func() { t.watch(r) })
	return nil
}

// watch waits until the device has ended, because r was stopped or because it
// failed, and brings the registers up to date.
func (t *Transport) watch(r *run) {
	err := t.dev.Wait()
	r.silent.Store(true)
	t.mu.Lock()
	t.run = nil
	for i := range t.queues {
		t.queues[i].ready = false
	}
	switch {
	case t.closed:
	case errors.Is(r.cause, errReset):
		t.clear()
	case r.cause != nil:
		t.needReset(r.cause)
	case err != nil:
		t.needReset(fmt.Errorf("device failed: %w", err))
	default:
		t.needReset(errEnded)
	}
	t.mu.Unlock()
	close(r.done)
}

// await waits for r's end, with patience.
func (t *Transport) await(r *run) {
	timer := time.NewTimer(t.patience)
	defer timer.Stop()
	select {
	case <-r.done:
	case <-timer.C:
	case <-t.closing:
	}
}

// interrupt tells the driver of a used buffer.
func (r *run) interrupt(t *Transport) {
	if !r.silent.Load() {
		t.interrupt(intUsedBuffer)
	}
}

// stop begins to end the device, for the reason cause.
func (r *run) stop(cause error) {
	if r.stopping {
		return
	}
	r.stopping, r.cause = true, cause
	r.silent.Store(true)
	r.close()
}

// close closes the queues.
func (r *run) close() {
	for _, q := range r.queues {
		if q != nil {
			q.Close()
		}
	}
}
