// Package libvm is runv's commands as calls: create, start, kill, delete, exec,
// list. It finds containers by their state directories and talks to their
// monitors; it never sees a virtual machine.
package libvm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"runv/libvm/ctl"
	"runv/libvm/monitor"
	"runv/libvm/state"
)

// Runtime is where the containers are and how new ones are made. The zero
// values of all but Root and Log are defaults.
type Runtime struct {
	Root    string       // absolute path of the directory of the containers' states
	Log     *slog.Logger // never nil
	LogFile *os.File     // the log of monitors; nil for none
	LogJSON bool         // the format of LogFile
	Debug   bool         // whether monitors log their steps
	Kernel  string       // --kernel
	Backend string       // --backend
	// SystemdCgroup has systemd make the cgroups of new containers.
	SystemdCgroup bool
	// Inherited is how many files behind stdio the caller left open; inherit.Open.
	Inherited int

	// Start starts a monitor; nil is monitor.Start.
	Start func(context.Context, monitor.Options) (Monitor, error)
}

// Monitor is the process of a container, as its creator sees it.
type Monitor interface {
	// Pid is the container's pid, in our pid namespace.
	Pid() int
	// Child is the pid of our child whose end Wait awaits.
	Child() int
	// Commit lets the monitor outlive us.
	Commit() error
	// Abort ends the monitor and waits until all it started is gone.
	Abort()
	// Wait returns the workload's exit status, 128+n for signal n, and an error
	// if the container was lost.
	Wait() (int, error)
}

func (r *Runtime) startMonitor(ctx context.Context, o monitor.Options) (Monitor, error) {
	if r.Start != nil {
		return r.Start(ctx, o)
	}
	p, err := monitor.Start(ctx, o)
	if err != nil {
		return nil, err // a nil *Process is not a nil Monitor
	}
	return p, nil
}

// load opens a container and reads its state.
func (r *Runtime) load(id string) (*state.Dir, state.State, error) {
	d, err := state.Open(r.Root, id)
	if err != nil {
		return nil, state.State{}, err
	}
	s, err := d.Load()
	if err != nil {
		_ = d.Close()
		return nil, state.State{}, err
	}
	return d, s, nil
}

// State is what is known about a container.
func (r *Runtime) State(id string) (state.State, error) {
	d, s, err := r.load(id)
	if err != nil {
		return s, err
	}
	return s, d.Close()
}

// StartContainer lets the workload of a created container exec.
func (r *Runtime) StartContainer(ctx context.Context, id string) error {
	d, s, err := r.load(id)
	if err != nil {
		return err
	}
	defer d.Close()
	switch s.Status {
	case state.Created:
	case state.Running:
		return state.ErrRunning
	case state.Stopped:
		return state.ErrStopped
	default:
		return fmt.Errorf("cannot start a container in the %s state", s.Status)
	}
	n, err := dialNotify(os.Getenv)
	if err != nil {
		return err
	}
	defer n.close()
	if n != nil && !s.Notify {
		return errNoNotify
	}
	c, err := ctl.Dial(ctx, d.File())
	if errors.Is(err, state.ErrNotRunning) {
		return state.ErrStopped
	} else if err != nil {
		return err
	}
	defer c.Close()
	if err := r.start(ctx, c, d); err != nil {
		return err
	}
	return n.relay(ctx, ctx, c, s.PID)
}

// start lets the workload of a container exec, and runs its poststart hooks.
func (r *Runtime) start(ctx context.Context, c *ctl.Client, d *state.Dir) error {
	if err := c.Start(ctx); err != nil {
		return err
	}
	s, err := d.Load()
	if err != nil {
		return err
	}
	return r.runPoststart(ctx, d, s)
}

// Processes lists the processes in the guest, and the pid of the container on
// the host: none and 0 if it has stopped.
func (r *Runtime) Processes(ctx context.Context, id string) (int, []ctl.Process, error) {
	d, s, err := r.load(id)
	if err != nil {
		return 0, nil, err
	}
	defer d.Close()
	if s.Status == state.Stopped {
		return 0, nil, nil
	}
	c, err := ctl.Dial(ctx, d.File())
	if err != nil {
		return 0, nil, err
	}
	defer c.Close()
	ps, err := c.Processes(ctx)
	return s.PID, ps, err
}

// Interrupted says that a signal ended a command before its work was done.
type Interrupted struct {
	Signal unix.Signal
}

func (i *Interrupted) Error() string { return "interrupted by " + unix.SignalName(i.Signal) }

// interruptible returns a context that ends, with an *Interrupted as its cause,
// on the signals by which users and engines end a command. stop gives the
// signals their meaning back.
func interruptible(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	stopped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case s := <-c:
			cancel(&Interrupted{Signal: s.(unix.Signal)})
		case <-stopped:
		}
	}()
	var once sync.Once
	return ctx, func() {
		once.Do(func() {
			signal.Stop(c)
			close(stopped)
			<-ended
			select { // one that came, but was not seen above
			case s := <-c:
				cancel(&Interrupted{Signal: s.(unix.Signal)})
			default:
				cancel(nil)
			}
		})
	}
}

// cause prefers the reason of a context's end to what failed by it.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// writePidFile writes a pid in decimal digits, without a newline as runc does;
// whoever waits for the file never sees half of it.
func writePidFile(path string, pid int) error {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+strconv.Itoa(os.Getpid()))
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(pid))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp) // the first error is the one to tell
	}
	return err
}
