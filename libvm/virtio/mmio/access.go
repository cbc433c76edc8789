package mmio

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"runv/libvm/virtio"
)

// Read answers a vCPU's load of len(p) bytes at byte offset off of the device's
// window. Registers are read by 32-bit loads, the configuration space in any
// width (v1.2 §4.2.2.2); whatever else there is reads as 0.
func (t *Transport) Read(off uint64, p []byte) {
	clear(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
	case off >= regConfig:
		t.refresh()
		if off -= regConfig; off < uint64(len(t.config)) {
			copy(p, t.config[off:])
		}
	case len(p) == regBytes:
		binary.LittleEndian.PutUint32(p, t.read(off))
	}
}

// read returns the register at off.
func (t *Transport) read(off uint64) uint32 {
	switch off {
	case regMagicValue:
		return magicValue
	case regVersion:
		return layoutVersion
	case regDeviceID:
		return uint32(t.dev.ID())
	case regVendorID:
		return vendorID
	case regDeviceFeatures:
		return word(t.offered, t.deviceSel)
	case regQueueNumMax:
		if q := t.queue(); q != nil {
			return uint32(q.max)
		}
	case regQueueReady:
		if q := t.queue(); q != nil && q.ready {
			return 1
		}
	case regInterruptStatus:
		return t.pending.Load()
	case regStatus:
		return t.status
	case regSHMLenLow, regSHMLenHigh, regSHMBaseLow, regSHMBaseHigh:
		return noRegion
	case regConfigGeneration:
		t.refresh()
		return t.generation
	}
	return 0
}

// word returns bits 32*i to 32*i+31 of v, or of the zeros behind.
func word(v uint64, i uint32) uint32 {
	if i > 1 {
		return 0
	}
	return uint32(v >> (32 * i))
}

// refresh looks at the configuration space. What a driver reads between two
// reads of the same generation is of one piece (v1.2 §2.5.3), whenever the
// device says that it has changed.
func (t *Transport) refresh() {
	if now := t.dev.Config(); !bytes.Equal(now, t.config) {
		t.config = now
		t.generation++
	}
}

// Write does a vCPU's store of p at byte offset off of the device's window. A
// reset waits until the device has stopped, but not longer than resetPatience.
func (t *Transport) Write(off uint64, p []byte) {
	t.mu.Lock()
	var r *run
	switch {
	case t.closed:
	case off >= regConfig:
		t.writeConfig(off-regConfig, p)
	case len(p) == regBytes:
		r = t.write(off, binary.LittleEndian.Uint32(p))
	}
	t.mu.Unlock()
	if r != nil {
		t.await(r)
	}
}

// write writes v to the register at off. The run that it returns has to end
// before the driver goes on.
func (t *Transport) write(off uint64, v uint32) *run {
	switch off {
	case regStatus:
		return t.setStatus(v)
	case regInterruptACK:
		t.pending.And(^v)
	case regQueueNotify:
		t.notify(v)
	case regDeviceFeaturesSel:
		t.deviceSel = v
	case regDriverFeaturesSel:
		t.driverSel = v
	case regQueueSel:
		t.queueSel = v
	case regDriverFeatures:
		t.setFeatures(v)
	case regQueueReady:
		return t.setReady(v)
	default:
		t.place(off, v)
	}
	return nil
}

// setFeatures takes 32 feature bits of the driver, until it has set FEATURES_OK
// (v1.2 §3.1.1, step 4).
func (t *Transport) setFeatures(v uint32) {
	if t.driverSel > 1 || t.status&statusFeaturesOK != 0 {
		return
	}
	shift := 32 * t.driverSel
	t.features = t.features&^(0xffffffff<<shift) | uint64(v)<<shift
}

// writeConfig stores p in the configuration space of a device that lets the
// driver write there, if it has so much.
func (t *Transport) writeConfig(off uint64, p []byte) {
	w, ok := t.dev.(virtio.ConfigWriter)
	if !ok || t.status&statusDriver == 0 || t.status&statusNeedsReset != 0 {
		return
	}
	if size := uint64(len(t.dev.Config())); off >= size || uint64(len(p)) > size-off {
		return
	}
	if err := w.WriteConfig(uint32(off), p); err != nil {
		err = fmt.Errorf("write %d bytes of configuration at %#x: %w", len(p), off, err)
		if t.run != nil {
			t.run.stop(err)
			return
		}
		t.needReset(err)
	}
}
