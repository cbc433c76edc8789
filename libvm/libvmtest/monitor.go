// Package libvmtest has a monitor without a virtual machine, for tests of the
// commands: the workload is a process of the host. A test program runs it when
// it is called as `runv monitor`, which is how package monitor starts one.
package libvmtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/ctl"
	"runv/libvm/inherit"
	"runv/libvm/monitor"
	"runv/libvm/state"
	"runv/libvm/tty"
)

// Annotations by which a bundle tells the monitor to misbehave.
const (
	Fail = "test.fail" // create fails with the value as its error
	Hang = "test.hang" // create never becomes ready; the value is a file made when it hangs
	Deaf = "test.deaf" // SIGKILL to the guest is answered by an error
)

// Monitor stands in for monitor.Main and returns the exit status.
func Monitor() int {
	m := &fake{}
	if err := m.create(); err != nil {
		_ = json.NewEncoder(m.sock).Encode(map[string]string{"error": err.Error()})
		return 1
	}
	_ = json.NewEncoder(m.sock).Encode(map[string]string{})
	b := make([]byte, 1)
	for b[0] != 'c' { // a newline may be left of the launch
		if _, err := m.sock.Read(b); err != nil {
			return 1 // the creator went away
		}
	}
	return m.serve()
}

type fake struct {
	sock   net.Conn
	launch monitor.Launch
	spec   specs.Spec
	dir    *state.Dir
	l      *net.UnixListener
	stdio  [3]*os.File
	tty    *os.File

	mu     sync.Mutex
	status state.Status
	cmd    *exec.Cmd
	ended  chan int
}

func (m *fake) create() error {
	var err error
	if m.sock, err = net.FileConn(os.NewFile(3, "creator")); err != nil {
		return err
	}
	if err := json.NewDecoder(m.sock).Decode(&m.launch); err != nil {
		return err
	}
	if err := json.Unmarshal(m.launch.Spec, &m.spec); err != nil {
		return err
	}
	if words := m.spec.Annotations[Fail]; words != "" {
		return errors.New(words)
	}
	if path := m.spec.Annotations[Hang]; path != "" {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, m.sock)
		return errors.New("the creator went away")
	}
	if _, err := exec.LookPath(m.spec.Process.Args[0]); err != nil {
		return fmt.Errorf("unable to start container process: %w", err)
	}
	m.stdio = [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	m.ended = make(chan int, 8)
	if m.launch.Terminal {
		if err := m.openTerminal(); err != nil {
			return err
		}
	}
	if m.dir, err = state.Open(m.launch.Root, m.launch.ID); err != nil {
		return err
	}
	if m.l, err = ctl.Listen(m.dir.File()); err != nil {
		return err
	}
	return m.save(state.Created)
}

func (m *fake) openTerminal() error {
	conn := os.NewFile(4, "console socket")
	master, slave, err := tty.Open()
	if err != nil {
		return err
	}
	if err := tty.Send(conn, master); err != nil {
		return err
	}
	_, _ = conn.Close(), master.Close()
	m.tty = slave
	m.stdio = [3]*os.File{slave, slave, slave}
	return nil
}

func (m *fake) save(s state.Status) error {
	self, err := state.Self()
	if err != nil {
		return err
	}
	m.status = s
	return m.dir.Save(state.State{
		Public: state.Public{
			Version: specs.Version, ID: m.launch.ID, PID: self.PID, Status: s, Bundle: m.launch.Bundle,
			Rootfs: m.launch.Rootfs, Created: time.Now().UTC(), Annotations: m.spec.Annotations,
		},
		StartTime: self.StartTime, Cgroup: m.launch.Cgroup, Resources: m.spec.Linux.Resources,
	})
}

func (m *fake) serve() int {
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP) // ignored, but not by what we start
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- ctl.Serve(ctx, m.l, m) }()
	status := <-m.ended
	m.mu.Lock()
	_ = m.save(state.Stopped)
	m.mu.Unlock()
	cancel()
	<-served //nolint:errcheck // the listener was closed
	return status
}

