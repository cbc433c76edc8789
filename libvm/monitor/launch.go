// Package monitor is the process that is the container to the host. It owns the
// virtual machine: it starts it, serves its devices, relays the workload's
// stdio, answers the commands, and exits with the workload's status.
//
// The process that creates a container starts the monitor and talks to it over
// a socket pair until the container exists:
//
//	create                                  monitor (PID 1 of its namespace)
//	   │  Launch (JSON) ───────────────────────►│
//	   │◄─────────────────────── reply: hooks   │ if there are hooks of the host
//	   │  runs them                             │ boots the VM; looks at neither file
//	   │  hooked ──────────────────────────────►│ systems nor network before that
//	   │◄────────────── reply: ready, or error  │ the process waits to exec the workload
//	   │  writes the pid file                   │
//	   │  commit ──────────────────────────────►│ lives on by itself
//	   │  (or closes without: ─────────────────►│ tears everything down and exits)
//	   │◄───── reply: why the container was lost│ if it was, and run waits for it
package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/config"
	"runv/libvm/inherit"
	"runv/libvm/state"
	"runv/libvm/tty"
	"runv/libvm/vm"
)

// Command is the hidden command under which runv runs as a monitor.
const Command = "monitor"

// Launch is what the monitor is told.
type Launch struct {
	ID       string          // of the container
	Bundle   string          // absolute path of the bundle
	Rootfs   string          // absolute path of the root file system
	Spec     json.RawMessage // config.json, checked
	Root     string          // absolute path of the directory of all states
	StateDir string          // absolute path of this container's, below Root
	Kernel   string          // absolute path of the guest's kernel
	Config   config.Config   // everything that is not of this container alone
	Terminal bool            // the console socket is among the inherited files
	LogFile  bool            // the log is among the inherited files
	LogJSON  bool            // its format
	Debug    bool

	NoNewKeyring bool // --no-new-keyring
	Notify       bool // the workload gets a notify socket
	Hooked       bool // the creator says when its hooks have run; Start fills it in

	Cgroup      state.Cgroup   // where the monitor is on the host
	HostNetwork bool           // the network namespace is the caller's, and not the container's to use
	StandIn     *state.Process // whose pid is the container's; nil: the monitor's; Start fills it in

	Extra  []inherit.Access // of the inherited files that are the workload's; Start fills it in
	NoFile unix.Rlimit      // open files of the caller; Start fills it in
}

// Size returns the RAM, in bytes, and the number of vCPUs of the VM for a spec.
func (l *Launch) Size(spec *specs.Spec) (memory uint64, cpus int) {
	return vm.Size(spec, uint64(l.Config.Memory)*vm.MiB, l.Config.CPUs)
}

// MaxMemory returns to how much RAM, in bytes, a VM that begins with memory can grow.
func (l *Launch) MaxMemory(memory uint64) (uint64, error) {
	var host unix.Sysinfo_t
	if err := unix.Sysinfo(&host); err != nil {
		return 0, os.NewSyscallError("sysinfo", err)
	}
	return vm.MaxMemory(memory, host.Totalram*uint64(host.Unit), uint64(l.Config.MaxMemory)*vm.MiB), nil
}

// Options is what Start needs.
type Options struct {
	Launch
	// Stdin, Stdout and Stderr are the workload's if it has no terminal; nil is
	// /dev/null. The caller may close its copies once Start has returned.
	Stdin, Stdout, Stderr *os.File
	// Extra become the workload's descriptors 3, 4, …, with or without a terminal;
	// the caller keeps its copies, too.
	Extra []inherit.File
	// ConsoleSocket is the path of the Unix socket to which the terminal's
	// master is sent, if the workload has a terminal.
	ConsoleSocket string
	// Log takes the monitor's log lines; nil for none.
	Log *os.File
	// Label of SELinux that the monitor, its stand-in and the VM get, and their
	// profile of AppArmor, which the monitor takes on later; empty for the caller's.
	Label, Profile string
	// Namespaces of the host that the monitor is put into.
	Namespaces Namespaces
	// Hooks runs what the host has to run when the container's namespaces exist
	// and nothing is in them yet; pid is the container's. nil for nothing.
	Hooks func(ctx context.Context, pid int) error
	// Started is called with the pids of the monitor, and of what stands in for
	// the container, before they do anything; nil for nothing.
	Started func(monitor int, others ...int) error
}

// The monitor's inherited descriptors; the optional ones follow in this order.
const (
	fdHandshake = 3
	fdOptional  = 4 // console socket, log, stand-in, the workload's further files
)

