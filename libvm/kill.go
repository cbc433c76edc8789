package libvm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/ctl"
	"runv/libvm/state"
)

// killTime is how long the guest may take to deliver a SIGKILL. A guest that
// hangs must not make its container immortal.
const killTime = 10 * time.Second

// maxSignal is the last real-time signal on x86-64.
const maxSignal = 64

// Kill sends a signal (its number on x86-64; 0 only checks) to the workload, or
// to all processes of the container. state.ErrNotRunning if it has stopped,
// which is no error with all.
func (r *Runtime) Kill(ctx context.Context, id string, sig int, all bool) error {
	d, s, err := r.load(id)
	if err != nil {
		return err
	}
	defer d.Close()
	err = r.signal(ctx, d, s, sig, all)
	if all && errors.Is(err, state.ErrNotRunning) {
		return nil
	}
	return err
}

func (r *Runtime) signal(ctx context.Context, d *state.Dir, s state.State, sig int, all bool) error {
	if s.Status == state.Stopped || s.Status == state.Creating {
		return state.ErrNotRunning
	}
	if sig < 0 || sig > maxSignal {
		return fmt.Errorf("unable to signal init: %w", unix.EINVAL)
	}
	if sig == int(unix.SIGKILL) {
		return kill(ctx, d, s, all)
	}
	return signalGuest(ctx, d, sig, all)
}

func signalGuest(ctx context.Context, d *state.Dir, sig int, all bool) error {
	c, err := ctl.Dial(ctx, d.File())
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.Signal(ctx, sig, all)
	if errors.Is(err, ctl.ErrGone) {
		return state.ErrNotRunning
	}
	return err
}

// kill asks the guest to kill, and if it cannot, kills the monitor: with it,
// PID 1 of its pid namespace, the VM goes.
func kill(ctx context.Context, d *state.Dir, s state.State, all bool) error {
	limited, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	err := signalGuest(limited, d, int(unix.SIGKILL), all)
	if err == nil || errors.Is(err, state.ErrNotRunning) || ctx.Err() != nil {
		return err
	}
	if s.Monitor != nil {
		s = s.OfMonitor()
	}
	p, openErr := openProcess(s)
	if openErr != nil || p == nil {
		return errors.Join(err, openErr)
	}
	defer p.close()
	return p.kill()
}
