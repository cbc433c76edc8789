package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/setup"
	"runv/agent/task"
	"runv/agent/wire"
)

// ExecRequest is what Exec needs.
type ExecRequest struct {
	ExecID       string
	Process      []byte // wire.MarshalProcess
	Stdio        Stdio
	Rows, Cols   uint32 // characters; 0: as the process says
	Seccomp      []byte // struct sock_filter[]; empty: none
	SeccompFlags uint32
	Listener     []byte // token of the stream of the filter's listener, if that has one
	Cgroup       string // path below the container's; empty: the container's
}

// Exec starts a further process in the container. It returns once the process
// exec'd, with its id in the guest's root pid namespace.
func (c *Container) Exec(r *ExecRequest) (int, error) {
	p, settings, err := c.newExec(r)
	if err != nil {
		return 0, err
	}
	if err := c.runExec(r, p, settings); err != nil {
		p.io.close()
		c.mu.Lock()
		delete(c.execs, r.ExecID)
		c.mu.Unlock()
		return 0, fmt.Errorf("unable to start container process: %w", err)
	}
	c.watch.Go(func() { c.watchExec(r.ExecID, p) })
	return p.proc.Pid, nil
}

// newExec enters a process that is to be, so that its terminal can be resized.
func (c *Container) newExec(r *ExecRequest) (*process, *task.Settings, error) {
	sp, err := wire.UnmarshalProcess(r.Process)
	if err != nil {
		return nil, nil, err
	}
	if len(sp.Args) == 0 {
		return nil, nil, errors.New("process.args is empty")
	}
	if r.ExecID == "" {
		return nil, nil, errors.New("empty exec id")
	}
	personality, err := c.spec.personality()
	if err != nil {
		return nil, nil, err
	}
	c.inherit(sp)
	var height, width uint
	if b := sp.ConsoleSize; b != nil {
		height, width = b.Height, b.Width
	}
	rows, cols, err := windowSize(r.Rows, r.Cols, height, width)
	if err != nil {
		return nil, nil, err
	}
	p := &process{
		io:   &streams{buffers: &c.m.buffers, rows: rows, cols: cols},
		done: make(chan struct{}),
	}
	select {
	case <-c.init.proc.Done():
		return nil, nil, ErrNotRunning
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.execs[r.ExecID] != nil {
		return nil, nil, fmt.Errorf("exec id %q is in use", r.ExecID)
	}
	if c.execs == nil {
		return nil, nil, ErrNotRunning
	}
	c.execs[r.ExecID] = p
	return p, &task.Settings{
		Process: sp, Seccomp: r.Seccomp, SeccompFlags: r.SeccompFlags,
		Personality: personality, KeyringName: c.keyringName(), LastCap: c.m.LastCap,
	}, nil
}

// inherit takes from the container's process what the new one does not say, as
// runc does.
func (c *Container) inherit(p *specs.Process) {
	first := c.spec.Process
	if p.Capabilities == nil {
		p.Capabilities = first.Capabilities
	}
	if len(p.Rlimits) == 0 {
		p.Rlimits = first.Rlimits
	}
	if p.OOMScoreAdj == nil {
		p.OOMScoreAdj = first.OOMScoreAdj
	}
	if p.Scheduler == nil {
		p.Scheduler = first.Scheduler
	}
	if p.IOPriority == nil {
		p.IOPriority = first.IOPriority
	}
	if p.ExecCPUAffinity == nil {
		p.ExecCPUAffinity = first.ExecCPUAffinity
	}
}

func (c *Container) runExec(r *ExecRequest, p *process, settings *task.Settings) error {
	sp := settings.Process
	if err := p.io.dial(c.m.Dial, r.Stdio.files(sp.Terminal)); err != nil {
		return err
	}
	type forked struct {
		child *task.Child
		err   error
	}
	result := make(chan forked, 1)
	go func() {
		// The thread joins the container for good: it is never unlocked,
		// so that it ends with this goroutine.
		runtime.LockOSThread()
		child, err := c.join(p, settings, r.Cgroup)
		result <- forked{child, err}
	}()
	f := <-result
	if f.err != nil {
		return f.err
	}
	// From here on in the agent's own namespaces.
	pid := f.child.Pid
	err := errors.Join(
		task.SetOOMScoreAdj(pid, sp.OOMScoreAdj),
		task.SetIOPriority(pid, sp.IOPriority),
		task.SetScheduler(pid, sp.Scheduler),
		task.SetFinalAffinity(pid, sp.ExecCPUAffinity),
		task.SetLimits(pid, sp.Rlimits),
	)
	if err != nil {
		f.child.Abandon()
		<-p.proc.Done()
		return err
	}
	var take func()
	var lerr error
	if len(r.Listener) > 0 {
		take = func() {
			if lerr = c.passListener(pid, p.proc.Done(), r.Listener); lerr != nil {
				_ = p.proc.Signal(unix.SIGKILL) // nobody would answer its calls
			}
		}
	}
	if err := errors.Join(f.child.OpenWith(take), lerr); err != nil {
		<-p.proc.Done()
		return err
	}
	return nil
}

// join makes the calling thread a part of the container, finds what is to be
// executed as its user would, and forks.
func (c *Container) join(p *process, settings *task.Settings, cgroup string) (*task.Child, error) {
	sp := settings.Process
	group, err := c.execGroup(cgroup)
	if err != nil {
		return nil, err
	}
	defer unix.Close(group)
	uid := guestID(sp.User.UID, c.spec.Linux.UIDMappings)
	fds, err := p.io.descriptors(sp.Terminal, uid)
	if err != nil {
		return nil, err
	}
	defer closeAll(fds)
	if err := c.enter(); err != nil {
		return nil, err
	}
	if sp.Terminal {
		if err := p.io.openTerminal(fds[:3], uid); err != nil {
			return nil, err
		}
	}
	env, err := task.CleanEnv(sp.Env)
	if err != nil {
		return nil, err
	}
	env = task.WithHome(slices.Clone(env), task.Home(sp.User.UID))
	path, err := c.find(sp, env)
	if err != nil {
		return nil, err
	}
	if err := task.SetInitialAffinity(sp.ExecCPUAffinity); err != nil {
		return nil, err
	}
	return c.fork(p, settings, fds, group, path, env)
}

// execGroup opens the cgroup for a further process. A container that manages its
// own cgroups, systemd say, has left the one that it was given: nothing can join
// that then, and the process goes to where the first one is.
func (c *Container) execGroup(sub string) (int, error) {
	if sub != "" {
		return c.group.OpenBelow(filepath.Join(c.group.Path, sub))
	}
	if !c.group.Inner() {
		return c.group.Open()
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(c.Pid()) + "/cgroup")
	if err != nil {
		return -1, ErrNotRunning
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return c.group.OpenBelow(path)
		}
	}
	return c.group.Open()
}

