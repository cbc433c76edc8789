package container

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"runv/agent/cgroup"
	"runv/agent/network"
	"runv/agent/setup"
	"runv/agent/task"
)

// CreateRequest is what Create needs.
type CreateRequest struct {
	ID           string
	Spec         []byte // wire.MarshalSpec
	Trees        []Tree
	Stdio        Stdio
	Rows, Cols   uint32 // characters; 0: as the config says
	DeviceFilter []byte // struct bpf_insn[]; empty: none
	Seccomp      []byte // struct sock_filter[]; empty: none
	SeccompFlags uint32
	Listener     []byte // token of the stream of the filter's listener, if that has one
	NoNewKeyring bool   // the processes keep the agent's session keyring
	Notify       bool   // the container gets a notify socket
	Network      *network.Change
}

// Create makes a container up to its first process, which waits for Start.
func (m *Manager) Create(r *CreateRequest) (*Container, error) {
	if err := validID(r.ID); err != nil {
		return nil, err
	}
	s, err := parseSpec(r.Spec)
	if err != nil {
		return nil, err
	}
	c := &Container{network: network.Namespace{Dial: m.DialResolver, Cgroup: m.CgroupRoot}, id: r.ID, noKeyring: r.NoNewKeyring, m: m, spec: s, pidfd: -1, execs: make(map[string]*process)}
	if err := m.reserve(c); err != nil {
		return nil, err
	}
	if err := c.create(r); err != nil {
		_ = c.free()
		m.forget(c.id)
		return nil, fmt.Errorf("unable to start container process: %w", err)
	}
	c.created.Store(true)
	return c, nil
}

func (c *Container) create(r *CreateRequest) error {
	var err error
	if c.ns, err = c.spec.namespaces(); err != nil {
		return err
	}
	config, err := c.config(r)
	if err != nil {
		return err
	}
	if err := c.makeGroup(r.DeviceFilter); err != nil {
		return err
	}
	st := &streams{buffers: &c.m.buffers, rows: config.Rows, cols: config.Cols}
	c.init = &process{io: st, done: make(chan struct{})}
	terminal := c.spec.Process.Terminal
	if err := st.dial(c.m.Dial, r.Stdio.files(terminal)); err != nil {
		st.close()
		return err
	}
	if c.m.Mounted != nil {
		if err := c.m.Mounted(); err != nil {
			st.close()
			return err
		}
	}
	if err := c.spawn(config); err != nil {
		st.close()
		return err
	}
	if err := c.prepare(r, terminal); err != nil {
		c.peer.Close()
		_ = c.init.proc.Signal(unix.SIGKILL)
		_ = c.group.Kill()
		<-c.init.proc.Done()
		_ = c.group.WaitEmpty(context.Background())
		st.close()
		return err
	}
	c.watch.Go(c.watchInit)
	return nil
}

// config is what the first process is told.
func (c *Container) config(r *CreateRequest) (*setup.Config, error) {
	s := c.spec
	rootfs, mounts, err := c.mounts(r.Trees)
	if err != nil {
		return nil, err
	}
	if r.Notify {
		if c.notify, err = listenNotify(filepath.Join(c.m.RunDir, "notify", c.id)); err != nil {
			return nil, fmt.Errorf("make the notify socket: %w", err)
		}
		mounts = append(mounts, c.notify.mount())
	}
	personality, err := s.personality()
	if err != nil {
		return nil, err
	}
	_, sysctls, err := s.sysctls(c.ns)
	if err != nil {
		return nil, err
	}
	var height, width uint
	if b := s.Process.ConsoleSize; b != nil {
		height, width = b.Height, b.Width
	}
	rows, cols, err := windowSize(r.Rows, r.Cols, height, width)
	if err != nil {
		return nil, err
	}
	var devices string
	if c.ns&unix.CLONE_NEWUSER != 0 {
		uid, gid := guestID(0, s.Linux.UIDMappings), guestID(0, s.Linux.GIDMappings)
		if uid < 0 || gid < 0 {
			return nil, fmt.Errorf("linux.uidMappings and gidMappings must map id 0")
		}
		if devices, err = c.deviceDir(uid, gid); err != nil {
			return nil, err
		}
	}
	cgroupPath, err := cgroup.Path(s.Linux.CgroupsPath, c.id)
	if err != nil {
		return nil, err
	}
	return &setup.Config{
		Process: s.Process, Base: c.m.Base, Rootfs: rootfs, Readonly: s.Root.Readonly,
		Propagation: s.Linux.RootfsPropagation, Mounts: mounts,
		Devices: setup.MergeDevices(s.Linux.Devices), DeviceDir: devices,
		CgroupNS: c.ns&unix.CLONE_NEWCGROUP != 0, CgroupDir: c.m.CgroupRoot + cgroupPath,
		Hostname: s.Hostname, Domainname: s.Domainname, Sysctl: sysctls,
		MaskedPaths: s.Linux.MaskedPaths, ReadonlyPaths: s.Linux.ReadonlyPaths,
		Rows: rows, Cols: cols, Hooks: s.StartContainer, HookState: s.HookState,
		Seccomp: r.Seccomp, SeccompFlags: r.SeccompFlags,
		Personality: personality, KeyringName: c.keyringName(), LastCap: c.m.LastCap,
	}, nil
}

