package queue_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
)

// TestEventIndex follows the interrupts through batches, from index starts that
// make 16 bits wrap (v1.2 §2.7.7).
func TestEventIndex(t *testing.T) {
	for _, start := range []uint16{0, 65533, 32766} {
		d := queuetest.New(t, 8, queue.Config{EventIdx: true, Next: start})
		give := func(n int, signalEach bool) {
			t.Helper()
			for range n {
				d.Offer(queuetest.Buffer{Data: []byte("x")})
			}
			for range n {
				if c := next(t, d); signalEach {
					d.Queue.Used(c, 0)
				} else {
					d.Queue.PutUsed(c, 0)
				}
			}
			if !signalEach {
				d.Queue.Signal()
			}
		}
		steps := []struct {
			name  string
			event uint16 // used_event, from start
			n     int
			each  bool
			want  int64
		}{
			{"the first always interrupts", 5, 1, true, 1}, // index 1
			{"before the event", 5, 4, true, 0},            // 5
			{"the event", 5, 1, true, 1},                   // 6
			{"behind the event", 5, 2, true, 0},            // 8
			{"batch that passes the event", 9, 4, false, 1},
			{"batch that ends before the event", 20, 4, false, 0}, // 16
			{"batch that ends with the event", 19, 4, false, 1},   // 20
			{"one by one over the event", 22, 8, true, 1},         // 28
		}
		for _, s := range steps {
			d.WantInterruptAt(start + s.event)
			before := d.Interrupts()
			give(s.n, s.each)
			if got := d.Interrupts() - before; got != s.want {
				t.Errorf("start %d, %s: %d interrupts, want %d", start, s.name, got, s.want)
			}
			for range s.n {
				d.Take(t, patience)
			}
		}
	}
}

// TestSignalAfterManyPuts gives 65536 entries back without a Signal: the used
// index is where it was, and the interrupt is due all the same.
func TestSignalAfterManyPuts(t *testing.T) {
	d := queuetest.New(t, 8, queue.Config{EventIdx: true})
	one := func() {
		d.Offer(queuetest.Buffer{Data: []byte("x")})
		d.Queue.PutUsed(next(t, d), 0)
		d.Take(t, patience)
	}
	one()
	d.Queue.Signal()
	before := d.Interrupts()
	for range 1 << 16 {
		one()
	}
	d.WantInterruptAt(1000)
	d.Queue.Signal()
	if got := d.Interrupts() - before; got != 1 {
		t.Errorf("%d interrupts after 65536 entries, want 1", got)
	}
}

func TestNoInterruptFlag(t *testing.T) {
	d := queuetest.New(t, 8, queue.Config{})
	for _, off := range []bool{false, true, false} {
		d.Offer(queuetest.Buffer{Data: []byte("x")})
		d.SetNoInterrupt(off)
		before := d.Interrupts()
		d.Queue.Used(next(t, d), 0)
		if got := d.Interrupts() - before; (got == 0) != off {
			t.Errorf("NO_INTERRUPT %v: %d interrupts", off, got)
		}
		d.Take(t, patience)
	}
}

// TestNotificationsAreSuppressed: with event index the driver notifies the
// first buffer of a batch, and not the rest.
func TestNotificationsAreSuppressed(t *testing.T) {
	d := queuetest.New(t, 8, queue.Config{EventIdx: true, Next: 65534})
	for round := range 5 {
		if c, err := d.Queue.Next(); c != nil || err != nil {
			t.Fatalf("Next of an empty ring = %v, %v", c, err)
		}
		var notified []bool
		for range 4 {
			d.Offer(queuetest.Buffer{Data: []byte("x")})
			notified = append(notified, d.NeedsNotify())
		}
		if !notified[0] || notified[1] || notified[2] || notified[3] {
			t.Errorf("round %d: notified %v, want only the first", round, notified)
		}
		for range 4 {
			d.Queue.Used(next(t, d), 0)
			d.Take(t, patience)
		}
	}
}

// TestManyWraps passes 200,000 numbered buffers between two goroutines, with
// notification suppression on both sides: none is lost, doubled or torn, and
// neither side sleeps over one.
func TestManyWraps(t *testing.T) {
	total := uint32(200_000)
	if testing.Short() {
		total = 70_000
	}
	d := queuetest.New(t, 16, queue.Config{EventIdx: true, Indirect: true, Next: 65000})
	failed := make(chan error, 1)
	go func() { failed <- echo(d.Queue) }()
	var b [4]byte
	for i, taken := uint32(0), uint32(0); taken < total; {
		for ; i < total && i-taken < 8; i++ {
			binary.LittleEndian.PutUint32(b[:], i)
			offer := d.Offer
			if i%3 == 0 {
				offer = d.OfferIndirect
			}
			offer(queuetest.Buffer{Data: b[:]}, queuetest.Buffer{Data: make([]byte, 4), Write: true})
		}
		if d.NeedsNotify() {
			if err := d.Notify(); err != nil {
				t.Fatal(err)
			}
		}
		d.WantInterruptAt(65000 + uint16(taken))
		u := d.Take(t, patience)
		if got := binary.LittleEndian.Uint32(u.Data[1]); u.Len != 4 || got != taken {
			t.Fatalf("buffer %d came back as %d, %d bytes", taken, got, u.Len)
		}
		taken++
	}
	d.Queue.Close()
	if err := <-failed; !errors.Is(err, queue.ErrClosed) {
		t.Errorf("device ended: %v", err)
	}
	t.Logf("%d buffers, %d interrupts", total, d.Interrupts())
}

// echo is a device that answers with what it was sent.
func echo(q *queue.Queue) error {
	for {
		c, err := q.Next()
		if err != nil {
			return err
		}
		if c == nil {
			if err := q.Wait(); err != nil {
				return err
			}
			continue
		}
		q.Used(c, uint32(copy(c.Writable[0], c.Readable[0])))
	}
}

// TestTogether: chains that are given back together appear with one step of the
// index, and those that are not taken after all come again.
func TestTogether(t *testing.T) {
	d := queuetest.New(t, 8, queue.Config{EventIdx: true, Next: 65534})
	d.WantNext()
	for i := range 5 {
		d.Offer(queuetest.Buffer{Data: []byte{byte(i), 0}, Write: true})
	}
	var taken []*queue.Chain
	for range 5 {
		taken = append(taken, next(t, d))
	}
	d.Queue.Untake(2)
	if n := d.Queue.InFlight(); n != 3 {
		t.Errorf("%d chains in flight, want 3", n)
	}
	d.Queue.PutUsedTogether(taken[:3], []uint32{2, 1, 0})
	if n := d.Interrupts(); n != 0 {
		t.Errorf("%d interrupts before Signal", n)
	}
	d.Queue.Signal()
	for i, want := range []uint32{2, 1, 0} {
		if u := d.Take(t, patience); u.Len != want || u.Data[0][0] != byte(i) {
			t.Errorf("chain %d came back as %d, %d bytes, want %d", i, u.Data[0][0], u.Len, want)
		}
	}
	if n := d.Interrupts(); n != 1 {
		t.Errorf("%d interrupts, want 1", n)
	}
	for i := range 2 {
		if c := next(t, d); c.Writable[0][0] != byte(3+i) {
			t.Errorf("chain %d came in the place of %d", c.Writable[0][0], 3+i)
		}
	}
}