// joinable are the namespaces that a thread can enter. The cgroup namespace is
// left to the child: clone3 refuses to put a child into a cgroup from inside of
// a namespace that its parent's cgroup is not part of. The time and the user namespace
// are, too: no process with threads may enter one.
const joinable = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET

func (c *Container) enter() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Setns(c.pidfd, int(c.ns&joinable)); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return ErrNotRunning
		}
		return fmt.Errorf("join the container's namespaces: %w", err)
	}
	return nil
}

// find looks the executable up with the user's ids for the file system. If the
// user is to have CAP_DAC_OVERRIDE, root's view is nearer to the truth.
func (c *Container) find(sp *specs.Process, env []string) (string, error) {
	if caps := sp.Capabilities; caps == nil || !task.HasCap(caps.Effective, "DAC_OVERRIDE") {
		restore, err := c.asUser(sp.User)
		if err != nil {
			return "", err
		}
		defer restore()
	}
	if sp.Cwd != "" {
		err := unix.Chdir(sp.Cwd)
		if err != nil && !errors.Is(err, unix.EACCES) {
			return "", fmt.Errorf("chdir to cwd (%q) set in config.json failed: %w", sp.Cwd, err)
		}
	}
	return task.LookPath(sp.Args[0], env)
}

// asUser gives the calling thread the user's file system ids. With those of root
// it loses the capabilities to override permissions (capabilities(7)).
func (c *Container) asUser(u specs.User) (restore func(), err error) {
	uid, gid := guestID(u.UID, c.spec.Linux.UIDMappings), guestID(u.GID, c.spec.Linux.GIDMappings)
	if uid < 0 || gid < 0 {
		return nil, fmt.Errorf("user %d:%d is not mapped", u.UID, u.GID)
	}
	groups := make([]int, 0, len(u.AdditionalGids))
	for _, g := range u.AdditionalGids {
		if id := guestID(g, c.spec.Linux.GIDMappings); id >= 0 {
			groups = append(groups, id)
		}
	}
	if err := task.ThreadGroups(groups); err != nil {
		return nil, err
	}
	// Their results are the former ids, never an error.
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, uintptr(gid), 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
	return func() {
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0)
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, 0, 0, 0)
		_ = task.ThreadGroups(nil)
	}, nil
}

