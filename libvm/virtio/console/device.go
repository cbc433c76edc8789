// Package console is the console device, with one port. Follows "Virtual I/O
// Device (VIRTIO) Version 1.2" (v1.2 §5.3 Console Device).
//
//	In ── read ──▶ chunk ── receiveq ──▶ guest
//	Out ◀── write ── chunk ◀── transmitq ── guest
//
// One goroutine reads In and one writes Out, for as long as the Device is; one
// serves each queue, for as long as the driver is. A chunk is all that is held
// between two of them: a guest that floods its console waits for Out, and a
// guest that does not read leaves the bytes in In.
package console

import (
	"encoding/binary"
	"io"
	"sync"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
)

// VIRTIO_CONSOLE_F_SIZE says that the configuration space has the size (v1.2 §5.3.3).
const VIRTIO_CONSOLE_F_SIZE = 0

// The queues of a console with one port (v1.2 §5.3.2).
const (
	receiveq  = 0 // bytes for the guest
	transmitq = 1 // bytes of the guest
)

// queueSize is the largest queue, in descriptors.
const queueSize = 64

// configBytes is the size of struct virtio_console_config (v1.2 §5.3.4): cols
// u16, rows u16, max_nr_ports u32, emerg_wr u32. The last two are 0: their
// features are not offered.
const configBytes = 12

// maxChunk is how many bytes are moved at a time. Descriptors of one chain may
// overlap, so that a chain may have more bytes than the guest has memory: they
// are not taken as a whole.
const maxChunk = 4096

// Options says what a console is connected to.
type Options struct {
	In   io.Reader // what the guest reads; nil: nothing
	Out  io.Writer // what it writes goes here; nil: nowhere
	Cols uint16    // width in characters; 0: not known
	Rows uint16    // height in characters
}

// Device is a console.
type Device struct {
	input   chan []byte // chunks for the guest
	output  chan []byte // chunks of the guest; nil without Out
	closed  chan struct{}
	close   sync.Once
	pumps   sync.WaitGroup
	workers virtio.Workers

	rest []byte // of a chunk that a driver has not taken wholly; receiveq's

	mu         sync.Mutex
	cols, rows uint16
	changed    func()
}

var (
	_ virtio.Device         = (*Device)(nil)
	_ virtio.ConfigNotifier = (*Device)(nil)
)

// New returns a console that reads and writes as o says, until Close. An error
// of In ends the input, an error of Out has all later output dropped; the guest
// does not notice.
func New(o Options) *Device {
	d := &Device{input: make(chan []byte), closed: make(chan struct{}), cols: o.Cols, rows: o.Rows}
	if o.In != nil {
		d.pumps.Go(func() { d.read(o.In) })
	}
	if o.Out != nil {
		d.output = make(chan []byte)
		d.pumps.Go(func() { d.write(o.Out) })
	}
	return d
}

// Close ends the use of In and Out. It waits for a Read or a Write in progress,
// so that no output is cut off; whoever made In and Out ends these first, if
// they may block for ever. The device itself is stopped by its transport.
func (d *Device) Close() {
	d.close.Do(func() { close(d.closed) })
	d.pumps.Wait()
}

// read moves chunks from in to the receiveq until in ends or Close.
func (d *Device) read(in io.Reader) {
	for {
		b := make([]byte, maxChunk)
		n, err := in.Read(b)
		if n > 0 {
			select {
			case d.input <- b[:n]:
			case <-d.closed:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// write moves chunks from the transmitq to out until Close.
func (d *Device) write(out io.Writer) {
	broken := false
	for {
		select {
		case b := <-d.output:
			if !broken {
				_, err := out.Write(b)
				broken = err != nil
			}
		case <-d.closed:
			return
		}
	}
}

// ID returns the device type.
func (d *Device) ID() virtio.ID { return virtio.IDConsole }

// Features returns VIRTIO_CONSOLE_F_SIZE.
func (d *Device) Features() uint64 { return 1 << VIRTIO_CONSOLE_F_SIZE }

// QueueSizes returns the receiveq and the transmitq of port 0.
func (d *Device) QueueSizes() []uint16 { return []uint16{receiveq: queueSize, transmitq: queueSize} }

// Config returns the size, in characters.
func (d *Device) Config() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := make([]byte, configBytes)
	binary.LittleEndian.PutUint16(b[0:], d.cols)
	binary.LittleEndian.PutUint16(b[2:], d.rows)
	return b
}

// NotifyConfig has changed called after each Resize.
func (d *Device) NotifyConfig(changed func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed = changed
}

// Resize tells the guest a new size, in characters.
func (d *Device) Resize(cols, rows uint16) {
	d.mu.Lock()
	d.cols, d.rows = cols, rows
	changed := d.changed
	d.mu.Unlock()
	if changed != nil {
		changed()
	}
}

// Start begins to serve the queues.
func (d *Device) Start(_ uint64, queues []*queue.Queue) error {
	d.workers.Serve(queues, func(i int, q *queue.Queue) error {
		if i == receiveq {
			return d.receive(q)
		}
		return d.transmit(q)
	})
	return nil
}

// Wait waits until the queues were closed, or the driver broke one.
func (d *Device) Wait() error { return d.workers.Wait() }

// receive gives input to the guest. It takes no buffer of the driver before
// there is something to put into it, and keeps what a driver that goes away has
// not taken for the next one.
func (d *Device) receive(q *queue.Queue) error {
	for {
		if len(d.rest) == 0 {
			select {
			case d.rest = <-d.input:
			case <-q.Done():
				return queue.ErrClosed
			}
		}
		c, err := q.Take()
		if err != nil {
			return err
		}
		n := 0
		for _, w := range c.Writable {
			k := copy(w, d.rest)
			d.rest = d.rest[k:]
			n += k
		}
		q.Used(c, uint32(n))
	}
}

// transmit takes the guest's output.
func (d *Device) transmit(q *queue.Queue) error {
	for {
		c, err := q.Take()
		if err != nil {
			return err
		}
		for _, r := range c.Readable {
			if err := d.print(q, r); err != nil {
				return err
			}
		}
		q.Used(c, 0)
	}
}

// print hands guest memory r to the writer, and waits while that is busy.
func (d *Device) print(q *queue.Queue, r []byte) error {
	if d.output == nil {
		return nil
	}
	for len(r) > 0 {
		b := append([]byte(nil), r[:min(len(r), maxChunk)]...)
		r = r[len(b):]
		select {
		case d.output <- b:
		case <-d.closed:
			return nil // nobody listens any more
		case <-q.Done():
			return queue.ErrClosed
		}
	}
	return nil
}
