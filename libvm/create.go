package libvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"runv/libvm/cgroup"
	"runv/libvm/devfilter"
	"runv/libvm/inherit"
	"runv/libvm/monitor"
	"runv/libvm/network"
	"runv/libvm/state"
)

// CreateOptions are the arguments of create.
type CreateOptions struct {
	ID            string
	Bundle        string // directory; empty: the working directory
	PidFile       string // relative to the working directory; empty: none
	ConsoleSocket string // takes the terminal's master
	NoPivot       bool
	NoNewKeyring  bool
	PidfdSocket   string // takes a pidfd of the container; empty: none
	PreserveFDs   int    // files that the process gets behind stdio and LISTEN_FDS
}

// The words are runc's.
var (
	errNoConsoleSocket  = errors.New("cannot allocate tty if runv will detach without setting console socket")
	errBadConsoleSocket = errors.New("cannot use console socket if runv will not detach or allocate tty")
)

// checkTerminal says whether terminal and console socket fit together.
func checkTerminal(detach, terminal bool, consoleSocket string) error {
	if detach && terminal && consoleSocket == "" {
		return errNoConsoleSocket
	}
	if (!detach || !terminal) && consoleSocket != "" {
		return errBadConsoleSocket
	}
	return nil
}

// container is one that this process creates. Until commit everything of it
// goes if we go.
type container struct {
	runtime *Runtime
	dir     *state.Dir // locked
	monitor Monitor    // nil before start
	pidFile string     // to remove on abort
	bundle  *bundleConfig
	pidfd   *os.File // connection that takes our pidfd; nil: none
	cgroup  *cgroup.Group

	warnings []string // about the bundle
}

// Create makes a container whose workload waits for its exec. SIGINT, SIGTERM,
// SIGHUP and SIGQUIT end it with an *Interrupted. On any error nothing is left.
func (r *Runtime) Create(ctx context.Context, o CreateOptions) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	b, err := r.loadBundle(o)
	if err != nil {
		return err
	}
	c, err := r.newContainer(b, o)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.create(ctx, b, o); err != nil {
		return cause(ctx, err)
	}
	return nil
}

// create is Create for a container without a terminal of ours.
func (c *container) create(ctx context.Context, b *bundleConfig, o CreateOptions) error {
	err := checkTerminal(true, b.terminal(), o.ConsoleSocket)
	if err == nil {
		err = c.start(ctx, b, o, o.ConsoleSocket)
	}
	if err == nil {
		err = c.commit(ctx, o.PidFile)
	}
	if err != nil {
		return errors.Join(err, c.abort())
	}
	return nil
}

// newContainer makes the state directory. Its first state names this process,
// so that delete --force can end a create that hangs, and the cgroups that will be
// made.
func (r *Runtime) newContainer(b *bundleConfig, o CreateOptions) (*container, error) {
	d, err := state.Create(r.Root, o.ID)
	if err != nil {
		return nil, err
	}
	c := &container{runtime: r, dir: d, bundle: b, warnings: b.warnings}
	g, err := cgroup.New(o.ID, r.SystemdCgroup, b.spec)
	var self state.Process
	if err == nil {
		c.cgroup = g
		self, err = state.Self()
	}
	if err == nil {
		public := c.public(state.Creating, self.PID)
		public.Created = time.Now().UTC()
		err = d.Save(state.State{Public: public, StartTime: self.StartTime, Cgroup: g.Place()})
	}
	if err != nil {
		return nil, errors.Join(err, d.Remove(), d.Close()) // no hooks: nothing has been made
	}
	return c, nil
}

