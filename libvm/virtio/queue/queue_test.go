package queue_test

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"runv/libvm/mem"
	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
)

const patience = 10 * time.Second

func TestNewRefuses(t *testing.T) {
	ram := make([]byte, 1<<20)
	m, err := mem.New(mem.Region{GPA: 0, Host: ram})
	if err != nil {
		t.Fatal(err)
	}
	odd, err := mem.New(mem.Region{GPA: 0, Host: ram[1:]})
	if err != nil {
		t.Fatal(err)
	}
	ok := queue.Config{Size: 8, Desc: 0x1000, Driver: 0x2000, Device: 0x3000}
	tests := []struct {
		name   string
		mem    *mem.Memory
		change func(*queue.Config)
	}{
		{"size 0", m, func(c *queue.Config) { c.Size = 0 }},
		{"size not a power of two", m, func(c *queue.Config) { c.Size = 12 }},
		{"size too large", m, func(c *queue.Config) { c.Size = 65535 }},
		{"descriptor table misaligned", m, func(c *queue.Config) { c.Desc += 8 }},
		{"available ring misaligned", m, func(c *queue.Config) { c.Driver++ }},
		{"used ring misaligned", m, func(c *queue.Config) { c.Device += 2 }},
		{"descriptor table outside", m, func(c *queue.Config) { c.Desc = 1<<20 - 64 }},
		{"available ring outside", m, func(c *queue.Config) { c.Driver = 1<<20 - 16 }},
		{"used ring outside", m, func(c *queue.Config) { c.Device = 1 << 20 }},
		{"wraps the address space", m, func(c *queue.Config) { c.Desc = 1<<64 - 16 }},
		{"memory misaligned in this process", odd, func(*queue.Config) {}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := ok
			tt.change(&c)
			if _, err := queue.New(tt.mem, c); !errors.Is(err, queue.ErrBadRing) {
				t.Errorf("New: %v, want ErrBadRing", err)
			}
		})
	}
	if _, err := queue.New(m, ok); err != nil {
		t.Errorf("New of the valid config: %v", err)
	}
}

// TestAvailableRingAlignedToTwo has the shared fields in the upper halves of
// their words (v1.2 §2.7: the available ring is aligned to 2).
func TestAvailableRingAlignedToTwo(t *testing.T) {
	ram := make([]byte, 1<<20)
	m, err := mem.New(mem.Region{GPA: 0, Host: ram})
	if err != nil {
		t.Fatal(err)
	}
	irqs := 0
	q, err := queue.New(m, queue.Config{Size: 4, Desc: 0x1000, Driver: 0x2002, Device: 0x3000,
		EventIdx: true, Interrupt: func() { irqs++ }})
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	le.PutUint64(ram[0x1000+2*16:], 0x4000)
	le.PutUint32(ram[0x1000+2*16+8:], 10)
	le.PutUint16(ram[0x2002+4:], 2)    // ring[0]
	le.PutUint16(ram[0x2002+2:], 1)    // idx
	le.PutUint16(ram[0x2002+4+8:], 77) // used_event
	c, err := q.Next()
	if err != nil || c == nil || c.ReadableLen() != 10 {
		t.Fatalf("Next = %v, %v, want a chain of 10 bytes", c, err)
	}
	q.Used(c, 0)
	if irqs != 1 {
		t.Errorf("%d interrupts for the first buffer, want 1", irqs)
	}
	if got := le.Uint32(ram[0x3000+4:]); got != 2 {
		t.Errorf("used id %d, want 2", got)
	}
}