// reply is what the monitor says when hooks may be run, when the container exists
// (an empty Error means ready), and again if it loses it.
type reply struct {
	Hooks bool   `json:"hooks,omitempty"` // its namespaces are as hooks are to find them
	Error string `json:"error,omitempty"`
}

// The bytes that the creator sends behind the launch.
const (
	hooked = 'h' // its hooks have run
	commit = 'c' // the monitor may live
)

// Process is a monitor as its creator sees it.
type Process struct {
	cmd     *exec.Cmd
	standIn *os.Process // nil: none
	sock    *net.UnixConn
}

// Start starts a monitor and returns once the workload's process exists in the
// guest, stopped before its exec. When ctx ends before that, or anything fails,
// the monitor and its VM are gone when Start returns.
func Start(ctx context.Context, o Options) (*Process, error) {
	p, err := spawn(&o)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { p.sock.Close() })
	// The monitor does nothing before it has its launch.
	if o.Started != nil {
		var others []int
		if p.standIn != nil {
			others = append(others, p.standIn.Pid)
		}
		err = o.Started(p.Child(), others...)
	}
	if err == nil {
		err = p.handshake(ctx, &o)
	}
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		p.Abort()
		return nil, err
	}
	return p, nil
}

// handshake sends the launch, runs the hooks, and waits for the reply.
func (p *Process) handshake(ctx context.Context, o *Options) error {
	o.Hooked = o.Hooks != nil
	if err := json.NewEncoder(p.sock).Encode(&o.Launch); err != nil {
		return p.died(err)
	}
	dec := json.NewDecoder(p.sock)
	receive := func() (r reply, err error) {
		if err = dec.Decode(&r); err != nil {
			return r, &broken{err}
		}
		if r.Error != "" {
			return r, errors.New(r.Error)
		}
		return r, nil
	}
	r, err := receive()
	if err == nil && r.Hooks {
		err = p.runHooks(ctx, o.Hooks, func() error { _, err := receive(); return err })
	}
	if b := (*broken)(nil); errors.As(err, &b) {
		return underProfile(p.died(b.error), o.Profile)
	}
	return err
}

// runHooks runs the hooks, says so, and awaits the reply; if that comes before the
// hooks have ended the container has failed, and they are not needed any more.
func (p *Process) runHooks(ctx context.Context, hooks func(context.Context, int) error, await func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	replied := make(chan error, 1)
	go func() { // ends with the reply, or with the socket
		err := await()
		cancel()
		replied <- err
	}()
	err := hooks(ctx, p.Pid())
	if err == nil {
		_, err = p.sock.Write([]byte{hooked})
	}
	if err != nil && ctx.Err() == nil {
		return err
	}
	return <-replied
}

// broken is a handshake that got no reply.
type broken struct{ error }

// died explains a handshake that broke: the monitor has ended, or it is to end,
// stuck or not. If it had ended by itself its own status is still what is told.
func (p *Process) died(cause error) error {
	p.sock.Close()       //nolint:errcheck // it broke
	p.cmd.Process.Kill() //nolint:errcheck // it may have ended by itself
	p.endStandIn()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("the container's monitor ended before it was ready: %w", err)
	}
	return fmt.Errorf("the container's monitor ended before it was ready: %w", cause)
}

// Pid returns the container's pid in the caller's pid namespace: that of the
// monitor, or of what stands in for it.
func (p *Process) Pid() int {
	if p.standIn != nil {
		return p.standIn.Pid
	}
	return p.cmd.Process.Pid
}

// Child returns the pid of the child whose end Wait awaits, which nobody else may
// reap.
func (p *Process) Child() int { return p.cmd.Process.Pid }

// Commit lets the monitor live on without its creator.
func (p *Process) Commit() error {
	if _, err := p.sock.Write([]byte{commit}); err != nil {
		return fmt.Errorf("commit the container: %w", err)
	}
	return nil
}

// kill ends a monitor that may not have been started.
func (p *Process) kill() {
	if p.cmd.Process != nil {
		p.cmd.Process.Kill() //nolint:errcheck // it may have ended by itself
		p.endStandIn()
		p.cmd.Wait() //nolint:errcheck // its status tells nothing new
	}
}

// Abort ends the monitor, and with it everything it started, and waits for that.
func (p *Process) Abort() {
	p.sock.Close() //nolint:errcheck // a monitor that is not committed takes this as its end
	p.kill()
}

