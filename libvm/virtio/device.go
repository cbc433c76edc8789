// Package virtio is the device model: what a virtio device is, whatever carries
// it. A device knows its queues and its configuration bytes; it knows neither
// the transport (virtio-mmio under our VMM, vhost-user under QEMU) nor the
// hypervisor. Follows "Virtual I/O Device (VIRTIO) Version 1.2".
package virtio

import "runv/libvm/virtio/queue"

// ID is a device type (v1.2 §5 Device Types).
type ID uint32

// Device types that runv has.
const (
	IDNet     ID = 1
	IDBlock   ID = 2
	IDConsole ID = 3
	IDRNG     ID = 4
	IDBalloon ID = 5
	IDVsock   ID = 19
	IDFS      ID = 26
)

// Feature bits that belong to the transport and the rings, not to a device
// (v1.2 §6 Reserved Feature Bits). A transport offers them itself.
const (
	RingFIndirectDesc = 28
	RingFEventIdx     = 29
	FVersion1         = 32
	FAccessPlatform   = 33
)

// Device is one virtio device.
//
// A transport calls Start when the driver has set DRIVER_OK, with the features
// that were negotiated (device and ring bits, as bit mask) and one queue for
// each entry of QueueSizes, in that order; a queue that the driver did not set
// up is nil. Start must not block; it may start goroutines that serve the
// queues. A device first takes what Next has, and then waits: the driver may
// have notified before Start.
//
// The transport calls Wait once after each successful Start, at once and from a
// goroutine of its own. A device that fails by itself, because the driver broke
// a queue, closes all of its queues, so that Wait returns (Workers does that).
// To reset or remove the device the transport closes the queues
// (queue.Queue.Close): the device ends the requests that are in flight, gives
// their chains back, and Wait returns. Then it may be started again.
type Device interface {
	// ID returns the device type.
	ID() ID
	// Features returns the device's own feature bits, as a bit mask; bits of
	// the transport and the rings are not its concern.
	Features() uint64
	// QueueSizes returns the largest size, in descriptors, of each queue.
	QueueSizes() []uint16
	// Config returns a copy of the device-specific configuration space, in
	// bytes, little-endian (empty if the device has none).
	Config() []byte
	// Start begins to serve the queues. When it fails it has closed nothing and
	// left no goroutine.
	Start(features uint64, queues []*queue.Queue) error
	// Wait blocks until everything that Start began has ended, and returns why,
	// if that was not just the closing of the queues: a guest that broke the
	// protocol is such an error, and the transport sets DEVICE_NEEDS_RESET.
	Wait() error
}

// ConfigWriter is a Device whose configuration space the driver may write.
type ConfigWriter interface {
	// WriteConfig stores p at byte offset off of the configuration space.
	WriteConfig(off uint32, p []byte) error
}

// ConfigNotifier is a Device whose configuration space changes by itself.
type ConfigNotifier interface {
	// NotifyConfig has the device call changed, from any goroutine, whenever
	// its configuration space has changed; nil ends that. changed must not
	// block.
	NotifyConfig(changed func())
}

// Multiqueue is a Device that runs without some of its queues, and of which the
// driver may set up more while it runs. A transport that hears of single queues
// restarts it then.
type Multiqueue interface {
	// Optional says whether the device runs without queue i.
	Optional(i int) bool
}
