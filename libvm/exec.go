package libvm

import (
	"context"
	"encoding/json"
	"errors"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/ctl"
	"runv/libvm/inherit"
	"runv/libvm/state"
	"runv/libvm/tty"
)

// ExecOptions are the arguments of exec.
type ExecOptions struct {
	ID            string
	Process       ProcessOptions
	ConsoleSocket string // takes the terminal's master
	Detach        bool   // return when the process runs
	PidfdSocket   string // takes a pidfd of the stand-in; empty: none
	PreserveFDs   int    // files that the process gets behind stdio
	PidFile       string // relative to the working directory; empty: none
	IgnorePaused  bool
	// Cgroup is the path of an existing cgroup below the container's in the guest;
	// empty: the container's.
	Cgroup string
}

// statusLost is the exit status when the container ended under the process: the
// kernel kills what is left in a pid namespace.
const statusLost = 128 + int(unix.SIGKILL)

// Exec runs a further process in a running (or created) container. Unless
// detached it is the process's stand-in: signals are passed on, and the exit
// status (128+n for signal n) is returned. Detached, a stand-in is left behind,
// a child of nobody, whose pid is in the pid file and which exits with the
// status.
func (r *Runtime) Exec(ctx context.Context, o ExecOptions) (int, error) {
	d, s, err := r.load(o.ID)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	if err := checkExec(s.Status, o.IgnorePaused); err != nil {
		return 0, err
	}
	p, warnings, err := o.Process.process(s.Bundle)
	if err != nil {
		return 0, err
	}
	for _, w := range warnings {
		r.Log.Warn(w)
	}
	if err := checkTerminal(o.Detach, p.Terminal, o.ConsoleSocket); err != nil {
		return 0, err
	}
	e := &execution{dir: d, process: p, ExecOptions: o}
	if e.extra, err = inherit.Files(0, o.PreserveFDs, r.Inherited); err != nil {
		return 0, err
	}
	if e.pidfd, err = dialPidfd(o.PidfdSocket); err != nil {
		return 0, err
	}
	defer e.close()
	if o.Detach {
		return 0, e.detached(ctx)
	}
	return e.foreground(ctx)
}

// execution is one exec.
type execution struct {
	ExecOptions
	dir     *state.Dir
	process *specs.Process
	extra   []inherit.File // until the guest has them
	pidfd   *os.File       // connection that takes a pidfd; nil: none
}

func (e *execution) close() {
	inherit.Close(e.extra)
	if e.pidfd != nil {
		_ = e.pidfd.Close() // sent, or given up
	}
}

func checkExec(s state.Status, ignorePaused bool) error {
	switch {
	case s == state.Stopped:
		return errors.New("cannot exec in a stopped container")
	case s == state.Creating:
		return errors.New("cannot exec in a container that is being created")
	case s == state.Paused && !ignorePaused:
		return errors.New("cannot exec in a paused container (use --ignore-paused to override)")
	}
	return nil
}

// openSession starts the process in the guest, which has the extra files then.
func (e *execution) openSession(ctx context.Context, r ctl.ExecRequest) (*ctl.Session, error) {
	var err error
	if r.Process, err = json.Marshal(e.process); err != nil {
		return nil, err
	}
	r.Extra, r.Cgroup = e.extra, e.Cgroup
	client, err := ctl.Dial(ctx, e.dir.File())
	if errors.Is(err, state.ErrNotRunning) {
		return nil, checkExec(state.Stopped, false)
	} else if err != nil {
		return nil, err
	}
	s, err := client.Exec(ctx, r)
	if err != nil {
		return nil, errors.Join(cause(ctx, err), client.Close())
	}
	// Whoever is behind them shall see the guest's end of them, not ours.
	inherit.Close(e.extra)
	e.extra = nil
	return s, nil
}

