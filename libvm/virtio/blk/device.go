// Package blk is the block device, in front of a disk or a file of the host.
// Follows "Virtual I/O Device (VIRTIO) Version 1.2" (v1.2 §5.2 Block Device).
package blk

import (
	"encoding/binary"
	"fmt"
	"sync"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
)

const (
	// queueSize is the largest size of the queue, in descriptors: a request of
	// segMax parts takes one, as drivers use indirect ones.
	queueSize = 256
	// segMax and sizeMax bound the parts of a request, and so, since descriptors
	// may overlap, the host's work for one: 4 MiB.
	segMax  = 64
	sizeMax = 64 << 10 // bytes
	maxData = segMax * sizeMax
	// maxRange bounds one range of DISCARD and WRITE_ZEROES, in sectors: 1 GiB.
	maxRange = 1 << 21
	// maxInFlight is how many requests may be in the host's kernel at once.
	maxInFlight = 32
)

// Device is a virtio-blk device.
type Device struct {
	disk    *Disk
	workers virtio.Workers
}

var _ virtio.Device = (*Device)(nil)

// New returns a device for a disk, which stays the caller's and must outlive it.
func New(d *Disk) *Device { return &Device{disk: d} }

// ID returns the device type.
func (d *Device) ID() virtio.ID { return virtio.IDBlock }

// Features returns what the disk can do (v1.2 §5.2.3).
func (d *Device) Features() uint64 {
	f := uint64(1<<VIRTIO_BLK_F_SIZE_MAX | 1<<VIRTIO_BLK_F_SEG_MAX | 1<<VIRTIO_BLK_F_BLK_SIZE |
		1<<VIRTIO_BLK_F_FLUSH | 1<<VIRTIO_BLK_F_TOPOLOGY)
	if d.disk.ReadOnly {
		return f | 1<<VIRTIO_BLK_F_RO
	}
	return f | 1<<VIRTIO_BLK_F_DISCARD | 1<<VIRTIO_BLK_F_WRITE_ZEROES
}

// QueueSizes returns the one request queue (v1.2 §5.2.2).
func (d *Device) QueueSizes() []uint16 { return []uint16{queueSize} }

// Config returns the disk's size and what it likes (v1.2 §5.2.4).
func (d *Device) Config() []byte {
	c := make([]byte, configBytes)
	le := binary.LittleEndian
	le.PutUint64(c[offCapacity:], d.disk.sectors())
	le.PutUint32(c[offSizeMax:], sizeMax)
	le.PutUint32(c[offSegMax:], segMax)
	le.PutUint32(c[offBlkSize:], d.disk.BlockSize)
	c[offPhysicalBlockExp] = d.disk.physicalExp()
	le.PutUint16(c[offMinIOSize:], 1<<c[offPhysicalBlockExp])
	le.PutUint32(c[offOptIOSize:], 0)
	le.PutUint16(c[offNumQueues:], 1)
	align := d.disk.BlockSize / sectorBytes
	le.PutUint32(c[offMaxDiscard:], maxRange)
	le.PutUint32(c[offMaxDiscardSeg:], 1)
	le.PutUint32(c[offDiscardAlign:], align)
	le.PutUint32(c[offMaxZeroes:], maxRange)
	le.PutUint32(c[offMaxZeroesSeg:], 1)
	c[offZeroesMayUnmap] = 1
	return c
}

// Start begins to serve requests.
func (d *Device) Start(_ uint64, queues []*queue.Queue) error {
	d.workers.Serve(queues, func(_ int, q *queue.Queue) error { return d.serve(q) })
	return nil
}

// Wait waits until the queue was closed and every request has ended, or the
// driver broke the queue.
func (d *Device) Wait() error { return d.workers.Wait() }

// serve takes requests, which then run side by side: each waits in a system call.
func (d *Device) serve(q *queue.Queue) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, maxInFlight)
	for {
		c, err := q.Take()
		if err != nil {
			return err
		}
		r, err := parse(c)
		if err != nil {
			return err
		}
		room <- struct{}{}
		wg.Go(func() {
			q.Used(c, d.do(r))
			<-room
		})
	}
}

// request is a chain, taken apart. Its slices are guest memory.
type request struct {
	header
	out    [][]byte // what the driver wrote, behind the header
	in     [][]byte // where the answer goes, without the status
	status []byte   // one byte
	nOut   int      // bytes
	nIn    int
}

