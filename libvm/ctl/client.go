package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/state"
)

// Client is a command's connection to a monitor. One call at a time.
type Client struct {
	conn *net.UnixConn
}

// Dial connects to the monitor of the open state directory dir.
// state.ErrNotRunning if no monitor answers there.
func Dial(ctx context.Context, dir *os.File) (*Client, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", address(dir).Name)
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return nil, state.ErrNotRunning
	case err != nil:
		return nil, fmt.Errorf("connect to the monitor: %w", err)
	}
	return &Client{conn: c.(*net.UnixConn)}, nil
}

// Close hangs up.
func (c *Client) Close() error { return c.conn.Close() }

// MonitorPID is the process that listens, by the kernel's word; for a
// container whose state file is lost.
func (c *Client) MonitorPID() (int, error) {
	cred, err := peer(c.conn)
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// Place is where the container is in the host's cgroups; for one whose state file
// is lost.
func (c *Client) Place(ctx context.Context) (state.Cgroup, error) {
	m, err := c.call(ctx, message{Type: typePlace})
	if err != nil || m.Cgroup == nil {
		return state.Cgroup{}, err
	}
	return *m.Cgroup, nil
}

// Start lets the workload exec.
func (c *Client) Start(ctx context.Context) error {
	_, err := c.call(ctx, message{Type: typeStart})
	return err
}

// Signal sends a signal (its number on x86-64) to the first process, or to all
// of the container.
func (c *Client) Signal(ctx context.Context, sig int, all bool) error {
	_, err := c.call(ctx, message{Type: typeSignal, Signal: sig, All: all})
	return err
}

// Pause stops the container, and the VM. state.ErrNotRunning.
func (c *Client) Pause(ctx context.Context) error {
	_, err := c.call(ctx, message{Type: typePause})
	return err
}

// Resume undoes a Pause. state.ErrNotPaused.
func (c *Client) Resume(ctx context.Context) error {
	_, err := c.call(ctx, message{Type: typeResume})
	return err
}

// Ready returns once the container has said on its notify socket that it is
// ready. state.ErrNotRunning or ErrGone if it has ended.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.call(ctx, message{Type: typeReady})
	return err
}

// Update replaces the container's limits. state.ErrNotRunning.
func (c *Client) Update(ctx context.Context, r *specs.LinuxResources) error {
	_, err := c.call(ctx, message{Type: typeUpdate, Resources: r})
	return err
}

// Metrics reads what the container uses.
func (c *Client) Metrics(ctx context.Context) (Metrics, error) {
	m, err := c.call(ctx, message{Type: typeMetrics})
	return m.Metrics, err
}

// AwaitOOM waits until the kernel has killed more processes of the container than
// seen for want of memory, or the container has ended.
func (c *Client) AwaitOOM(ctx context.Context, seen uint64) (killed uint64, ended bool, err error) {
	m, err := c.call(ctx, message{Type: typeOOM, Killed: seen})
	return m.Killed, m.Ended, err
}

// Processes lists the processes in the guest.
func (c *Client) Processes(ctx context.Context) ([]Process, error) {
	m, err := c.call(ctx, message{Type: typeProcesses})
	return m.Processes, err
}

// Exec runs a process; it returns once the process exec'd in the guest. The
// files of r stay the caller's and may be closed then. The connection belongs
// to the session, which is over when it is closed.
func (c *Client) Exec(ctx context.Context, r ExecRequest) (*Session, error) {
	files := []*os.File{r.Stdin, r.Stdout, r.Stderr}
	if r.TTY != nil {
		files = []*os.File{r.TTY}
	}
	m := message{Type: typeExec, Process: r.Process, Below: r.Cgroup, Rows: r.Rows, Cols: r.Cols}
	for _, f := range r.Extra {
		m.Extra, files = append(m.Extra, f.Access), append(files, f.File)
	}
	m, err := c.call(ctx, m, files...)
	if err != nil {
		return nil, err
	}
	return &Session{conn: c.conn, pid: m.PID}, nil
}

// call sends a request and reads its answer.
func (c *Client) call(ctx context.Context, m message, files ...*os.File) (message, error) {
	defer cutAt(ctx, c.conn)()
	if err := send(c.conn, m, files...); err != nil {
		return message{}, lost(ctx, err)
	}
	answer, _, err := recvNoFiles(c.conn)
	if err != nil {
		return message{}, lost(ctx, err)
	}
	switch answer.Type {
	case typeOK:
		return answer, nil
	case typeError:
		return message{}, remoteError(answer.Error)
	}
	return message{}, fmt.Errorf("unexpected answer %q to %q", answer.Type, m.Type)
}

func recvNoFiles(c *net.UnixConn) (message, int, error) {
	m, files, err := recv(c)
	closeAll(files) // a monitor sends none
	return m, len(files), err
}

// cutAt makes the calls on c fail once ctx ends, until the returned function
// is called. Those that follow are not cut, even if ctx ended at that moment.
func cutAt(ctx context.Context, c *net.UnixConn) func() {
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		_ = c.SetDeadline(time.Unix(1, 0))
	})
	return func() {
		if !stop() {
			<-cut
			_ = c.SetDeadline(time.Time{})
		}
	}
}

// lost says why a connection failed: our context, or the monitor's end.
func lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrGone
	}
	return err
}

// ErrGone says that the monitor hung up without an answer: it ended, or was
// killed.
var ErrGone = errors.New("the container's monitor has gone")

// Session is a process that Exec started. Signal and Resize may be called
// while Wait waits.
type Session struct {
	conn *net.UnixConn
	pid  int
	mu   sync.Mutex // held while a message is written
}

// PID is the process's id in the guest.
func (s *Session) PID() int { return s.pid }

// File is the session's connection for another process, which makes a session
// of it again with Resume. It must be taken before Wait is called.
func (s *Session) File() (*os.File, error) { return s.conn.File() }

// Resume makes a session of the File of another; f is closed.
func Resume(f *os.File, pid int) (*Session, error) {
	c, err := net.FileConn(f)
	_ = f.Close() // FileConn made its own
	if err != nil {
		return nil, fmt.Errorf("take over the exec session: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, errors.New("take over the exec session: not a unix socket")
	}
	return &Session{conn: u, pid: pid}, nil
}

// Signal sends a signal (its number on x86-64) to the process.
func (s *Session) Signal(ctx context.Context, sig int) error {
	return s.send(ctx, message{Type: typeSignal, Signal: sig})
}

// Resize sets the size of the process's terminal, characters.
func (s *Session) Resize(ctx context.Context, rows, cols uint16) error {
	return s.send(ctx, message{Type: typeResize, Rows: rows, Cols: cols})
}

func (s *Session) send(ctx context.Context, m message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := send(s.conn, m); err != nil {
		return lost(ctx, err)
	}
	return nil
}

// Wait returns the process's exit status (128+n for signal n) after its
// streams were drained. ErrGone if the monitor ended before.
func (s *Session) Wait(ctx context.Context) (int, error) {
	defer cutAt(ctx, s.conn)()
	m, _, err := recvNoFiles(s.conn)
	if err != nil {
		return 0, lost(ctx, err)
	}
	switch m.Type {
	case typeExit:
		return m.Status, nil
	case typeError:
		return 0, remoteError(m.Error)
	}
	return 0, fmt.Errorf("unexpected message %q in an exec session", m.Type)
}

// Close hangs up; the process is killed if it still runs.
func (s *Session) Close() error { return s.conn.Close() }