// fork makes the process, which waits at its gate.
func (c *Container) fork(p *process, settings *task.Settings, fds []int, group int, path string, env []string) (*task.Child, error) {
	pipes, err := task.NewPipes(len(fds))
	if err != nil {
		return nil, err
	}
	script, err := c.script(settings, pipes, fds, path, env)
	if err != nil {
		pipes.Close()
		return nil, err
	}
	var child *task.Child
	p.proc, err = c.m.Reaper.Start(func() (int, error) {
		child, err = task.Fork(pipes, 0, group, script)
		if err != nil {
			return 0, err
		}
		return child.Pid, nil
	})
	if errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.ENODEV) {
		return nil, ErrNotRunning // the pid namespace, or the cgroup, is gone
	}
	return child, err
}

func (c *Container) script(settings *task.Settings, pipes *task.Pipes, fds []int, path string, env []string) (task.Script, error) {
	keyring, err := settings.Keyring()
	if err != nil {
		return nil, err
	}
	settings.Hold = pipes.GateFD()
	privileges, err := settings.Privileges(false)
	if err != nil {
		return nil, err
	}
	exec, err := settings.Exec(path, env)
	if err != nil {
		return nil, err
	}
	var s task.Script
	for _, ns := range []uintptr{unix.CLONE_NEWCGROUP, unix.CLONE_NEWTIME, unix.CLONE_NEWUSER} {
		if c.ns&ns != 0 {
			s = append(s, task.Call("setns", unix.SYS_SETNS, uintptr(c.pidfd), ns))
		}
	}
	s = append(s, pipes.Enter(fds)...)
	s = append(s, task.Session(settings.Process.Terminal)...)
	s = append(s, keyring...)
	s = append(s, privileges...)
	return append(s, exec...), nil
}

// openTerminal makes a pty of the container that the calling thread has entered,
// and puts it in the place of a process's first descriptors.
func (st *streams) openTerminal(fds []int, uid int) error {
	master, slave, _, err := setup.OpenTerminal(0, 0)
	if err != nil {
		return fmt.Errorf("set up the console: %w", err)
	}
	m, s := os.NewFile(uintptr(master), "ptmx"), os.NewFile(uintptr(slave), "pts")
	if uid >= 0 {
		_ = unix.Fchown(slave, uid, -1) // as runc: not possible everywhere
	}
	for _, fd := range fds {
		if err := unix.Dup3(slave, fd, unix.O_CLOEXEC); err != nil {
			m.Close()
			s.Close()
			return os.NewSyscallError("dup3", err)
		}
	}
	return st.terminal(m, s)
}