// parse takes a chain apart. How it is cut into descriptors means nothing
// (v1.2 §2.7.4.2). One without a header or a status byte cannot be answered.
func parse(c *queue.Chain) (*request, error) {
	r := &request{nOut: c.ReadableLen() - reqHeaderBytes, nIn: c.WritableLen() - 1}
	if r.nOut < 0 || r.nIn < 0 {
		return nil, fmt.Errorf("block request of %d readable and %d writable bytes: %w", c.ReadableLen(), c.WritableLen(), queue.ErrBadRing)
	}
	var h [reqHeaderBytes]byte
	r.out = cut(h[:], c.Readable)
	r.header = parseHeader(&h)
	last := c.Writable[len(c.Writable)-1] // no part is empty
	r.status = last[len(last)-1:]
	r.in = append(r.in, c.Writable...)
	r.in[len(r.in)-1] = last[:len(last)-1]
	return r, nil
}

// cut copies the start of parts into b and returns what is behind it.
func cut(b []byte, parts [][]byte) [][]byte {
	for len(b) > 0 && len(parts) > 0 {
		n := copy(b, parts[0])
		b = b[n:]
		if n < len(parts[0]) {
			return append([][]byte{parts[0][n:]}, parts[1:]...)
		}
		parts = parts[1:]
	}
	return parts
}

// do serves a request and returns how many bytes it wrote for the driver.
func (d *Device) do(r *request) uint32 {
	var n uint32
	status := byte(VIRTIO_BLK_S_UNSUPP)
	switch r.kind {
	case VIRTIO_BLK_T_IN:
		n, status = d.read(r)
	case VIRTIO_BLK_T_OUT:
		status = d.write(r)
	case VIRTIO_BLK_T_FLUSH:
		status = statusOf(d.disk.flush())
	case VIRTIO_BLK_T_GET_ID:
		n, status = d.id(r)
	case VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES:
		status = d.zero(r)
	}
	r.status[0] = status
	return n + 1
}

// within says whether n bytes at a sector are data of the disk, in whole blocks.
func (d *Device) within(sector uint64, n int) bool {
	block := uint64(d.disk.BlockSize)
	sectors := uint64(n) / sectorBytes
	return n > 0 && n <= maxData && uint64(n)%block == 0 && sector%(block/sectorBytes) == 0 &&
		sector <= d.disk.sectors() && sectors <= d.disk.sectors()-sector
}

func (d *Device) read(r *request) (uint32, byte) {
	if r.nOut != 0 || !d.within(r.sector, r.nIn) {
		return 0, VIRTIO_BLK_S_IOERR
	}
	if err := d.disk.transfer(false, r.in, int64(r.sector)*sectorBytes); err != nil {
		return 0, statusOf(err)
	}
	return uint32(r.nIn), VIRTIO_BLK_S_OK
}

func (d *Device) write(r *request) byte {
	if d.disk.ReadOnly || r.nIn != 0 || !d.within(r.sector, r.nOut) {
		return VIRTIO_BLK_S_IOERR
	}
	return statusOf(d.disk.transfer(true, r.out, int64(r.sector)*sectorBytes))
}

func (d *Device) id(r *request) (uint32, byte) {
	var id [idBytes]byte
	copy(id[:], d.disk.Serial)
	if r.nIn < len(id) {
		return 0, VIRTIO_BLK_S_IOERR
	}
	b := id[:]
	for _, p := range r.in {
		b = b[copy(p, b):]
	}
	return idBytes, VIRTIO_BLK_S_OK
}

// zero serves one range, as the configuration says.
func (d *Device) zero(r *request) byte {
	if d.disk.ReadOnly || r.nIn != 0 || r.nOut != rangeBytes {
		return VIRTIO_BLK_S_IOERR
	}
	var b [rangeBytes]byte
	cut(b[:], r.out)
	e := parseExtent(&b)
	known := uint32(0)
	if r.kind == VIRTIO_BLK_T_WRITE_ZEROES {
		known = rangeFlagUnmap
	}
	switch {
	case e.flags&^known != 0:
		return VIRTIO_BLK_S_UNSUPP // (v1.2 §5.2.6.2)
	case e.sectors == 0 || e.sectors > maxRange || uint64(e.sectors)*sectorBytes%uint64(d.disk.BlockSize) != 0,
		e.sector > d.disk.sectors() || uint64(e.sectors) > d.disk.sectors()-e.sector:
		return VIRTIO_BLK_S_IOERR
	}
	unmap := r.kind == VIRTIO_BLK_T_DISCARD || e.flags&rangeFlagUnmap != 0
	return statusOf(d.disk.zero(unmap, int64(e.sector)*sectorBytes, int64(e.sectors)*sectorBytes))
}
