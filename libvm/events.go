package libvm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"runv/libvm/ctl"
	"runv/libvm/state"
	"runv/libvm/stats"
)

// watched opens a container that has not ended, for Stats and Events.
func (r *Runtime) watched(id string) (*state.Dir, error) {
	d, s, err := r.load(id)
	if err != nil {
		return nil, err
	}
	if s.Status == state.Stopped || s.Status == state.Creating {
		return nil, errors.Join(errNotRunning(id), d.Close())
	}
	return d, nil
}

// errNotRunning has runc's words.
func errNotRunning(id string) error {
	return fmt.Errorf("container with id %s is not running", id)
}

// Stats says what a container uses.
func (r *Runtime) Stats(ctx context.Context, id string) (*stats.Stats, error) {
	d, err := r.watched(id)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	c, err := ctl.Dial(ctx, d.File())
	if err == nil {
		defer c.Close()
		var s *stats.Stats
		if s, _, err = read(ctx, c); err == nil {
			return s, nil
		}
	}
	if ended(err) {
		err = errNotRunning(id)
	}
	return nil, err
}

// ended says whether an error is that of a container that has.
func ended(err error) bool {
	return errors.Is(err, ctl.ErrGone) || errors.Is(err, state.ErrNotRunning)
}

// read returns what a container uses, and how many of its processes were killed for
// want of memory.
func read(ctx context.Context, c *ctl.Client) (*stats.Stats, uint64, error) {
	m, err := c.Metrics(ctx)
	if err != nil {
		return nil, 0, err
	}
	s, err := stats.Parse(m)
	if err != nil {
		return nil, 0, err
	}
	killed, err := stats.OOMKills(m)
	return s, killed, err
}

// Events calls emit with what a container uses, each interval, and whenever
// processes of it are killed for want of memory, until the container ends.
func (r *Runtime) Events(ctx context.Context, id string, interval time.Duration, emit func(stats.Event) error) error {
	d, err := r.watched(id)
	if err != nil {
		return err
	}
	defer d.Close()
	c, err := ctl.Dial(ctx, d.File())
	if ended(err) {
		return errNotRunning(id)
	} else if err != nil {
		return err
	}
	defer c.Close()
	_, seen, err := read(ctx, c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	kills, over := make(chan struct{}), make(chan error, 1)
	go func() { // ends with ctx or the container
		over <- awaitKills(ctx, d, seen, kills)
	}()
	defer func() {
		cancel()
		<-over //nolint:errcheck // it was told to end
	}()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		event := stats.Event{ID: id}
		select {
		case err := <-over:
			over <- nil
			return err
		case <-kills:
			event.Type = "oom"
		case <-tick.C:
			event.Type = "stats"
			if event.Data, _, err = read(ctx, c); ended(err) {
				continue // the other one says so, behind its last event
			} else if err != nil {
				return err
			}
		}
		if err := emit(event); err != nil {
			return err
		}
	}
}

// awaitKills sends to kills each time that processes were killed, and returns when
// the container has ended.
func awaitKills(ctx context.Context, d *state.Dir, seen uint64, kills chan<- struct{}) error {
	c, err := ctl.Dial(ctx, d.File())
	for err == nil {
		var killed uint64
		var stopped bool
		killed, stopped, err = c.AwaitOOM(ctx, seen)
		if err == nil && killed > seen {
			select {
			case kills <- struct{}{}:
			case <-ctx.Done():
			}
		}
		seen = killed
		if stopped {
			break
		}
	}
	if c != nil {
		_ = c.Close()
	}
	if ended(err) || ctx.Err() != nil {
		return nil
	}
	return err
}
