package monitor

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"runv/agent/api"
	"runv/agent/wire"
	"runv/libvm/ctl"
	"runv/libvm/guest"
	"runv/libvm/state"
)

// session is one exec'd process.
type session struct {
	container *container
	id        string // exec id in the agent
	pid       int    // in the guest
	relay     *relay
}

var _ ctl.ExecSession = (*session)(nil)

// Exec starts a further process in the container and returns once it exec'd.
func (c *container) Exec(ctx context.Context, r ctl.ExecRequest) (ctl.ExecSession, error) {
	f := files{stdin: r.Stdin, stdout: r.Stdout, stderr: r.Stderr, tty: r.TTY, extra: r.Extra}
	s, err := c.newSession(f)
	if err != nil {
		return nil, err
	}
	p, err := terminalOf(r.Process)
	if err != nil {
		s.forget()
		return nil, err
	}
	if p.Terminal != (r.TTY != nil) {
		s.forget()
		return nil, errors.New("exec: process.terminal and the given files do not fit")
	}
	req := &api.ExecRequest{Id: c.monitor.launch.ID, ExecId: s.id, Process: wire.MarshalProcess(p), Stdio: s.relay.stdio(), Cgroup: r.Cgroup, Rows: uint32(r.Rows), Cols: uint32(r.Cols)}
	if c.monitor.spec.Linux != nil {
		if req.Seccomp, req.SeccompFlags, err = compileSeccomp(c.monitor.spec.Linux.Seccomp); err != nil {
			s.forget()
			return nil, err
		}
	}
	var listening func(bool) error
	req.Listener, listening = c.monitor.listeners.listen(c.monitor.machine.guest, c.monitor.processState(state.Running))
	// The agent finishes what it began, and does not hear of a client that goes
	// meanwhile: only its answer says whether there is a process to end.
	var resp *api.ExecResponse
	err = c.vcpus.while(func() (err error) {
		resp, err = c.agent().Exec(context.WithoutCancel(ctx), req)
		return guest.Error(err)
	})
	if err != nil {
		s.forget()
		if lerr := listening(false); lerr != nil && !errors.Is(lerr, guest.ErrLost) {
			return nil, lerr
		}
		return nil, c.explain(ctx, err)
	}
	s.pid = int(resp.Pid)
	if err := ctx.Err(); err != nil {
		s.Close() //nolint:errcheck // nobody is left to tell
		return nil, err
	}
	if err := s.relay.start(ctx); err != nil {
		s.Close() //nolint:errcheck // the first error tells more
		return nil, fmt.Errorf("stdio of the process: %w", err)
	}
	return s, nil
}

// newSession registers a session, unless the container has ended.
func (c *container) newSession(f files) (*session, error) {
	f.dropNull()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status == state.Stopped || c.sessions == nil {
		f.close()
		return nil, errors.New("cannot exec in a stopped container")
	}
	r, err := newRelay(c.monitor.machine.guest, f)
	if err != nil {
		return nil, err
	}
	c.nextExec++
	s := &session{container: c, id: "exec" + strconv.Itoa(c.nextExec), relay: r}
	c.sessions[s] = true
	return s, nil
}

// forget ends the session's relay and drops it.
func (s *session) forget() {
	s.container.mu.Lock()
	delete(s.container.sessions, s)
	s.container.mu.Unlock()
	s.relay.close()
}

// PID returns the process's id in the guest.
func (s *session) PID() int { return s.pid }

// Signal sends sig to the process.
func (s *session) Signal(ctx context.Context, sig int) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return s.call(func(a api.AgentService) error {
		_, err := a.Signal(ctx, &api.SignalRequest{Id: s.container.monitor.launch.ID, ExecId: s.id, Signal: uint32(sig)})
		return err
	})
}

// Resize sets the window size of the process's terminal.
func (s *session) Resize(ctx context.Context, rows, cols uint16) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return s.call(func(a api.AgentService) error {
		_, err := a.Resize(ctx, &api.ResizeRequest{Id: s.container.monitor.launch.ID, ExecId: s.id, Rows: uint32(rows), Cols: uint32(cols)})
		return err
	})
}

// call asks the agent something that it answers at once.
func (s *session) call(f func(api.AgentService) error) error {
	return s.container.vcpus.while(func() error { return guest.Error(f(s.container.agent())) })
}

// Wait returns the exit status once the process has ended and what it wrote
// before that was delivered. A child that it left behind may go on writing. If
// the VM ended under it, it was killed.
func (s *session) Wait(ctx context.Context) (int, error) {
	r, err := s.container.agent().Wait(ctx, &api.WaitRequest{Id: s.container.monitor.launch.ID, ExecId: s.id})
	if err != nil {
		// It waits for the VM's end, if that is the reason.
		err = s.container.explain(ctx, guest.Error(err))
		select {
		case <-s.container.monitor.machine.vm.Done():
			return statusLost, nil
		default:
			return statusLost, err
		}
	}
	counts := []uint64{r.StdoutBytes, r.StderrBytes}
	for _, w := range r.Extra {
		counts = append(counts, w.Bytes)
	}
	s.relay.delivered(ctx, counts...)
	return clampStatus(r.Status), nil
}

// Close ends the session: a process that still runs is killed. What it left
// behind in the background keeps its output, and what it has open beside stdin,
// until that ends by itself.
func (s *session) Close() error {
	err := s.Signal(context.Background(), int(unix.SIGKILL))
	s.relay.endInput()
	go func() { // ends with the process's last child, or the container
		s.relay.finished()
		s.forget()
	}()
	return err
}
