package libvm

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/ctl"
	"runv/libvm/orphans"
	"runv/libvm/state"
)

// RunOptions are the arguments of run.
type RunOptions struct {
	CreateOptions
	Detach      bool // return when the workload runs
	Keep        bool // keep the state afterwards
	NoSubreaper bool // orphans of the workload's hooks are not ours to reap
}

// Run creates and starts a container, and, unless detached, waits for it: it
// returns the workload's exit status, 128+n for signal n.
func (r *Runtime) Run(ctx context.Context, o RunOptions) (int, error) {
	boot, stop := interruptible(ctx)
	defer stop()
	b, err := r.loadBundle(o.CreateOptions)
	if err != nil {
		return 0, err
	}
	c, err := r.newContainer(b, o.CreateOptions)
	if err != nil {
		return 0, err
	}
	defer c.close()
	if o.Detach {
		err := c.create(boot, b, o.CreateOptions)
		if err == nil {
			err = c.exec(boot)
		}
		return 0, cause(boot, err)
	}
	return c.runForeground(ctx, boot, stop, b, o)
}

// exec lets the workload exec; if that fails, the container goes.
func (c *container) exec(ctx context.Context) error {
	n, err := dialNotify(os.Getenv)
	if err == nil {
		defer n.close()
		err = c.startAndRelay(ctx, n)
	}
	if err != nil {
		err = cause(ctx, err)
		return errors.Join(err, c.runtime.Delete(context.WithoutCancel(ctx), c.dir.ID(), true))
	}
	return nil
}

// startAndRelay starts the workload, and waits for its word that it is ready if
// the caller wants to hear it.
func (c *container) startAndRelay(ctx context.Context, n *notifier) error {
	client, err := ctl.Dial(ctx, c.dir.File())
	if err != nil {
		return err
	}
	defer client.Close()
	if err := c.runtime.start(ctx, client, c.dir); err != nil {
		return err
	}
	return n.relay(ctx, ctx, client, c.monitor.Pid())
}

// runForeground is run without --detach. Until the workload runs, signals end
// it; then they are the workload's.
func (c *container) runForeground(ctx, boot context.Context, bootDone func(), b *bundleConfig, o RunOptions) (int, error) {
	var t *terminal
	err := checkTerminal(false, b.terminal(), o.ConsoleSocket)
	if err == nil && b.terminal() {
		t, err = newTerminal(c.dir.File())
	}
	if err == nil {
		defer t.close()
		err = c.start(boot, b, o.CreateOptions, t.socket())
	}
	if err == nil {
		err = t.attach()
	}
	if err == nil {
		err = c.commit(boot, o.PidFile)
	}
	if err != nil {
		return 0, errors.Join(cause(boot, err), c.abort())
	}
	if !o.NoSubreaper {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			c.runtime.Log.Warn("cannot become a subreaper", "error", err)
		}
	}
	status, err := c.attend(ctx, boot, bootDone, t)
	t.close()
	if !o.Keep {
		err = errors.Join(err, c.runtime.Delete(ctx, c.dir.ID(), true))
		c.monitor.Abort() // it has ended, but if it was not waited for it is a zombie
	}
	return status, err
}

// attend starts the workload, hands it the signals, and waits for its end.
func (c *container) attend(ctx, boot context.Context, bootDone func(), t *terminal) (int, error) {
	n, err := dialNotify(os.Getenv)
	if err != nil {
		return 0, err
	}
	client, err := ctl.Dial(boot, c.dir.File())
	if err == nil {
		defer client.Close()
		err = c.runtime.start(boot, client, c.dir)
	}
	if err != nil {
		n.close()
		return 0, cause(boot, err)
	}
	gone, ended := context.WithCancel(ctx)
	relayed := c.relayReady(ctx, gone, n)
	defer func() {
		ended()
		<-relayed
	}()
	signals, stop := catchSignals()
	defer stop()
	bootDone()
	// One that came when the workload had been started, and was not seen by both,
	// is the workload's, too.
	if i := (*Interrupted)(nil); errors.As(context.Cause(boot), &i) {
		deliver(signals, i.Signal)
	}
	t.resize() // the size may have changed before we listened
	type result struct {
		status int
		err    error
	}
	results := make(chan result, 1)
	go func() { // ends with the monitor
		status, err := c.monitor.Wait()
		results <- result{status, err}
	}()
	for {
		select {
		case r := <-results:
			t.drain()
			return r.status, r.err
		case s := <-signals:
			switch s {
			case unix.SIGWINCH:
				t.resize()
			case unix.SIGCHLD:
				orphans.Reap(c.monitor.Child())
			}
			if sig, ok := forwarded(s); ok {
				c.forward(ctx, client, sig)
			}
		}
	}
}

// forwardTime bounds how long a signal may be on its way.
const forwardTime = 10 * time.Second

func (c *container) forward(ctx context.Context, client *ctl.Client, sig int) {
	ctx, cancel := context.WithTimeout(ctx, forwardTime)
	defer cancel()
	err := client.Signal(ctx, sig, false)
	if err != nil && !errors.Is(err, ctl.ErrGone) && !errors.Is(err, state.ErrNotRunning) {
		c.runtime.Log.Warn("signal not delivered", "number", sig, "error", err)
	}
}

// relayReady passes the container's word that it is ready on, which it says any
// time, beside the signals; the channel is closed when that is over, which is the
// case at the container's end, when gone does, at the latest.
func (c *container) relayReady(ctx, gone context.Context, n *notifier) <-chan struct{} {
	done := make(chan struct{})
	if n == nil {
		close(done)
		return done
	}
	go func() {
		defer close(done)
		defer n.close()
		client, err := ctl.Dial(ctx, c.dir.File())
		if errors.Is(err, state.ErrNotRunning) {
			return
		}
		if err == nil {
			defer client.Close()
			err = n.relay(ctx, gone, client, c.monitor.Pid())
		}
		if err != nil {
			c.runtime.Log.Warn("cannot tell that the container is ready", "error", err)
		}
	}()
	return done
}
