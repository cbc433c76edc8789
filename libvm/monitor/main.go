package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/cgroup"
	"runv/libvm/ctl"
	"runv/libvm/hostfs"
	"runv/libvm/kvm"
	"runv/libvm/network"
	"runv/libvm/state"
	"runv/libvm/virtio/fs/passthrough"
)

// statusFailed is the monitor's exit status when there was no workload's.
const statusFailed = 1

// statusLost is the exit status when the VM ended under the workload: that of a
// process that was killed.
const statusLost = 128 + int(unix.SIGKILL)

// monitor is the state of this process.
type monitor struct {
	launch Launch
	spec   specs.Spec
	sock   *net.UnixConn // to the creator
	words  io.Reader     // what the creator says behind the launch
	hooked chan struct{} // closed when the creator's hooks have run
	umask  int           // of the creator
	log    *slog.Logger

	state   *state.Dir
	exit    *cgroup.Exit // until the container is committed
	oom     *cgroup.OOM
	control *net.UnixListener
	stdio   files
	console *os.File // the connection to the console socket, until it was used
	term    *terminal
	view    *hostfs.View
	disks   []*disk
	machine *machine
	mostRAM uint64             // to which it may grow, bytes
	network *network.Namespace // of the container; container.plugging guards it
	watcher *network.Watcher   // of its changes
	// resolvConf is the container's, as long as that is a file of the host.
	resolvConf *os.File
	// degraded is why the backend is not as fast as it could be. It is logged
	// only when the container exists: an engine takes the one line of a failed
	// create for the error.
	degraded error
	diskless []error        // the nodes that have no device in the guest; logged so, too
	signals  chan os.Signal // for the workload

	standIn     net.Conn      // nil: this is the container's process itself
	standInGone chan struct{} // closed when it has ended
	ending      atomic.Bool   // the stand-in may

	container *container
	listeners *listeners // of its seccomp profile; nil: it has none
}

// Main is the hidden monitor command; it returns the exit status.
func Main() int {
	signals := catchSignals()
	m, err := takeOver()
	if errors.Is(err, io.EOF) {
		return statusFailed // the creator was interrupted before it said anything
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "runv monitor:", err) //nolint:errcheck // nobody else to tell
		return statusFailed
	}
	m.signals = signals
	if m.standIn != nil {
		go m.attendStandIn()
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// Until the container is committed its creator's end is ours.
	committed := make(chan error, 1)
	go func() { committed <- m.awaitCommit(cancel) }()

	err = m.create(ctx)
	if err == nil {
		err = m.send(reply{})
	}
	if err == nil {
		err = <-committed
	}
	if err != nil {
		m.fail(ctx, err)
		return statusFailed
	}
	m.exit.Close()
	status := m.serve(ctx)
	m.close()
	if status == statusLost && m.container.diedOfOOM() {
		m.oom.Kill()
	}
	m.endStandIn(status)
	return status
}

// fail takes everything back, and tells the creator, or, if that has gone (it
// may have been killed), removes the state directory in its place.
func (m *monitor) fail(ctx context.Context, cause error) {
	m.ending.Store(true)
	m.log.Debug("create failed", "error", cause)
	gone := ctx.Err() != nil
	if m.machine != nil {
		m.machine.vm.Close() //nolint:errcheck // before the id is free for another one
	}
	if gone && m.state != nil {
		m.endStandIn(statusFailed)
		if err := errors.Join(m.exit.Leave(), m.state.Remove()); err != nil {
			m.log.Error("remove the state", "error", err)
		}
	}
	m.close()
	if !gone {
		m.send(reply{Error: cause.Error()}) //nolint:errcheck // if it goes now, delete cleans up
	}
}

// awaitCommit waits for the creator's words. Without the last everything ends.
func (m *monitor) awaitCommit(cancel context.CancelFunc) error {
	done := !m.launch.Hooked
	for {
		var b [1]byte
		_, err := io.ReadFull(m.words, b[:])
		switch {
		case err != nil:
			cancel()
			return fmt.Errorf("the creator went away: %w", err)
		case b[0] == commit:
			return nil
		case b[0] == hooked && !done:
			close(m.hooked)
			done = true
		}
		// Or the newline behind the launch, which a JSON decoder leaves.
	}
}

// awaitHooks waits until the creator has run its hooks: what they mount and which
// interfaces they bring counts.
func (m *monitor) awaitHooks(ctx context.Context) error {
	select {
	case <-m.hooked:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *monitor) send(r reply) error { return json.NewEncoder(m.sock).Encode(r) }

// create does everything up to the workload's process waiting for its exec.
func (m *monitor) create(ctx context.Context) error {
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"host name", m.nameHost},
		{"leave the host's mounts", m.leaveMounts},
		{"open state", m.openState},
		{"terminal", m.openTerminal},
		{"start vm", m.boot},
		{"await hooks", m.awaitHooks},
		{"prepare view", m.prepareView},
		{"await agent", m.awaitAgent},
		{"create container", m.createConfined},
		{"save state", m.saveCreated},
	}
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.do(ctx); err != nil {
			return err
		}
		m.log.Debug("done", "step", s.name)
	}
	return nil
}

// leaveMounts keeps what is mounted from here on away from the host, and lets the
// creator run its hooks.
func (m *monitor) leaveMounts(context.Context) error {
	if err := hostfs.Separate(); err != nil {
		return err
	}
	if !m.launch.Hooked {
		return nil
	}
	return m.send(reply{Hooks: true})
}

