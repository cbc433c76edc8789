package monitor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"runv/agent/api"
	"runv/libvm/guest"
	"runv/libvm/state"
	"runv/libvm/vm"
)

// stopper stops the VM of a paused container, and lets it run for as long as
// its agent is asked something: the container's processes are frozen in the
// guest, and do not notice.
type stopper struct {
	vm vm.VM

	mu      sync.Mutex
	stopped bool // as wanted; it runs if there are users
	users   int
}

// set stops the VM, or lets it run.
func (s *stopper) set(stopped bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped == stopped {
		return nil
	}
	if s.users == 0 {
		if err := s.apply(stopped); err != nil {
			return err
		}
	}
	s.stopped = stopped
	return nil
}

func (s *stopper) apply(stopped bool) error {
	if stopped {
		return s.vm.Pause()
	}
	return s.vm.Resume()
}

// while calls f with the VM running.
func (s *stopper) while(f func() error) error {
	s.mu.Lock()
	if s.stopped && s.users == 0 {
		if err := s.vm.Resume(); err != nil {
			s.mu.Unlock()
			return err
		}
	}
	s.users++
	s.mu.Unlock()
	err := f()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.stopped && s.users == 0 {
		if stopErr := s.vm.Pause(); err == nil {
			err = stopErr
		}
	}
	return err
}

// Pause freezes the container's processes and stops the VM.
func (c *container) Pause(ctx context.Context) error {
	c.starting.Lock()
	defer c.starting.Unlock()
	before := c.current()
	if before != state.Running && before != state.Created {
		return state.ErrNotRunning
	}
	if err := c.freeze(ctx, true); err != nil {
		return err
	}
	err := c.vcpus.set(true)
	if err == nil {
		c.paused = before
		if err = c.save(state.Paused); err == nil {
			return nil
		}
		err = errors.Join(err, c.vcpus.set(false))
	}
	return errors.Join(err, c.freeze(ctx, false))
}

// Resume lets the VM, and the container's processes, go on.
func (c *container) Resume(ctx context.Context) error {
	c.starting.Lock()
	defer c.starting.Unlock()
	if c.current() != state.Paused {
		return state.ErrNotPaused
	}
	if err := c.vcpus.set(false); err != nil {
		return err
	}
	if err := c.freeze(ctx, false); err != nil {
		return errors.Join(err, c.vcpus.set(true))
	}
	return c.save(c.paused)
}

// freeze has the agent freeze the container, or let it go on with the time that
// it is by then.
func (c *container) freeze(ctx context.Context, frozen bool) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	r := &api.FreezeRequest{Id: c.monitor.launch.ID, Frozen: frozen}
	if !frozen {
		r.UnixNanos = time.Now().UnixNano()
	}
	if _, err := c.agent().Freeze(ctx, r); err != nil {
		return fmt.Errorf("freezer of the guest: %w", c.explain(ctx, guest.Error(err)))
	}
	return nil
}
