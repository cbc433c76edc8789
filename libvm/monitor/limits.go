package monitor

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/agent/api"
	"runv/agent/wire"
	"runv/libvm/ctl"
	"runv/libvm/guest"
	"runv/libvm/state"
	"runv/libvm/vm"
)

// Update replaces the limits of the container in the guest.
func (c *container) Update(ctx context.Context, r *specs.LinuxResources) error {
	c.starting.Lock()
	defer c.starting.Unlock()
	status := c.current()
	if status == state.Stopped {
		return state.ErrNotRunning
	}
	if err := c.grow(ctx, r); err != nil {
		return errors.Join(c.explain(ctx, err), c.save(status)) // it may have grown a little
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	req := &api.UpdateRequest{Id: c.monitor.launch.ID, Resources: wire.MarshalResources(guestResources(r))}
	if m := r.Memory; m != nil && m.CheckBeforeUpdate != nil {
		req.CheckMemory = *m.CheckBeforeUpdate
	}
	err := c.vcpus.while(func() error {
		_, err := c.agent().Update(ctx, req)
		return guest.Error(err)
	})
	if err != nil {
		return c.explain(ctx, err)
	}
	c.mu.Lock()
	c.resources = r
	c.mu.Unlock()
	return c.save(status)
}

// grow gives the guest's kernel as much more RAM as the limits of r take.
func (c *container) grow(ctx context.Context, r *specs.LinuxResources) error {
	c.mu.Lock()
	ram := c.ram
	c.mu.Unlock()
	blocks, _, err := vm.Growth(ram, vm.Need(r), c.monitor.mostRAM)
	if err != nil {
		return err
	}
	for _, at := range blocks {
		if g, ok := c.monitor.machine.vm.(vm.Grower); ok {
			if err := g.AddBlock(at); err != nil {
				return fmt.Errorf("more memory for the guest: %w", err)
			}
		}
		_, err := ask(ctx, c, func(ctx context.Context, a api.AgentService) (*api.Empty, error) {
			return a.AddMemory(ctx, &api.AddMemoryRequest{Address: at, Bytes: vm.BlockBytes})
		})
		if err != nil {
			return fmt.Errorf("more memory for the guest: %w", err)
		}
		c.mu.Lock()
		c.ram += vm.BlockBytes
		c.mu.Unlock()
	}
	return nil
}

// diedOfOOM says of a container that has ended that processes of it were killed for
// want of memory.
func (c *container) diedOfOOM() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.oomKilled
}

// Metrics reads what the container uses.
func (c *container) Metrics(ctx context.Context) (ctl.Metrics, error) {
	r, err := ask(ctx, c, func(ctx context.Context, a api.AgentService) (*api.MetricsResponse, error) {
		return a.Metrics(ctx, &api.MetricsRequest{Id: c.monitor.launch.ID})
	})
	if err != nil {
		return nil, err
	}
	out := ctl.Metrics{}
	for _, f := range r.Files {
		out[f.Name] = string(f.Content)
	}
	return out, nil
}

// AwaitOOM waits until more processes of the container than seen were killed for
// want of memory, or it has ended. The agent answers after some seconds in any
// case; that of a paused container when that goes on.
func (c *container) AwaitOOM(ctx context.Context, seen uint64) (killed uint64, ended bool, err error) {
	for {
		r, err := c.agent().AwaitOOM(ctx, &api.AwaitOOMRequest{Id: c.monitor.launch.ID, Seen: seen})
		switch {
		case err != nil && (c.current() == state.Stopped || errors.Is(guest.Error(err), guest.ErrLost)):
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.oomKilled && seen == 0 {
				return 1, true, nil // how it ended
			}
			return seen, true, nil
		case err != nil:
			return seen, false, fmt.Errorf("wait for the guest: %w", guest.Error(err))
		case r.Killed > seen || r.Ended:
			return r.Killed, r.Ended, nil
		}
	}
}