func (m *fake) Start(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch m.status {
	case state.Running:
		return state.ErrRunning
	case state.Stopped:
		return state.ErrStopped
	}
	p := m.spec.Process
	cmd := exec.Command(p.Args[0], p.Args[1:]...)
	cmd.Env = p.Env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = m.stdio[0], m.stdio[1], m.stdio[2]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: m.tty != nil}
	if err := cmd.Start(); err != nil {
		return err
	}
	for _, f := range m.stdio {
		_ = f.Close()
	}
	m.cmd = cmd
	go func() { m.ended <- exitStatus(cmd) }()
	return m.save(state.Running)
}

func exitStatus(cmd *exec.Cmd) int {
	_ = cmd.Wait()
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

func (m *fake) Update(_ context.Context, r *specs.LinuxResources) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spec.Linux.Resources = r
	return m.save(m.status)
}

func (m *fake) Metrics(context.Context) (ctl.Metrics, error) {
	return ctl.Metrics{"cpu.stat": "usage_usec 7\nuser_usec 5\nsystem_usec 2\n", "pids.current": "3\n"}, nil
}

func (m *fake) AwaitOOM(ctx context.Context, seen uint64) (uint64, bool, error) {
	<-ctx.Done()
	return seen, true, nil
}

func (m *fake) Place() state.Cgroup { return m.launch.Cgroup }

func (m *fake) Signal(_ context.Context, sig int, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if sig == int(unix.SIGKILL) && m.spec.Annotations[Deaf] != "" {
		return errors.New("the guest does not answer")
	}
	switch {
	case m.status == state.Stopped:
		return state.ErrNotRunning
	case m.cmd == nil && sig == 0:
		return nil
	case m.cmd == nil:
		m.ended <- 128 + sig
		return nil
	}
	return m.cmd.Process.Signal(unix.Signal(sig))
}

func (m *fake) Pause(context.Context) error {
	return m.turn(state.Running, state.Paused, state.ErrNotRunning)
}

func (m *fake) Resume(context.Context) error {
	return m.turn(state.Paused, state.Running, state.ErrNotPaused)
}

// turn only changes the status.
func (m *fake) turn(from, to state.Status, failed error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.status != from {
		return failed
	}
	return m.save(to)
}

// Ready is at once: there is no guest to have a socket.
func (*fake) Ready(context.Context) error { return nil }

func (m *fake) Processes(context.Context) ([]ctl.Process, error) {
	return []ctl.Process{
		{PID: 90, PPID: 1, ContainerPID: 1, Comm: "sleep", Args: "/bin/sleep 100"},
		{PID: 95, PPID: 90, ContainerPID: 7, UID: 5, Comm: "kworker"},
	}, nil
}

func (m *fake) Exec(_ context.Context, r ctl.ExecRequest) (ctl.ExecSession, error) {
	files := []*os.File{r.Stdin, r.Stdout, r.Stderr}
	if r.TTY != nil {
		files = []*os.File{r.TTY, r.TTY, r.TTY}
	}
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
		inherit.Close(r.Extra)
	}()
	var p specs.Process
	if err := json.Unmarshal(r.Process, &p); err != nil {
		return nil, err
	}
	cmd := exec.Command(p.Args[0], p.Args[1:]...)
	cmd.Env = p.Env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	for _, f := range r.Extra {
		cmd.ExtraFiles = append(cmd.ExtraFiles, f.File)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("unable to start container process: %w", err)
	}
	s := &session{cmd: cmd, status: make(chan int, 1)}
	if r.TTY != nil {
		// For resize; the fake's terminal is that of the process, too.
		fd, err := unix.FcntlInt(r.TTY.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			s.tty = os.NewFile(uintptr(fd), "terminal")
		}
	}
	go func() { s.status <- exitStatus(cmd) }()
	return s, nil
}

type session struct {
	cmd    *exec.Cmd
	tty    *os.File
	status chan int
}

func (s *session) PID() int { return s.cmd.Process.Pid }

func (s *session) Signal(_ context.Context, sig int) error {
	return s.cmd.Process.Signal(unix.Signal(sig))
}

func (s *session) Resize(_ context.Context, rows, cols uint16) error {
	return tty.SetSize(s.tty, rows, cols)
}

func (s *session) Wait(ctx context.Context) (int, error) {
	select {
	case n := <-s.status:
		if s.tty != nil {
			_ = s.tty.Close()
		}
		return n, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (s *session) Close() error {
	_ = s.cmd.Process.Kill() // it may have ended
	return nil
}