// Wait waits for the monitor, a child of the caller, and returns the workload's
// exit status, 128+n for a signal. If the container was lost, it says why, too.
func (p *Process) Wait() (int, error) {
	if p.standIn != nil {
		p.standIn.Wait() //nolint:errcheck // the same status, and it may have been reaped
	}
	err := p.cmd.Wait()
	defer p.sock.Close() //nolint:errcheck // only read from
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("wait for the container's monitor: %w", err)
	}
	ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), p.lost()
}

// lost is what a monitor that has ended said last, if that was why it lost its
// container.
func (p *Process) lost() error {
	if err := p.sock.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return nil // it has nothing to say
	}
	var r reply
	if err := json.NewDecoder(p.sock).Decode(&r); err != nil || r.Error == "" {
		return nil // the workload had ended
	}
	return fmt.Errorf("the container was lost: %s", r.Error)
}

// spawn starts the monitor process.
func spawn(o *Options) (*Process, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "monitor"), os.NewFile(uintptr(fds[1]), "creator")
	defer theirs.Close() //nolint:errcheck // the child has its own
	conn, err := net.FileConn(ours)
	ours.Close() //nolint:errcheck // FileConn made a duplicate
	if err != nil {
		return nil, fmt.Errorf("monitor socket: %w", err)
	}
	p := &Process{sock: conn.(*net.UnixConn)}
	extra := []*os.File{theirs}
	if o.Terminal = o.ConsoleSocket != ""; o.Terminal {
		console, err := tty.Dial(o.ConsoleSocket)
		if err != nil {
			p.sock.Close() //nolint:errcheck // unused
			return nil, fmt.Errorf("console socket: %w", err)
		}
		defer console.Close() //nolint:errcheck // the child has its own
		extra = append(extra, console)
	}
	if o.LogFile = o.Log != nil; o.LogFile {
		extra = append(extra, o.Log)
	}
	socket, err := prepareStandIn(o, &extra)
	if err != nil {
		p.sock.Close() //nolint:errcheck // unused
		return nil, err
	}
	if socket != nil {
		defer socket.Close()              //nolint:errcheck // the child has its own
		defer extra[len(extra)-1].Close() //nolint:errcheck // the child has its own
	}
	o.Launch.Extra = nil
	for _, f := range o.Extra {
		o.Launch.Extra, extra = append(o.Launch.Extra, f.Access), append(extra, f.File)
	}
	if err := keepFromChildren(); err != nil {
		p.sock.Close() //nolint:errcheck // unused
		return nil, err
	}
	exe, err := executable(o.Label == "", false)
	if err != nil {
		p.sock.Close() //nolint:errcheck // unused
		return nil, err
	}
	p.cmd = &exec.Cmd{
		Path: exe, Args: []string{"runv", Command, o.ID}, Dir: "/",
		Env:        environment(os.Environ()),
		ExtraFiles: extra,
		SysProcAttr: &syscall.SysProcAttr{
			Setsid:     true,
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | o.Namespaces.cloneFlags(),
		},
	}
	if !o.Terminal {
		// A nil *os.File must not become a non-nil interface.
		if o.Stdin != nil {
			p.cmd.Stdin = o.Stdin
		}
		if o.Stdout != nil {
			p.cmd.Stdout = o.Stdout
		}
		if o.Stderr != nil {
			p.cmd.Stderr = o.Stderr
		}
	}
	if o.NoFile, err = o.Namespaces.start(p.cmd, o.Label); err != nil {
		err = fmt.Errorf("start the container's monitor: %w", err)
	} else if socket != nil {
		err = p.startStandIn(o, socket)
	}
	if err != nil {
		p.kill()
		p.sock.Close() //nolint:errcheck // unused
		return nil, err
	}
	return p, nil
}

// environment is the monitor's: the caller's, and that the heap is not made of huge
// pages, where the host would give them unasked. They are 2 MiB each, and the heap
// is hardly larger; the guest's memory may have them.
func environment(env []string) []string {
	const name, noHuge = "GODEBUG=", "disablethp=1"
	out := make([]string, 0, len(env)+1)
	value := noHuge
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name); ok && v != "" {
			value = v + "," + noHuge
		} else if !ok {
			out = append(out, e)
		}
	}
	return append(out, name+value)
}

// keepFromChildren marks every descriptor but stdio close-on-exec. The caller
// may have leaked some to us (containerd's shim and buildah do), and a process
// that lives as long as a container must not hold them open.
func keepFromChildren() error {
	err := unix.CloseRange(fdHandshake, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	return os.NewSyscallError("close_range", err)
}
