package mmio

import (
	"errors"
	"testing"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue/queuetest"
	"runv/libvm/virtio/rng"
)

// A device goes on in another transport, in the middle of its queue.
func TestStateGoesOnElsewhere(t *testing.T) {
	for _, features := range []uint64{1 << virtio.FVersion1, 1<<virtio.FVersion1 | 1<<virtio.RingFEventIdx} {
		g := newGuest(t, rng.New())
		d := g.startUp(features)[0]
		for range 5 {
			g.random(d)
		}
		g.set(regQueueSel, 3)
		s, err := g.State()
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Queues[0].Next; got != 5 {
			t.Errorf("next: got %d, want 5", got)
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		other := newGuestIn(t, rng.New(), g.ram)
		other.drivers = g.drivers
		if err := other.SetState(s); err != nil {
			t.Fatal(err)
		}
		for range 40 { // more than the queue has entries
			other.random(d)
		}
		if got := other.get(regStatus); got != s.Status {
			t.Errorf("status: got %#x, want %#x", got, s.Status)
		}
		if again, err := other.State(); err != nil || again.Queues[0].Next != 45 || again.QueueSel != 3 {
			t.Errorf("state: got %+v, %v", again, err)
		}
		// A reset forgets all of it.
		other.random(other.startUp(features)[0])
	}
}

// A device that holds a request has no state to take.
func TestStateOfABusyDevice(t *testing.T) {
	dev := &stuck{let: make(chan struct{})}
	close(dev.let)
	g := newGuest(t, dev)
	d := g.startUp(1 << virtio.FVersion1)[0]
	if _, err := g.State(); err != nil {
		t.Error(err)
	}
	d.WantNext()
	d.Offer(queuetest.Buffer{Data: make([]byte, 8)})
	c, err := dev.queues[0].Next()
	if err != nil || c == nil {
		t.Fatalf("Next: %v, %v", c, err)
	}
	if _, err := g.State(); !errors.Is(err, ErrBusy) {
		t.Errorf("with a request in flight: got %v, want ErrBusy", err)
	}
	dev.queues[0].Used(c, 0)
	d.Take(t, limit)
	if _, err := g.State(); err != nil {
		t.Error(err)
	}
}

// What does not fit is refused, and changes nothing.
func TestSetStateThatDoesNotFit(t *testing.T) {
	g := newGuest(t, rng.New())
	g.startUp(1 << virtio.FVersion1)
	good, err := g.State()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.SetState(good); err == nil {
		t.Error("for a device in use: no error")
	}
	for name, change := range map[string]func(*State){
		"queues":   func(s *State) { s.Queues = nil },
		"features": func(s *State) { s.Features |= 1 << 60 },
		"address":  func(s *State) { s.Queues = []QueueState{{Size: 16, Ready: true, Desc: 1 << 50}} },
		"size":     func(s *State) { s.Queues = []QueueState{{Size: 17, Ready: true}} },
	} {
		other := newGuestIn(t, rng.New(), g.ram)
		s := good
		change(&s)
		if err := other.SetState(s); err == nil {
			t.Errorf("%s: no error", name)
		}
		if got := other.get(regStatus); got != 0 {
			t.Errorf("%s: status %#x, want 0", name, got)
		}
		other.startUp(1 << virtio.FVersion1)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := g.State(); err == nil {
		t.Error("after Close: no error")
	}
}
