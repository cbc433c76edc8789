package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/api"
	"runv/agent/wire"
	"runv/libvm/ctl"
	"runv/libvm/devfilter"
	"runv/libvm/guest"
	"runv/libvm/seccomp"
	"runv/libvm/state"
)

// container is one container of the VM: it answers the commands for it.
type container struct {
	monitor *monitor
	self    state.Process // whose pid is the container's, as the host knows it
	// monitorSelf is this process, as the host knows it.
	monitorSelf state.Process
	created     time.Time
	relay       *relay
	cpus        int // of the VM

	plugging sync.Mutex // one change of the network at a time
	starting sync.Mutex // one Start, Pause or Resume at a time
	vcpus    stopper
	paused   state.Status // what it was before it was paused
	killed   sync.Once    // by a SIGKILL

	mu     sync.Mutex
	status state.Status
	ram    uint64 // of the VM, bytes
	// oomKilled says of a stopped one that processes were killed for want of memory.
	oomKilled bool
	// resources are the limits that hold now.
	resources *specs.LinuxResources
	sessions  map[*session]bool
	nextExec  int
}

var _ ctl.Handler = (*container)(nil)

// treeKey names a shared tree of a container; the guest mounts "<key>/<name>".
func treeKey(id string, mount int) string { return id + "." + strconv.Itoa(mount) }

// agent is the guest's.
func (c *container) agent() api.AgentService { return c.monitor.machine.guest.Agent() }

// createTime is how long a guest whose agent has called may take to make the
// container: all of it is work of milliseconds, but for a tmpcopyup of many files.
const createTime = 2 * time.Minute

// create makes the container in the guest, with its process stopped before exec.
func (c *container) create(ctx context.Context) (err error) {
	m := c.monitor
	ctx, cancel := context.WithTimeoutCause(ctx, createTime, fmt.Errorf("the guest did not make the container within %v", createTime))
	defer cancel()
	if err := c.configureGuest(ctx); err != nil {
		return err
	}
	if c.relay, err = newRelay(m.machine.guest, m.stdio); err != nil {
		return err
	}
	m.stdio = files{} // the relay's from now on
	req, err := c.createRequest()
	if err != nil {
		return err
	}
	if m.term != nil {
		req.Rows, req.Cols = m.term.size()
	}
	if req.Network, err = c.firstNetwork(); err != nil {
		return err
	}
	var listening func(bool) error
	req.Listener, listening = m.listeners.listen(m.machine.guest, m.processState(state.Creating))
	if _, err := c.agent().CreateContainer(ctx, req); err != nil {
		if lerr := listening(false); lerr != nil && !errors.Is(lerr, guest.ErrLost) {
			return lerr
		}
		return c.explain(ctx, guest.Error(err))
	}
	m.network.Carry()
	if err := c.relay.start(ctx); err != nil {
		return c.explain(ctx, fmt.Errorf("stdio of the container: %w", err))
	}
	c.created = time.Now().UTC()
	return nil
}

// answerTime is how long the agent may take for what it does at once. A guest
// that never answers must not keep a command, or the monitor's own end, waiting.
const answerTime = 10 * time.Second

// ask makes a call that the agent answers at once, and for which a paused VM runs.
func ask[T any](ctx context.Context, c *container, call func(context.Context, api.AgentService) (T, error)) (answer T, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	err = c.vcpus.while(func() (err error) {
		answer, err = call(ctx, c.agent())
		return guest.Error(err)
	})
	return answer, err
}

// endTime is how long a guest whose agent has gone takes to end: the kernel
// panics, and its reset ends QEMU.
const endTime = 3 * time.Second