// foreground is the stand-in itself.
func (e *execution) foreground(ctx context.Context) (int, error) {
	start, stop := interruptible(ctx)
	defer stop()
	t, err := newExecTerminal(e.process)
	if err != nil {
		return 0, err
	}
	defer t.close()
	s, err := e.openSession(start, t.request())
	if err != nil {
		return 0, err
	}
	defer s.Close()
	signals, stopSignals := catchSignals()
	defer stopSignals()
	stop()
	if err := sendPidfd(e.pidfd, pidfdExec, os.Getpid()); err != nil {
		return 0, err
	}
	if e.PidFile != "" {
		if err := writePidFile(e.PidFile, os.Getpid()); err != nil {
			return 0, err
		}
	}
	if err := t.attach(); err != nil {
		return 0, err
	}
	if t == nil {
		// The guest has them now: whoever is behind them shall see its
		// end, not ours. stderr stays, for errors.
		if err := nullFiles(0, 1); err != nil {
			return 0, err
		}
	}
	resize := func() {
		if rows, cols := t.size(); rows != 0 || cols != 0 {
			_ = s.Resize(ctx, rows, cols) // fails only once the process ended
		}
	}
	resize()
	status, err := attendSession(ctx, s, signals, resize)
	t.drain()
	return status, err
}

// attendSession hands the process the signals and waits for its end.
func attendSession(ctx context.Context, s *ctl.Session, signals <-chan os.Signal, resize func()) (int, error) {
	type result struct {
		status int
		err    error
	}
	ended := make(chan result, 1)
	go func() { // ends with the session
		status, err := s.Wait(ctx)
		ended <- result{status, err}
	}()
	for {
		select {
		case r := <-ended:
			if errors.Is(r.err, ctl.ErrGone) {
				return statusLost, nil
			}
			return r.status, r.err
		case sig := <-signals:
			if sig == unix.SIGWINCH {
				resize()
			}
			if n, ok := forwarded(sig); ok {
				_ = s.Signal(ctx, n) // fails only once the process ended
			}
		}
	}
}

// nullFiles replaces open files by /dev/null.
func nullFiles(fds ...int) error {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	defer unix.Close(null)
	for _, fd := range fds {
		if err := unix.Dup3(null, fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return nil
}

// execTerminal is the caller's terminal, bridged to the pty that the monitor
// relays. All methods are for a nil one, too: no terminal.
type execTerminal struct {
	host          *tty.Host
	master, slave *os.File // nil once handed on
	bridge        *tty.Bridge
}

func newExecTerminal(p *specs.Process) (*execTerminal, error) {
	if !p.Terminal {
		return nil, nil
	}
	host, err := tty.OpenHost()
	if err != nil {
		return nil, err
	}
	t := &execTerminal{host: host}
	if t.master, t.slave, err = tty.Open(); err != nil {
		return nil, errors.Join(err, host.Close())
	}
	rows, cols := host.Size()
	if err := tty.SetSize(t.slave, rows, cols); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *execTerminal) request() ctl.ExecRequest {
	if t == nil {
		return ctl.ExecRequest{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	}
	rows, cols := t.host.Size()
	return ctl.ExecRequest{TTY: t.slave, Rows: rows, Cols: cols}
}

// attach connects the terminals; the slave is the monitor's alone from now on.
func (t *execTerminal) attach() error {
	if t == nil {
		return nil
	}
	_ = t.slave.Close()
	t.slave = nil
	if err := t.host.SetRaw(); err != nil {
		return err
	}
	master := t.master
	t.master = nil
	var err error
	t.bridge, err = tty.NewBridge(master, os.Stdin, os.Stdout)
	return err
}

func (t *execTerminal) size() (rows, cols uint16) {
	if t == nil {
		return 0, 0
	}
	return t.host.Size()
}

func (t *execTerminal) drain() {
	if t != nil && t.bridge != nil {
		t.bridge.Drain()
		t.bridge = nil
	}
}

// close gives the caller its terminal back.
func (t *execTerminal) close() {
	if t == nil {
		return
	}
	t.drain()
	for _, f := range []*os.File{t.master, t.slave} {
		if f != nil {
			_ = f.Close()
		}
	}
	_ = t.host.Close()
}