func TestChainsAreTaken(t *testing.T) {
	d := queuetest.New(t, 8, queue.Config{Indirect: true})
	parts := []queuetest.Buffer{{Data: []byte("head")}, {Data: []byte("body")}, {Data: make([]byte, 3), Write: true}, {Data: make([]byte, 5), Write: true}}
	for _, offer := range []func(...queuetest.Buffer) uint16{d.Offer, d.OfferIndirect} {
		head := offer(parts...)
		c := next(t, d)
		if got := string(c.Readable[0]) + string(c.Readable[1]); got != "headbody" || c.ReadableLen() != 8 || c.WritableLen() != 8 {
			t.Fatalf("chain reads %q, lengths %d and %d", got, c.ReadableLen(), c.WritableLen())
		}
		copy(c.Writable[0], "abc")
		copy(c.Writable[1], "de")
		d.Queue.Used(c, 5)
		u := d.Take(t, patience)
		if u.Head != head || u.Len != 5 || string(u.Data[2]) != "abc" || string(u.Data[3][:2]) != "de" {
			t.Errorf("used %+v, want head %d length 5 abc de", u, head)
		}
	}
	if c, err := d.Queue.Next(); c != nil || err != nil {
		t.Errorf("Next of an empty ring = %v, %v", c, err)
	}
}

func next(t *testing.T, d *queuetest.Driver) *queue.Chain {
	t.Helper()
	c, err := d.Queue.Next()
	if err != nil || c == nil {
		t.Fatalf("Next = %v, %v, want a chain", c, err)
	}
	return c
}

func TestDriverBreaksTheRing(t *testing.T) {
	const out, in, chained, indirect = 0, 2, 1, 4
	tests := []struct {
		name   string
		config queue.Config
		offer  func(d *queuetest.Driver)
	}{
		{"available index too far ahead", queue.Config{}, func(d *queuetest.Driver) { d.SetAvailIndex(9) }},
		{"available index behind", queue.Config{Next: 100}, func(d *queuetest.Driver) { d.SetAvailIndex(99) }},
		{"head out of the table", queue.Config{}, func(d *queuetest.Driver) { d.PutAvail(8) }},
		{"next out of the table", queue.Config{}, func(d *queuetest.Driver) {
			d.SetDesc(0, 0x400000, 1, chained, 8)
			d.PutAvail(0)
		}},
		{"descriptor that is its own next", queue.Config{}, func(d *queuetest.Driver) {
			d.SetDesc(3, 0x400000, 1, chained, 3)
			d.PutAvail(3)
		}},
		{"loop of two", queue.Config{}, func(d *queuetest.Driver) {
			d.SetDesc(0, 0x400000, 0, chained, 1)
			d.SetDesc(1, 0x400000, 0, chained, 0)
			d.PutAvail(0)
		}},
		{"buffer behind the memory", queue.Config{}, func(d *queuetest.Driver) {
			d.SetDesc(0, queuetest.RAMBytes-1, 2, out, 0)
			d.PutAvail(0)
		}},
		{"buffer that wraps the address space", queue.Config{}, func(d *queuetest.Driver) {
			d.SetDesc(0, 1<<64-1, 1<<32-1, in, 0)
			d.PutAvail(0)
		}},
		{"readable behind writable", queue.Config{}, func(d *queuetest.Driver) {
			d.SetDesc(0, 0x400000, 1, in|chained, 1)
			d.SetDesc(1, 0x400000, 1, out, 0)
			d.PutAvail(0)
		}},
		{"indirect not negotiated", queue.Config{}, func(d *queuetest.Driver) { d.OfferIndirect(queuetest.Buffer{Data: []byte("x")}) }},
		{"indirect with a next", queue.Config{Indirect: true}, func(d *queuetest.Driver) {
			d.SetDesc(0, 0x400000, 16, indirect|chained, 1)
			d.PutAvail(0)
		}},
		{"indirect table of a crooked size", queue.Config{Indirect: true}, func(d *queuetest.Driver) {
			d.SetDesc(0, 0x400000, 17, indirect, 0)
			d.PutAvail(0)
		}},
		{"indirect table of no size", queue.Config{Indirect: true}, func(d *queuetest.Driver) {
			d.SetDesc(0, 0x400000, 0, indirect, 0)
			d.PutAvail(0)
		}},
		{"indirect table too long", queue.Config{Indirect: true}, func(d *queuetest.Driver) {
			d.SetDesc(0, 0x400000, 1025*16, indirect, 0)
			d.PutAvail(0)
		}},
		{"indirect table outside", queue.Config{Indirect: true}, func(d *queuetest.Driver) {
			d.SetDesc(0, queuetest.RAMBytes, 16, indirect, 0)
			d.PutAvail(0)
		}},
		{"indirect in an indirect table", queue.Config{Indirect: true}, func(d *queuetest.Driver) {
			binary.LittleEndian.PutUint16(d.RAM[0x400000+12:], indirect)
			d.SetDesc(0, 0x400000, 16, indirect, 0)
			d.PutAvail(0)
		}},
		{"loop in an indirect table", queue.Config{Indirect: true}, func(d *queuetest.Driver) {
			binary.LittleEndian.PutUint16(d.RAM[0x400000+12:], chained)
			d.SetDesc(0, 0x400000, 16, indirect, 0)
			d.PutAvail(0)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := queuetest.New(t, 8, tt.config)
			tt.offer(d)
			if c, err := d.Queue.Next(); !errors.Is(err, queue.ErrBadRing) {
				t.Errorf("Next = %v, %v, want ErrBadRing", c, err)
			}
		})
	}
}