// keyringName is that of the session keyring, as runc has it; empty for none.
func (c *Container) keyringName() string {
	if c.noKeyring {
		return ""
	}
	return "_ses." + c.id
}

func (c *Container) makeGroup(filter []byte) error {
	path, err := cgroup.Path(c.spec.Linux.CgroupsPath, c.id)
	if err != nil {
		return err
	}
	if c.group, err = cgroup.Create(c.m.CgroupRoot, path); err != nil {
		return err
	}
	if len(filter) > 0 {
		return c.group.AttachDevices(filter)
	}
	return nil
}

// spawn starts the first process in its namespaces and its cgroup.
func (c *Container) spawn(config *setup.Config) error {
	file, err := config.File()
	if err != nil {
		return err
	}
	defer file.Close()
	peer, theirs, err := setup.NewPeer()
	if err != nil {
		return err
	}
	defer theirs.Close()
	fds, err := c.init.io.descriptors(config.Process.Terminal, guestID(config.Process.User.UID, c.spec.Linux.UIDMappings))
	if err != nil {
		peer.Close()
		return err
	}
	defer closeAll(fds)
	group, err := c.group.Open()
	if err != nil {
		peer.Close()
		return err
	}
	defer unix.Close(group)

	files := make([]uintptr, 0, len(fds)+2)
	for _, fd := range fds {
		files = append(files, uintptr(fd))
	}
	attr := &syscall.ProcAttr{
		Dir: "/",
		// A process of milliseconds needs one thread for its Go code.
		Env:   []string{"GOMAXPROCS=1"},
		Files: append(files, theirs.Fd(), file.Fd()),
		Sys: &syscall.SysProcAttr{
			Cloneflags:  c.ns &^ (unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME),
			UseCgroupFD: true, CgroupFD: group,
		},
	}
	if c.ns&unix.CLONE_NEWUSER != 0 {
		attr.Sys.UidMappings = idMap(c.spec.Linux.UIDMappings)
		attr.Sys.GidMappings = idMap(c.spec.Linux.GIDMappings)
		attr.Sys.GidMappingsEnableSetgroups = true
		attr.Sys.Credential = &syscall.Credential{}
	}
	c.init.proc, err = c.m.Reaper.Start(func() (int, error) {
		pid, err := c.forkExec(setup.Argv(len(fds)), attr)
		if err == nil {
			c.pidfd, err = unix.PidfdOpen(pid, 0)
		}
		return pid, err
	})
	if err != nil {
		peer.Close()
		return fmt.Errorf("start the container's init: %w", err)
	}
	c.peer = peer
	return nil
}

// prepare waits until the first process is ready to exec, and sets what is set
// from outside.
func (c *Container) prepare(r *CreateRequest, terminal bool) error {
	if err := c.setUpNetwork(r.Network); err != nil {
		return err
	}
	if terminal {
		master, slave, err := c.peer.Console()
		if err != nil {
			return err
		}
		if err := c.init.io.terminal(master, slave); err != nil {
			return err
		}
	}
	c.listener = r.Listener
	taken := make(chan error, 1)
	early := len(r.Listener) > 0 && !c.spec.Process.NoNewPrivileges
	if early {
		go func() { taken <- c.takeListener() }()
	}
	if err := c.peer.Ready(); err != nil {
		return err
	}
	if early {
		if err := <-taken; err != nil {
			return err
		}
	}
	pid, p := c.init.proc.Pid, c.spec.Process
	if err := task.SetOOMScoreAdj(pid, p.OOMScoreAdj); err != nil {
		return err
	}
	if err := task.SetIOPriority(pid, p.IOPriority); err != nil {
		return err
	}
	if err := task.SetScheduler(pid, p.Scheduler); err != nil {
		return err
	}
	if err := task.SetLimits(pid, p.Rlimits); err != nil {
		return err
	}
	// Last: they are the workload's, and may be less than it takes to set it up.
	return c.group.Apply(c.spec.Linux.Resources)
}
