package libvm

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/libvm/bundle"
	"runv/libvm/cgroup"
	"runv/libvm/ctl"
	"runv/libvm/state"
	"runv/libvm/vm"
)

// Update changes limits of a container, in the guest and on the host, and keeps
// them; what change does not set stays as it is (bundle.Update).
// state.ErrNotRunning.
func (r *Runtime) Update(ctx context.Context, id string, change *specs.LinuxResources) error {
	d, s, err := r.load(id)
	if err != nil {
		return err
	}
	defer d.Close()
	if s.Status == state.Stopped || s.Status == state.Creating {
		return state.ErrNotRunning
	}
	limited, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	if err := d.Lock(limited); err != nil { // one update at a time
		return err
	}
	if s, err = d.Load(); err != nil {
		return err
	}
	next, unchanged := bundle.Update(s.Resources, change)
	if err := bundle.CheckUpdate(next); err != nil {
		return err
	}
	ram, err := r.checkSize(s, next)
	if err != nil {
		return err
	}
	if err := update(ctx, d, s, next, ram); err != nil {
		return err
	}
	for _, field := range unchanged {
		r.Log.Warn("update does not change " + field + ", as that of runc")
	}
	return nil
}

// checkSize returns the RAM that the VM has to have for limits, in bytes, and refuses
// what it cannot have.
func (r *Runtime) checkSize(s state.State, next *specs.LinuxResources) (ram uint64, err error) {
	if ram, err = grown(s, next); err != nil {
		return 0, err
	}
	if _, cpus := vm.Size(&specs.Spec{Linux: &specs.Linux{Resources: next}}, 0, 1); cpus > s.CPUs && s.CPUs > 0 {
		r.Log.Warn(fmt.Sprintf("the limits allow %d CPUs, and this container's VM has %d: that is fixed when it is created", cpus, s.CPUs))
	}
	return ram, nil
}

// grown is how much RAM the VM has under limits: it grows for them, and never shrinks.
func grown(s state.State, next *specs.LinuxResources) (uint64, error) {
	most := max(s.Memory, s.MaxMemory)
	need := vm.Need(next)
	_, ram, err := vm.Growth(s.Memory, need, most)
	if err != nil {
		return 0, fmt.Errorf("a memory limit of %d bytes needs a VM of %d MiB, and this container's grows to %d MiB at most: "+
			"%d bytes are possible (create it anew with a larger limit; the setting max_memory bounds what a VM grows to)",
			*next.Memory.Limit, need/vm.MiB, vm.LargestMemory(s.Memory, most)/vm.MiB, vm.LargestLimit(vm.LargestMemory(s.Memory, most)))
	}
	return ram, nil
}

// update sets the limits on the host, for a VM with so much RAM, and then in the guest,
// where they are the workload's; if that refuses, the host's go back.
func update(ctx context.Context, d *state.Dir, s state.State, next *specs.LinuxResources, ram uint64) error {
	g, err := cgroup.Open(s.ID, s.Cgroup)
	if err != nil {
		return err
	}
	back := func(err error) error {
		return errors.Join(err, g.Set(s.Resources, s.Memory, cgroup.Devices{}))
	}
	if err := g.Set(next, ram, cgroup.Devices{}); err != nil {
		return back(err)
	}
	c, err := ctl.Dial(ctx, d.File())
	if err != nil {
		return back(err)
	}
	defer c.Close()
	if err := c.Update(ctx, next); errors.Is(err, ctl.ErrGone) {
		return state.ErrNotRunning
	} else if err != nil {
		return back(err)
	}
	return nil
}