// TestOverlappingDescriptorsAreBounded has a chain whose parts are all the same
// 15 MiB: legal, and more than the memory that the guest has.
func TestOverlappingDescriptorsAreBounded(t *testing.T) {
	d := queuetest.New(t, 512, queue.Config{})
	for i := range uint16(300) {
		d.SetDesc(i, 0x100000, 15<<20, 1, i+1)
	}
	d.SetDesc(200, 0x100000, 15<<20, 0, 0)
	d.PutAvail(0)
	if c := next(t, d); c.ReadableLen() != 201*15<<20 {
		t.Errorf("chain of %d bytes, want %d", c.ReadableLen(), 201*15<<20)
	}
	d.SetDesc(200, 0x100000, 15<<20, 1, 201)
	d.SetDesc(299, 0x100000, 15<<20, 0, 0)
	d.PutAvail(0)
	if c, err := d.Queue.Next(); !errors.Is(err, queue.ErrBadRing) {
		t.Errorf("Next of a chain of 4.5 GB = %v, %v, want ErrBadRing", c, err)
	}
}

// TestChainsInFlightAreBounded offers the same head again and again without
// waiting for it.
func TestChainsInFlightAreBounded(t *testing.T) {
	d := queuetest.New(t, 4, queue.Config{})
	d.SetDesc(0, 0x400000, 1, 0, 0)
	var chains []*queue.Chain
	for range 4 {
		d.PutAvail(0)
		chains = append(chains, next(t, d))
	}
	d.PutAvail(0)
	if c, err := d.Queue.Next(); !errors.Is(err, queue.ErrBadRing) {
		t.Fatalf("Next with %d in flight = %v, %v, want ErrBadRing", len(chains), c, err)
	}
	d.Queue.Used(chains[0], 0)
	next(t, d)
	if got := d.Queue.NextIndex(); got != 1 {
		t.Errorf("NextIndex = %d, want 1: one chain was given back", got)
	}
}

func TestWaitAndClose(t *testing.T) {
	d := queuetest.New(t, 4, queue.Config{})
	if err := d.Notify(); err != nil {
		t.Fatal(err)
	}
	if err := d.Queue.Wait(); err != nil {
		t.Fatalf("Wait after a notification: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- d.Queue.Wait() }()
	d.Offer(queuetest.Buffer{Data: []byte("x")})
	c := next(t, d)
	d.Queue.Close()
	d.Queue.Close()
	select {
	case err := <-done:
		if !errors.Is(err, queue.ErrClosed) {
			t.Errorf("Wait = %v, want ErrClosed", err)
		}
	case <-time.After(patience):
		t.Fatal("Close did not end Wait")
	}
	if _, err := d.Queue.Next(); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("Next = %v, want ErrClosed", err)
	}
	d.Queue.Used(c, 0) // what was in flight still ends
	d.Take(t, patience)
}
