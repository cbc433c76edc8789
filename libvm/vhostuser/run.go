package vhostuser

import (
	"fmt"

	"runv/libvm/mem"
	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
)

// run is the device between Start and the end of Wait.
type run struct {
	queues []*queue.Queue // as Start got them
	done   chan struct{}  // closed when Wait has returned
	err    error          // what it returned; valid after done
}

// wanted says whether the device should be running.
//
// The protocol starts and stops single rings, a device starts as a whole, with
// all of the rings that the driver has set up: so the question is when the
// front-end has set up the last of them. QEMU 7.2 says it by SET_VRING_ENABLE,
// which it sends for all of a device's rings behind everything else. "All" are
// those for which it has set the "call", which it does before the guest runs;
// our device may have more (QEMU keeps the event queue of vsock to itself). A
// ring that is enabled and has no "kick" was not set up by the guest's driver.
// A front-end without SET_VRING_ENABLE has to start every ring. Further pairs of
// queues of a network card are enabled only when the guest says that it uses them.
//
// The device status would say it better, but with PROTOCOL_F_STATUS QEMU 7.2
// never gets to DRIVER_OK, except for the last queue pair of a network card; so
// we do not offer it.
func (s *server) wanted() bool {
	if s.table == nil || s.features&(1<<virtio.FVersion1) == 0 {
		return false
	}
	serves := false
	for i := range s.rings {
		r := &s.rings[i]
		serves = serves || s.served(r)
		if s.optional(i) {
			continue
		}
		if r.known && (s.enables() && !r.enabled || !s.enables() && !s.served(r)) {
			return false
		}
	}
	return serves
}

// optional says whether the device runs without ring i.
func (s *server) optional(i int) bool {
	m, ok := s.dev.(virtio.Multiqueue)
	return ok && m.Optional(i)
}

// enables says whether the front-end enables the rings; if not, they are.
func (s *server) enables() bool { return s.features&(1<<VHOST_USER_F_PROTOCOL_FEATURES) != 0 }

// update starts the device if it should run and does not, and the other way
// round. When the rings of a running device change it starts anew: QEMU enables
// those of a network card before it sets them up, one after the other.
func (s *server) update() error {
	if s.run != nil && (!s.wanted() || s.changedRings()) {
		if err := s.stop(); err != nil {
			return err
		}
	}
	if s.run == nil && s.wanted() {
		return s.start()
	}
	return nil
}

// changedRings says whether a ring that is being served was disabled, or one that
// is not was set up.
func (s *server) changedRings() bool {
	for i, q := range s.run.queues {
		if (q != nil) != s.served(&s.rings[i]) {
			return true
		}
	}
	return false
}

// served says whether r is among the rings that a start hands to the device.
func (s *server) served(r *ring) bool {
	return r.ready() && (r.enabled || !s.enables())
}

func (s *server) start() error {
	r := &run{queues: make([]*queue.Queue, len(s.rings)), done: make(chan struct{})}
	for i := range s.rings {
		if !s.served(&s.rings[i]) {
			continue
		}
		q, err := s.open(&s.rings[i])
		if err != nil {
			r.close()
			return fmt.Errorf("ring %d: %w", i, err)
		}
		r.queues[i] = q
	}
	if err := s.dev.Start(s.features&^(1<<VHOST_USER_F_PROTOCOL_FEATURES), r.queues); err != nil {
		r.close()
		return fmt.Errorf("start device: %w", err)
	}
	s.run = r
	go s.watch(r)
	return nil
}

// open makes the queue of a ring.
func (s *server) open(r *ring) (*queue.Queue, error) {
	c := queue.Config{Size: r.size, Next: r.next, Interrupt: r.call.signal,
		EventIdx: s.features&(1<<virtio.RingFEventIdx) != 0,
		Indirect: s.features&(1<<virtio.RingFIndirectDesc) != 0}
	for _, a := range []struct {
		uva uint64
		dst *mem.GPA
	}{{r.addr.desc, &c.Desc}, {r.addr.avail, &c.Driver}, {r.addr.used, &c.Device}} {
		gpa, err := s.table.gpa(a.uva)
		if err != nil {
			return nil, err
		}
		*a.dst = gpa
	}
	kick, err := queue.OpenKick(r.kick)
	if err != nil {
		return nil, err
	}
	c.Kick = kick
	q, err := queue.New(s.table.mem, c)
	if err != nil {
		kick.Close() //nolint:errcheck // an eventfd
		return nil, err
	}
	return q, nil
}

// watch waits for the device to end: because stop closed its queues, or because
// it failed. Then Serve has to know. stop waits for it.
func (s *server) watch(r *run) {
	r.err = s.dev.Wait()
	if r.err != nil {
		for i := range s.rings {
			s.rings[i].fault.signal()
		}
		s.fail(r.err)
	}
	close(r.done)
}

// close closes the queues.
func (r *run) close() {
	for _, q := range r.queues {
		if q != nil {
			q.Close()
		}
	}
}

// stop stops the device, if it runs, waits until the requests in flight have
// ended, and notes how far each ring has come. It returns why the device has
// failed, if it has.
func (s *server) stop() error {
	r := s.run
	if r == nil {
		return nil
	}
	s.run = nil
	r.close()
	<-r.done
	for i, q := range r.queues {
		if q != nil {
			s.rings[i].next = q.NextIndex()
		}
	}
	if r.err != nil {
		return fmt.Errorf("device failed: %w", r.err)
	}
	return nil
}