// start starts the monitor, which returns when the workload's process exists.
func (c *container) start(ctx context.Context, b *bundleConfig, o CreateOptions, consoleSocket string) error {
	var err error
	if c.pidfd, err = dialPidfd(o.PidfdSocket); err != nil {
		return err
	}
	mo, err := c.runtime.monitorOptions(b, o)
	if err != nil {
		return err
	}
	if mo.Extra, err = inherit.Files(b.listen, o.PreserveFDs, c.runtime.Inherited); err != nil {
		return err
	}
	defer inherit.Close(mo.Extra) // the monitor has its own
	mo.Stdin, mo.Stdout, mo.Stderr = os.Stdin, os.Stdout, os.Stderr
	mo.ConsoleSocket = consoleSocket
	mo.Hooks = c.creationHooks()
	mo.Cgroup = c.cgroup.Place()
	mo.Started = func(monitor int, others ...int) error {
		if err := c.cgroup.Apply(monitor, others...); err != nil {
			return err
		}
		if err := network.MoveDevices(monitor, b.spec.Linux.NetDevices); err != nil {
			return fmt.Errorf("error creating network interfaces: %w", err)
		}
		return nil
	}
	m, err := c.runtime.startMonitor(ctx, mo)
	if err != nil {
		return cause(ctx, err)
	}
	c.monitor = m
	return c.limit(b, &mo.Launch)
}

// limit sets the limits of the container's cgroup on the host: not before the VM
// has come up, whose start is nothing of the workload's.
func (c *container) limit(b *bundleConfig, l *monitor.Launch) error {
	var devices cgroup.Devices
	var err error
	if devices.Program, devices.Lines, err = devfilter.CompileHost(b.spec.Linux); err != nil {
		return err
	}
	ram, _ := l.Size(b.spec)
	return c.cgroup.Set(b.spec.Linux.Resources, ram, devices)
}

// commit writes the pid file and lets the monitor outlive us.
func (c *container) commit(ctx context.Context, pidFile string) error {
	if err := sendPidfd(c.pidfd, pidfdInit, c.monitor.Pid()); err != nil {
		return err
	}
	if pidFile != "" {
		if err := writePidFile(pidFile, c.monitor.Pid()); err != nil {
			return err
		}
		c.pidFile = pidFile
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := c.monitor.Commit(); err != nil {
		return err
	}
	// Not before: an engine takes the one line of a failed create for the error.
	for _, w := range c.warnings {
		c.runtime.Log.Warn(w)
	}
	return c.dir.Unlock()
}

// abort takes everything back. Like runc it ends with the poststop hooks.
func (c *container) abort() error {
	if c.monitor != nil {
		c.monitor.Abort()
	}
	var err error
	if c.pidFile != "" {
		err = os.Remove(c.pidFile)
	}
	if c.cgroup != nil {
		err = errors.Join(err, cgroup.Remove(c.dir.ID(), c.cgroup.Place()))
	}
	if err := errors.Join(err, c.dir.Remove()); err != nil {
		return err
	}
	c.runtime.runPoststop(context.Background(), c.bundle.spec.Hooks, c.public(state.Stopped, 0))
	return nil
}

// close frees what creating took.
func (c *container) close() {
	if c.pidfd != nil {
		_ = c.pidfd.Close() // sent, or given up
	}
	_ = c.dir.Close()
}

// monitorOptions says what the monitor needs, without its files.
func (r *Runtime) monitorOptions(b *bundleConfig, o CreateOptions) (monitor.Options, error) {
	kernel, cfg, err := r.resolve(b)
	if err != nil {
		return monitor.Options{}, err
	}
	return monitor.Options{
		Launch: monitor.Launch{
			ID: o.ID, Bundle: b.path, Rootfs: b.rootfs, Spec: b.raw,
			Root: r.Root, StateDir: filepath.Join(r.Root, o.ID),
			Kernel: kernel, Config: cfg, LogJSON: r.LogJSON, Debug: r.Debug,
			NoNewKeyring: o.NoNewKeyring, Notify: b.notify, HostNetwork: b.hostNetwork,
		},
		Label:      b.spec.Process.SelinuxLabel,
		Profile:    b.spec.Process.ApparmorProfile,
		Log:        r.LogFile,
		Namespaces: monitor.NamespacesOf(b.spec),
	}, nil
}
