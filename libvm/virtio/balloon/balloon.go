// Package balloon is the device by which a guest gives free memory back to the
// host. Of the balloon it has free page reporting only: nobody inflates it.
// Follows "Virtual I/O Device (VIRTIO) Version 1.2" (v1.2 §5.5 Traditional Memory
// Balloon Device, §5.5.6.7 Free Page Reporting).
package balloon

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
)

// fReporting is VIRTIO_BALLOON_F_PAGE_REPORTING (v1.2 §5.5.3).
const fReporting = 5

// The queues. Linux counts those that there are, as QEMU does, where the text
// (v1.2 §5.5.2) gives reporting_vq the number 4 in any case.
const (
	inflateQueue = iota
	deflateQueue
	reportingQueue
	queues

	queueSize = 128 // descriptors; Linux reports 32 ranges at a time
)

// configBytes is the size of struct virtio_balloon_config (v1.2 §5.5.4): num_pages
// and actual, both 0 for ever, and two fields of features that are not offered.
const configBytes = 16

// Device takes reports of free pages.
type Device struct {
	workers virtio.Workers
	discard func([]byte) error
}

var _ virtio.Device = (*Device)(nil)

// New returns a device for a guest whose memory is a mapping of a file that the
// host keeps in memory (memfd, MAP_SHARED).
func New() *Device { return &Device{discard: discard} }

// ID returns the device type.
func (d *Device) ID() virtio.ID { return virtio.IDBalloon }

// Features returns free page reporting.
func (d *Device) Features() uint64 { return 1 << fReporting }

// QueueSizes returns those of the three queues.
func (d *Device) QueueSizes() []uint16 { return []uint16{queueSize, queueSize, queueSize} }

// Config returns an empty balloon.
func (d *Device) Config() []byte { return make([]byte, configBytes) }

// Start begins to take reports.
func (d *Device) Start(features uint64, qs []*queue.Queue) error {
	d.workers.Serve(qs, func(i int, q *queue.Queue) error {
		report := i == reportingQueue && features&(1<<fReporting) != 0
		return d.serve(q, report)
	})
	return nil
}

// Wait waits until the queues were closed, or the driver broke one.
func (d *Device) Wait() error { return d.workers.Wait() }

// serve gives chains back, those of reports when their pages are free on the host,
// too. What the others would say, pages that a driver puts into the balloon unasked,
// changes nothing: they stay the guest's.
func (d *Device) serve(q *queue.Queue, report bool) error {
	for {
		c, err := q.Take()
		if err != nil {
			return err
		}
		if report {
			for _, pages := range c.Writable {
				d.free(pages)
			}
		}
		q.Used(c, 0)
	}
}

// free gives the whole pages of a range back to the host. They read as zeros then,
// whatever the guest had in them: what it reports by mistake is its own loss. That
// the host does not take them is no error; they stay in use.
func (d *Device) free(pages []byte) {
	size := uintptr(os.Getpagesize())
	begin := uintptr(unsafe.Pointer(unsafe.SliceData(pages)))
	skip := -begin & (size - 1)
	if uintptr(len(pages)) < skip+size {
		return
	}
	n := (uintptr(len(pages)) - skip) &^ (size - 1)
	_ = d.discard(pages[skip : skip+n])
}

// discard makes a hole in the file that is mapped there.
func discard(pages []byte) error { return unix.Madvise(pages, unix.MADV_REMOVE) }