// openState opens the state directory and the control socket in it, while their
// paths still lead there.
func (m *monitor) openState(context.Context) error {
	root, err := os.Open(m.launch.Root)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	dir, err := os.Open(m.launch.StateDir)
	if err != nil {
		root.Close() //nolint:errcheck // a directory
		return fmt.Errorf("state directory: %w", err)
	}
	m.state = state.FromFiles(root, dir, m.launch.ID)
	if m.exit, err = cgroup.OpenExit(m.launch.Cgroup); err != nil {
		return err
	}
	if r := m.spec.Linux.Resources; r == nil || r.Memory == nil || r.Memory.DisableOOMKiller == nil || !*r.Memory.DisableOOMKiller {
		// It would stand still for ever otherwise.
		if m.oom, err = cgroup.OpenOOM(m.launch.Cgroup); err != nil {
			return err
		}
	}
	m.control, err = ctl.Listen(dir)
	return err
}

func (m *monitor) openTerminal(context.Context) (err error) {
	if m.console == nil {
		return nil
	}
	m.term, err = newTerminal(m.console, m.spec.Process.ConsoleSize)
	m.console = nil
	if err == nil {
		m.stdio.tty = m.term.slave
	}
	return err
}

func (m *monitor) boot(ctx context.Context) (err error) {
	m.machine, err = m.startMachine(ctx)
	return underProfile(err, m.profile())
}

// profile is that of AppArmor which everything of the container on the host gets.
func (m *monitor) profile() string { return m.spec.Process.ApparmorProfile }

// prepareView builds what the host shares, hands it to the file server, and
// leaves the host's file systems for good.
func (m *monitor) prepareView(ctx context.Context) (err error) {
	self, err := state.Self() // the /proc that knows our pid outside is gone below
	if err != nil {
		return fmt.Errorf("own pid: %w", err)
	}
	if m.view, err = hostfs.Prepare(m.launch.Bundle, m.launch.Rootfs, &m.spec); err != nil {
		return err
	}
	for _, t := range m.view.Trees {
		if t.Root == nil {
			continue // the guest's own
		}
		if err := m.machine.files.AddTree(treeKey(m.launch.ID, t.Mount), t.Name, t.Root, treeOptions(&t)); err != nil {
			return fmt.Errorf("share %q: %w", t.Name, err)
		}
	}
	if err := m.runHooks(ctx); err != nil {
		return err
	}
	if m.listeners, err = m.openListeners(); err != nil {
		return err
	}
	if err := m.view.Pivot(); err != nil {
		return err
	}
	ram, cpus := m.launch.Size(&m.spec)
	m.container = &container{monitor: m, self: m.stateProcess(self), monitorSelf: self, ram: ram, cpus: cpus, resources: m.spec.Linux.Resources, vcpus: stopper{vm: m.machine.vm}, sessions: map[*session]bool{}}
	return dropCapabilities(kept | forConfine)
}

// treeOptions says how the file server shares a tree.
func treeOptions(t *hostfs.Tree) passthrough.TreeOptions {
	o := passthrough.TreeOptions{ReadOnly: t.ReadOnly}
	if m := t.IDs; m != nil {
		o.IDs = &passthrough.IDMap{UID: idRanges(m.UID), GID: idRanges(m.GID), Recursive: m.Recursive}
	}
	return o
}

func idRanges(m []specs.LinuxIDMapping) []passthrough.IDRange {
	out := make([]passthrough.IDRange, len(m))
	for i, r := range m {
		out[i] = passthrough.IDRange{File: r.ContainerID, Guest: r.HostID, Size: r.Size}
	}
	return out
}

func (m *monitor) awaitAgent(ctx context.Context) error {
	_, cpus := m.launch.Size(&m.spec)
	limit := time.Duration(m.launch.Config.BootLimit) * time.Second
	if err := m.machine.awaitAgent(ctx, limit*time.Duration(min(cpus, onlineCPUs()))); err != nil {
		return underProfile(err, m.profile())
	}
	if own, ok := m.machine.vm.(*kvm.Machine); ok {
		m.log.Debug("set up the virtual machine", "cpu_us", own.Timing().CPU.Microseconds())
	}
	return nil
}

// createConfined has the guest make the container while the VM is locked up, which
// takes about as long: nothing runs in the guest yet but what we gave it.
func (m *monitor) createConfined(ctx context.Context) error {
	confined := make(chan error, 1)
	go func() { confined <- m.confine() }()
	err := m.container.create(ctx)
	return errors.Join(err, <-confined)
}

func (m *monitor) saveCreated(context.Context) error { return m.container.save(state.Created) }

// close frees whatever create had made, in the reverse order.
func (m *monitor) close() {
	if m.container != nil {
		m.container.close()
	}
	if m.machine != nil {
		m.machine.close()
	}
	if m.listeners != nil {
		m.listeners.close()
	}
	for _, d := range m.disks {
		d.disk.Close() //nolint:errcheck // all was written, or the guest was told
	}
	if m.network != nil {
		m.network.Close()
	}
	if m.resolvConf != nil {
		m.resolvConf.Close() //nolint:errcheck // only read from
	}
	if m.watcher != nil {
		m.watcher.Close() //nolint:errcheck // only listened
	}
	if m.view != nil {
		m.view.Close()
	}
	if m.term != nil {
		m.term.close()
	} else {
		m.stdio.close()
	}
	if m.control != nil {
		m.control.Close() //nolint:errcheck // removes the socket, or the directory is gone
	}
	if m.state != nil {
		m.state.Close() //nolint:errcheck // directories
	}
}
