// Package fs is the file system device: FUSE over virtqueues, in front of a file
// server (package passthrough). Follows "Virtual I/O Device (VIRTIO) Version
// 1.2" (v1.2 §5.11 File System Device) and linux/fuse.h.
package fs

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
)

// Layout of struct virtio_fs_config (v1.2 §5.11.4): tag char[36],
// num_request_queues le32.
const (
	tagBytes    = 36
	configBytes = tagBytes + 4
)

// queueSize is the largest size of each queue, in descriptors. A READ or WRITE
// of 1 MiB takes up to 256 of them for its pages, and a few more.
const queueSize = 1024

// maxWorkers is how many requests of one queue may be blocked in the host's
// kernel at once. Beyond that the queue waits: a guest with a thousand readers
// of a dead network mount must not cost a thousand threads.
const maxWorkers = 64

// Server is the file server behind a Device.
type Server interface {
	fuse.RawFileSystem
	// MountOptions returns what is negotiated with the guest.
	MountOptions() *fuse.MountOptions
	// Reset forgets the guest: it was reset, or it unmounted the file system.
	Reset()
	// SyncFS writes everything back.
	SyncFS() error
}

// Device is a virtio-fs device.
type Device struct {
	config   [configBytes]byte
	queues   []uint16
	server   Server
	workers  virtio.Workers
	parallel int // requests served at once while there are more

	mu      sync.RWMutex // held for reading by each request, for writing by INIT and DESTROY
	session *session
}

var _ virtio.Device = (*Device)(nil)

// New returns a device with the given tag (1 to 36 bytes), by which the guest
// mounts it, and the given number of request queues (1 to 64).
func New(tag string, requestQueues int, server Server) (*Device, error) {
	if len(tag) == 0 || len(tag) > tagBytes {
		return nil, fmt.Errorf("virtio-fs tag %q: not 1 to %d bytes", tag, tagBytes)
	}
	if requestQueues < 1 || requestQueues > 64 {
		return nil, fmt.Errorf("virtio-fs device %q: %d request queues", tag, requestQueues)
	}
	d := &Device{server: server, parallel: runtime.GOMAXPROCS(0)}
	copy(d.config[:], tag)
	binary.LittleEndian.PutUint32(d.config[tagBytes:], uint32(requestQueues))
	for range requestQueues + 1 { // hiprio is the first (v1.2 §5.11.2)
		d.queues = append(d.queues, queueSize)
	}
	return d, nil
}

// ID returns the device type.
func (d *Device) ID() virtio.ID { return virtio.IDFS }

// Features returns none: there is no notification queue (v1.2 §5.11.3).
func (d *Device) Features() uint64 { return 0 }

// QueueSizes returns hiprio and the request queues (v1.2 §5.11.2).
func (d *Device) QueueSizes() []uint16 { return d.queues }

// Config returns the tag and the number of request queues (v1.2 §5.11.4).
func (d *Device) Config() []byte { return append([]byte(nil), d.config[:]...) }

// Start begins to serve a guest that has not yet mounted the file system.
func (d *Device) Start(_ uint64, queues []*queue.Queue) error {
	d.reset()
	d.workers.Serve(queues, func(i int, q *queue.Queue) error {
		if i == hiprio {
			return d.serveHiprio(q)
		}
		if d.parallel > 1 { // a thread that waits keeps others from a processor for a while
			if err := q.Dedicate(); err != nil {
				return err
			}
		}
		p := pool{device: d, queue: q}
		return p.run()
	})
	return nil
}

// Wait waits until the queues were closed and every request in progress has been
// answered, or the driver broke a queue.
func (d *Device) Wait() error {
	err := d.workers.Wait()
	d.reset()
	return err
}

func (d *Device) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.session = nil
	d.server.Reset()
}