// explain prefers the VM's own end as the reason of a call that failed by it.
// The agent's connection breaks a moment before that end is known.
func (c *container) explain(ctx context.Context, err error) error {
	mc := c.monitor.machine
	wait := time.Duration(0)
	if errors.Is(err, guest.ErrLost) {
		wait = endTime
	}
	select {
	case <-mc.vm.Done():
		return fmt.Errorf("%w%s", mc.vm.Err(), mc.consoleTail())
	case <-ctx.Done():
	case <-time.After(wait):
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// configureGuest is the agent's first call.
func (c *container) configureGuest(ctx context.Context) error {
	// What a container without a uts namespace of its own sees.
	hostname, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	r, err := c.agent().Configure(ctx, &api.ConfigureRequest{
		UnixNanos: time.Now().UnixNano(), Entropy: entropy(), StreamPort: guest.StreamPort, Hostname: hostname, Disks: len(c.monitor.disks) > 0,
	})
	if err != nil {
		return c.explain(ctx, fmt.Errorf("configure the guest: %w", guest.Error(err)))
	}
	c.monitor.log.Debug("guest is up", "kernel", r.KernelRelease, "agent", r.AgentVersion, "boot_ms", r.BootNanos/1e6)
	return c.monitor.findDisks(r.Disks)
}

// createRequest compiles what the guest only installs.
func (c *container) createRequest() (*api.CreateContainerRequest, error) {
	m := c.monitor
	hookState, err := m.hookState()
	if err != nil {
		return nil, err
	}
	spec := wire.MarshalSpec(m.withDisks(guestSpec(&m.spec)), hookState)
	req := &api.CreateContainerRequest{Id: m.launch.ID, Spec: spec, Stdio: c.relay.stdio(), NoNewKeyring: m.launch.NoNewKeyring, Notify: m.launch.Notify}
	for _, t := range m.view.Trees {
		tree := &api.Tree{Mount: int32(t.Mount)}
		switch n := t.Node; {
		case n != nil:
			number := devfilter.Number{Major: n.Major, Minor: n.Minor}
			if n.Mode&unix.S_IFMT == unix.S_IFBLK {
				number = m.guestNumber(number)
			}
			tree.Path, tree.Node = t.Name, &api.Node{Mode: n.Mode, Uid: n.UID, Gid: n.GID, Major: number.Major, Minor: number.Minor}
		case t.Guest != "":
			tree.Guest = t.Guest
		default:
			tree.Path = treeKey(m.launch.ID, t.Mount) + "/" + t.Name
		}
		req.Trees = append(req.Trees, tree)
	}
	if l := m.spec.Linux; l != nil {
		if req.DeviceFilter, err = devfilter.Compile(l, m.guestDisks()...); err != nil {
			return nil, err
		}
		if req.Seccomp, req.SeccompFlags, err = compileSeccomp(l.Seccomp); err != nil {
			return nil, err
		}
	}
	return req, nil
}

// guestSpec is a spec without what is the host's business alone.
func guestSpec(s *specs.Spec) *specs.Spec {
	if s.Linux == nil || s.Linux.Resources == nil {
		return s
	}
	out, l := *s, *s.Linux
	l.Resources, out.Linux = guestResources(l.Resources), &l
	return &out
}

// guestResources are the limits as the guest takes them: it has as many processors
// as it may use of the host's, with numbers of their own.
func guestResources(r *specs.LinuxResources) *specs.LinuxResources {
	if r == nil || r.CPU == nil {
		return r
	}
	out, c := *r, *r.CPU
	c.Cpus, c.Mems, out.CPU = "", "", &c
	return &out
}

// compileSeccomp returns the program and flags of seccomp(2) for a profile.
func compileSeccomp(p *specs.LinuxSeccomp) ([]byte, uint32, error) {
	if p == nil {
		return nil, 0, nil
	}
	f, err := seccomp.Compile(p)
	if err != nil {
		return nil, 0, err
	}
	return f.Program, f.Flags, nil
}

// save writes the container's state.
func (c *container) save(s state.Status) error {
	m := c.monitor
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status == state.Stopped {
		return nil // it has ended meanwhile
	}
	c.status = s
	saved := state.State{
		Public: m.public(s, c.self.PID), StartTime: c.self.StartTime, Hooks: lateHooks(m.spec.Hooks),
		Cgroup: m.launch.Cgroup, Memory: c.ram, MaxMemory: m.mostRAM, CPUs: c.cpus, Resources: c.resources, Notify: m.launch.Notify,
		NetworkNamespace: m.namespacePath(specs.NetworkNamespace),
	}
	saved.Created = c.created
	if c.self.PID != c.monitorSelf.PID {
		saved.Monitor = &c.monitorSelf
	}
	return m.state.Save(saved)
}

// public is what everybody may know of the container, with its pid.
func (m *monitor) public(s state.Status, pid int) state.Public {
	return state.Public{
		Version: specs.Version, ID: m.launch.ID, PID: pid, Status: s,
		Bundle: m.launch.Bundle, Rootfs: m.launch.Rootfs, Annotations: maps.Clone(m.spec.Annotations),
	}
}

// current is the status as commands may see it.
func (c *container) current() state.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// Start lets the workload exec.
func (c *container) Start(ctx context.Context) error {
	c.starting.Lock()
	defer c.starting.Unlock()
	switch c.current() {
	case state.Created:
	case state.Stopped:
		return state.ErrStopped
	default:
		return state.ErrRunning
	}
	// Saved before: a workload must not run whose state cannot be written.
	if err := c.save(state.Running); err != nil {
		return err
	}
	// Engines bring interfaces between create and start, too.
	if err := c.updateNetwork(ctx); err != nil {
		return errors.Join(err, c.save(state.Created))
	}
	if _, err := c.agent().StartContainer(ctx, &api.StartContainerRequest{Id: c.monitor.launch.ID}); err != nil {
		err = c.explain(ctx, guest.Error(err))
		return errors.Join(err, c.save(state.Created))
	}
	return nil
}

// Place is where the container is in the host's cgroups.
func (c *container) Place() state.Cgroup { return c.monitor.launch.Cgroup }

// Ready waits for the container's word that it is ready.
func (c *container) Ready(ctx context.Context) error {
	_, err := c.agent().Ready(ctx, &api.ReadyRequest{Id: c.monitor.launch.ID})
	if err != nil {
		err = c.explain(ctx, guest.Error(err))
		if c.current() == state.Stopped {
			return state.ErrNotRunning
		}
	}
	return err
}

// Processes lists what runs in the container.
func (c *container) Processes(ctx context.Context) ([]ctl.Process, error) {
	r, err := ask(ctx, c, func(ctx context.Context, a api.AgentService) (*api.ProcessesResponse, error) {
		return a.Processes(ctx, &api.ProcessesRequest{Id: c.monitor.launch.ID})
	})
	if err != nil {
		return nil, err
	}
	ps := make([]ctl.Process, 0, len(r.Processes))
	for _, p := range r.Processes {
		ps = append(ps, ctl.Process{
			PID: int(p.Pid), PPID: int(p.Ppid), ContainerPID: int(p.ContainerPid), UID: p.Uid, Comm: p.Comm, Args: p.Args,
			TTY: p.Tty, ElapsedMs: p.ElapsedMs, CPUMs: p.CpuMs, Stat: p.Stat, Nice: p.Nice, Threads: p.Threads,
			RSS: p.Rss, VSize: p.Vsize, Pgid: int(p.Pgid), Sid: int(p.Sid), Memory: p.Memory,
		})
	}
	return ps, nil
}

// wait returns the workload's status once it has ended and all of its output
// was delivered.
func (c *container) wait(ctx context.Context) (int, error) {
	r, err := c.agent().Wait(ctx, &api.WaitRequest{Id: c.monitor.launch.ID})
	c.mu.Lock()
	c.status, c.oomKilled = state.Stopped, err == nil && r.OomKilled
	c.mu.Unlock()
	if err != nil {
		err = c.explain(ctx, fmt.Errorf("wait for the workload: %w", guest.Error(err)))
		c.monitor.machine.vm.Close() //nolint:errcheck // nobody is left in it to talk to
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		c.relay.drained(limited) // what had come out of it
		return statusLost, err
	}
	c.relay.drained(ctx)
	c.monitor.machine.socks.drain(ctx)
	return clampStatus(r.Status), nil
}

// clampStatus keeps a status from the guest within what a process can exit with.
func clampStatus(s uint32) int {
	if s > math.MaxUint8 {
		return statusLost
	}
	return int(s)
}

// unreadTime is how long a container that was killed waits for a reader of its
// output: under runc it would have ended, with the output in a pipe.
const unreadTime = 5 * time.Second

// drainTime is how long the rest of the output may take when its process did
// not end by itself.
const drainTime = 2 * time.Second

// close frees what the container holds in this process. What exec'd processes
// had written when the container ended is delivered to those who read it.
func (c *container) close() {
	c.mu.Lock()
	sessions := slices.Collect(maps.Keys(c.sessions))
	c.sessions = nil
	c.mu.Unlock()
	limited, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range sessions {
		wg.Go(func() {
			s.relay.drained(limited)
			s.relay.close()
		})
	}
	wg.Wait()
	if c.relay != nil {
		c.relay.close()
	}
}

// terminalOf says whether a process asks for a terminal, of its JSON.
func terminalOf(process json.RawMessage) (*specs.Process, error) {
	var p specs.Process
	if err := json.Unmarshal(process, &p); err != nil {
		return nil, fmt.Errorf("process: %w", err)
	}
	return &p, nil
}
