package libvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/cgroup"
	"runv/libvm/ctl"
	"runv/libvm/network"
	"runv/libvm/state"
	"runv/libvm/thread"
)

// How long delete waits for what it cannot hurry.
const (
	lockTime  = 30 * time.Second // for a create or another delete of the container
	graceTime = 5 * time.Second  // for a monitor to end by itself
	deathTime = 10 * time.Second // for a killed monitor and its VM to be gone
)

// Delete ends what is left of a container and removes it. A running one is
// refused unless force is set, which is also content if there is no container.
func (r *Runtime) Delete(ctx context.Context, id string, force bool) error {
	err := r.remove(ctx, id, force)
	if force && errors.Is(err, state.ErrNotExist) {
		return nil
	}
	return err
}

func (r *Runtime) remove(ctx context.Context, id string, force bool) error {
	d, err := state.Open(r.Root, id)
	if err != nil {
		return err
	}
	defer d.Close()
	// A create at work holds the lock; it is ended before, not waited for.
	s, err := d.Load()
	if err == nil && s.Status == state.Creating {
		if err := checkDeletable(s, force); err != nil {
			return err
		}
		if err := interruptCreate(ctx, s); err != nil {
			return err
		}
	}
	limited, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	if err := d.Lock(limited); err != nil {
		return err
	}
	s, err = d.Load()
	switch {
	case errors.Is(err, state.ErrNotExist):
		// A create that was killed at its first step.
		return errors.Join(d.Remove(), err)
	case err != nil && !force:
		return err
	case err != nil:
		s = findMonitor(ctx, d)
	}
	if err := checkDeletable(s, force); err != nil {
		return err
	}
	if err := endMonitor(ctx, d, s); err != nil {
		return err
	}
	if err := releaseNetwork(s.NetworkNamespace); err != nil {
		return err
	}
	if force {
		// A monitor whose creator was killed may still be at work on its end.
		if err := cgroup.End(s.Cgroup); err != nil {
			return err
		}
	}
	if err := cgroup.Remove(id, s.Cgroup); err != nil {
		return err
	}
	if err := d.Remove(); err != nil {
		return err
	}
	r.runPoststop(ctx, s.Hooks, s.Public)
	return nil
}

func checkDeletable(s state.State, force bool) error {
	if force || s.Status == state.Stopped || s.Status == state.Created {
		return nil
	}
	return fmt.Errorf("cannot delete container %s that is not stopped: %s", s.ID, s.Status)
}

// findMonitor makes up for a state file that cannot be read: the kernel knows
// who listens on the control socket.
func findMonitor(ctx context.Context, d *state.Dir) state.State {
	s := state.State{Public: state.Public{ID: d.ID(), Status: state.Stopped}}
	c, err := ctl.Dial(ctx, d.File())
	if err != nil {
		return s // nobody
	}
	defer c.Close()
	pid, err := c.MonitorPID()
	if err != nil {
		return s
	}
	p, err := state.Find(pid)
	if err != nil {
		return s
	}
	s.PID, s.StartTime, s.Status = pid, p.StartTime, state.Running
	limited, cancel := context.WithTimeout(ctx, graceTime)
	defer cancel()
	if s.Cgroup, err = c.Place(limited); err != nil {
		s.Cgroup = state.Cgroup{} // it hangs, and will be killed
	}
	return s
}

// endMonitor ends the monitor, by way of the guest if that works, so that what
// the workload wrote is synced.
func endMonitor(ctx context.Context, d *state.Dir, s state.State) error {
	grace := graceTime
	if s.Status != state.Stopped {
		limited, cancel := context.WithTimeout(ctx, graceTime)
		defer cancel()
		if err := signalGuest(limited, d, int(unix.SIGKILL), true); err != nil {
			grace = 0
		}
	}
	if s.Monitor != nil {
		// Its stand-in goes with it.
		if err := endProcess(ctx, s.OfMonitor(), grace); err != nil {
			return err
		}
	}
	return endProcess(ctx, s, grace)
}

// interruptCreate ends a create at work, which takes back what it has done: hooks
// of the host may be running. One that does not end by itself is killed.
func interruptCreate(ctx context.Context, s state.State) error {
	p, err := openProcess(s)
	if err != nil || p == nil {
		return err
	}
	defer p.close()
	if err := p.signal(unix.SIGTERM); err != nil {
		return err
	}
	return endProcess(ctx, s, graceTime)
}

// endProcess waits for the process of a state to end by itself, then kills it.
func endProcess(ctx context.Context, s state.State, grace time.Duration) error {
	p, err := openProcess(s)
	if err != nil || p == nil {
		return err
	}
	defer p.close()
	if ended, err := p.wait(ctx, grace); ended || err != nil {
		return err
	}
	if err := p.kill(); err != nil {
		return err
	}
	ended, err := p.wait(ctx, deathTime)
	if err == nil && !ended {
		err = errors.New("container init still running")
	}
	return err
}

// releaseNetwork takes back what a monitor that was killed has left in a network
// namespace that is not its own. One that has gone has nothing left.
func releaseNetwork(path string) error {
	if path == "" {
		return nil
	}
	ns, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer ns.Close()
	return thread.Own(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			if err == unix.EINVAL {
				return nil // another file has taken the name
			}
			return fmt.Errorf("network namespace %q: %w", path, os.NewSyscallError("setns", err))
		}
		return network.Release()
	})
}
