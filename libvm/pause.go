package libvm

import (
	"context"

	"runv/libvm/ctl"
	"runv/libvm/state"
)

// Pause stops all processes of a container, and its VM. state.ErrNotRunning.
func (r *Runtime) Pause(ctx context.Context, id string) error {
	return r.ask(ctx, id, state.ErrNotRunning, (*ctl.Client).Pause)
}

// Resume undoes a Pause. state.ErrNotPaused.
func (r *Runtime) Resume(ctx context.Context, id string) error {
	return r.ask(ctx, id, state.ErrNotPaused, (*ctl.Client).Resume)
}

// ask makes a call to the monitor of a container; stopped is the error if that
// has ended.
func (r *Runtime) ask(ctx context.Context, id string, stopped error, call func(*ctl.Client, context.Context) error) error {
	d, s, err := r.load(id)
	if err != nil {
		return err
	}
	defer d.Close()
	if s.Status == state.Stopped || s.Status == state.Creating {
		return stopped
	}
	c, err := ctl.Dial(ctx, d.File())
	if err != nil {
		return err
	}
	defer c.Close()
	return call(c, ctx)
}
