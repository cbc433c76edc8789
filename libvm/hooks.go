package libvm

import (
	"context"
	"maps"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/libvm/hooks"
	"runv/libvm/state"
)

// creationHooks returns what runs the prestart and createRuntime hooks of a
// container, which get its pid; nil if it has none.
func (c *container) creationHooks() func(context.Context, int) error {
	b := c.bundle
	h := b.spec.Hooks
	//lint:ignore SA1019 engines use it because it is old
	if h == nil || len(h.Prestart) == 0 && len(h.CreateRuntime) == 0 {
		return nil
	}
	return func(ctx context.Context, pid int) error {
		s := c.public(state.Created, pid).OCI()
		// The specification has the first step of the creation behind it by then;
		// runc calls it creating, but for the newer kind only do we.
		//lint:ignore SA1019 engines use it because it is old
		if err := hooks.Run(ctx, hooks.Prestart, h.Prestart, s, hooks.Options{Dir: b.path}); err != nil {
			return err
		}
		s.Status = specs.StateCreating
		return hooks.Run(ctx, hooks.CreateRuntime, h.CreateRuntime, s, hooks.Options{Dir: b.path})
	}
}

// public is what everybody may know of a container that is being made.
func (c *container) public(s state.Status, pid int) state.Public {
	b := c.bundle
	return state.Public{
		Version: specs.Version, ID: c.dir.ID(), PID: pid, Status: s, Bundle: b.path, Rootfs: b.rootfs,
		Annotations: maps.Clone(b.spec.Annotations),
	}
}

// runPoststart runs the poststart hooks of a container whose workload was
// started. If one fails the workload is killed (runtime-spec v1.3 runtime.md
// "Lifecycle", step 9).
func (r *Runtime) runPoststart(ctx context.Context, d *state.Dir, s state.State) error {
	if s.Hooks == nil || len(s.Hooks.Poststart) == 0 {
		return nil
	}
	s.Status = state.Running
	err := hooks.Run(ctx, hooks.Poststart, s.Hooks.Poststart, s.OCI(), hooks.Options{})
	if err == nil {
		return nil
	}
	if killErr := kill(context.WithoutCancel(ctx), d, s, true); killErr != nil {
		r.Log.Warn("kill the container whose poststart hook failed", "error", killErr)
	}
	return err
}

// runPoststop runs the poststop hooks of a container of which nothing is left. What
// fails is logged, and changes nothing (runtime.md "Lifecycle", step 13).
func (r *Runtime) runPoststop(ctx context.Context, h *specs.Hooks, p state.Public) {
	if h == nil {
		return
	}
	p.Status = state.Stopped
	for _, err := range hooks.RunAll(context.WithoutCancel(ctx), hooks.Poststop, h.Poststop, p.OCI(), hooks.Options{}) {
		r.Log.Warn(err.Error())
	}
}
