package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/inherit"
	"runv/libvm/state"
)

// Handler is what a monitor does for the commands. Its methods are called
// concurrently. The words of its errors reach the user as they are.
type Handler interface {
	// Start lets the workload exec. state.ErrRunning, state.ErrStopped.
	Start(ctx context.Context) error
	// Signal sends a signal to the first process, or to all of the container.
	// state.ErrNotRunning.
	Signal(ctx context.Context, sig int, all bool) error
	// Pause stops the container, and the VM. state.ErrNotRunning.
	Pause(ctx context.Context) error
	// Resume undoes a Pause. state.ErrNotPaused.
	Resume(ctx context.Context) error
	// Exec runs a further process, and returns once it exec'd in the guest.
	// The context ends when the client hangs up.
	Exec(ctx context.Context, r ExecRequest) (ExecSession, error)
	// Ready returns once the container has said on its notify socket that it is
	// ready. state.ErrNotRunning if it has ended.
	Ready(ctx context.Context) error
	// Processes lists the processes of the container.
	Processes(ctx context.Context) ([]Process, error)
	// Update replaces the container's limits. state.ErrNotRunning.
	Update(ctx context.Context, r *specs.LinuxResources) error
	// Metrics reads what the container uses.
	Metrics(ctx context.Context) (Metrics, error)
	// AwaitOOM waits until the kernel has killed more processes of the container
	// than seen for want of memory, or the container has ended.
	AwaitOOM(ctx context.Context, seen uint64) (killed uint64, ended bool, err error)
	// Place is where the container is in the host's cgroups.
	Place() state.Cgroup
}

// ExecRequest says what to run. The files belong to the handler, whatever it
// answers; they are the client's own open files, so their O_NONBLOCK is not
// ours to change.
type ExecRequest struct {
	Process json.RawMessage // runtime-spec Process
	Cgroup  string          // path below the container's cgroup in the guest; empty: that
	Stdin   *os.File        // the three are nil if there is a terminal
	Stdout  *os.File
	Stderr  *os.File
	TTY     *os.File // slave of the proxy's pty, raw; nil: no terminal
	Rows    uint16   // size of the terminal, characters; 0: unknown
	Cols    uint16
	Extra   []inherit.File // descriptors 3, 4, … of the process
}

// ExecSession is a process that Exec started.
type ExecSession interface {
	// PID is the process's id in the guest.
	PID() int
	Signal(ctx context.Context, sig int) error
	Resize(ctx context.Context, rows, cols uint16) error
	// Wait returns the exit status (128+n for signal n) after the streams
	// were drained.
	Wait(ctx context.Context) (status int, err error)
	// Close ends the session: SIGKILL for the process if it still runs.
	Close() error
}

// Listen binds the control socket in the open state directory dir, through
// /proc/self/fd, as the directory's own path may be longer than the 108 bytes
// of sun_path. A socket left by an earlier try is replaced.
func Listen(dir *os.File) (*net.UnixListener, error) {
	err := unix.Unlinkat(int(dir.Fd()), state.ControlSocket, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, &os.PathError{Op: "remove", Path: filepath.Join(dir.Name(), state.ControlSocket), Err: err}
	}
	l, err := net.ListenUnix("unix", address(dir))
	if err != nil {
		return nil, fmt.Errorf("listen on the control socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // the name means nothing after a pivot; state.Dir removes it
	return l, nil
}

func address(dir *os.File) *net.UnixAddr {
	path := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + state.ControlSocket
	return &net.UnixAddr{Name: path, Net: "unix"}
}

// lastWords is how long calls that are at work when a server ends may take to
// answer: a workload that ends at once must not make its start fail.
const lastWords = 2 * time.Second

// Serve answers the connections to l until ctx ends or l is closed, and then
// ends the sessions that are left. All its goroutines have ended when it
// returns; nil means that ctx ended or l was closed.
func Serve(ctx context.Context, l *net.UnixListener, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	calls, cancelCalls := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer cancelCalls()
	defer wg.Wait()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastWords, cancelCalls) })()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		c, err := accept(ctx, l.AcceptUnix)
		if errors.Is(err, net.ErrClosed) {
			return nil
		} else if err != nil {
			return fmt.Errorf("accept on the control socket: %w", err)
		}
		wg.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() {
				_ = c.SetReadDeadline(time.Unix(1, 0))
				_ = c.SetWriteDeadline(time.Now().Add(lastWords))
			})()
			serveConn(ctx, calls, c, h)
		})
	}
}

// scarceTime is how long a server that is out of descriptors or memory waits
// before it looks again.
const scarceTime = 50 * time.Millisecond

// accept takes the next connection. A want of descriptors, which the guest may
// cause by its open files, passes, and must not make the container deaf.
func accept(ctx context.Context, next func() (*net.UnixConn, error)) (*net.UnixConn, error) {
	for {
		c, err := next()
		switch {
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOBUFS):
		default:
			return c, err
		}
		select {
		case <-ctx.Done():
			return nil, net.ErrClosed
		case <-time.After(scarceTime):
		}
	}
}

// serveConn ends when ctx does, when the client hangs up or breaks the protocol,
// or when its exec has ended. The context of calls ends a little later.
func serveConn(ctx, calls context.Context, c *net.UnixConn, h Handler) {
	if err := checkPeer(c); err != nil {
		_ = send(c, message{Type: typeError, Error: err.Error()})
		return
	}
	for {
		m, files, err := recv(c)
		if err != nil {
			return
		}
		if m.Type == typeExec {
			serveExec(ctx, c, h, m, files)
			return
		}
		closeAll(files)
		// What a client began is finished also if the client dies: a start
		// whose outcome nobody recorded would be worse.
		answer := message{Type: typeOK}
		switch m.Type {
		case typeStart:
			err = h.Start(calls)
		case typeSignal:
			err = h.Signal(calls, m.Signal, m.All)
		case typePause:
			err = h.Pause(calls)
		case typeResume:
			err = h.Resume(calls)
		case typeUpdate:
			err = update(calls, h, m.Resources)
		case typeMetrics:
			answer.Metrics, err = h.Metrics(calls)
		case typeOOM:
			err = whileThere(ctx, calls, c, func(ctx context.Context) (err error) {
				answer.Killed, answer.Ended, err = h.AwaitOOM(ctx, m.Killed)
				return err
			})
		case typePlace:
			place := h.Place()
			answer.Cgroup = &place
		case typeReady:
			err = whileThere(ctx, calls, c, h.Ready)
		case typeProcesses:
			answer.Processes, err = h.Processes(calls)
		default:
			err = fmt.Errorf("unknown control message %q", m.Type)
		}
		if err != nil {
			answer = message{Type: typeError, Error: err.Error()}
		}
		if send(c, answer) != nil {
			return
		}
	}
}

// whileThere runs a call that only waits, perhaps for ever: its context ends with
// calls, and when the client hangs up, which has nothing to say before it has the
// answer. ctx is the server's, whose end ends the reading of c.
func whileThere(ctx, calls context.Context, c *net.UnixConn, wait func(context.Context) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	inner, cancel := context.WithCancel(calls)
	defer cancel()
	looking := make(chan struct{})
	go func() { // ends with the deadline
		defer close(looking)
		_ = raw.Read(func(fd uintptr) bool {
			n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				return false
			}
			if n <= 0 {
				cancel()
			}
			return true
		})
	}()
	err = wait(inner)
	_ = c.SetReadDeadline(time.Unix(1, 0))
	<-looking
	_ = c.SetReadDeadline(time.Time{})
	if ctx.Err() != nil {
		_ = c.SetReadDeadline(time.Unix(1, 0)) // that was not ours to take back
	}
	return err
}

func update(ctx context.Context, h Handler, r *specs.LinuxResources) error {
	if r == nil {
		return errors.New("update without resources")
	}
	return h.Update(ctx, r)
}

// checkPeer lets in root and the user whose container it is.
func checkPeer(c *net.UnixConn) error {
	cred, err := peer(c)
	if err != nil {
		return err
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d may not control this container", cred.Uid)
	}
	return nil
}

func peer(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, os.NewSyscallError("getsockopt SO_PEERCRED", sockErr)); err != nil {
		return nil, err
	}
	return cred, nil
}

// execRequest makes the request of a message; it takes the files over.
func execRequest(m message, files []*os.File) (ExecRequest, error) {
	r := ExecRequest{Process: m.Process, Cgroup: m.Below, Rows: m.Rows, Cols: m.Cols}
	stdio := len(files) - len(m.Extra)
	switch stdio {
	case 1:
		r.TTY = files[0]
	case 3:
		r.Stdin, r.Stdout, r.Stderr = files[0], files[1], files[2]
	default:
		closeAll(files)
		return r, fmt.Errorf("exec with %d files, of them %d behind stdio", len(files), len(m.Extra))
	}
	for i, a := range m.Extra {
		r.Extra = append(r.Extra, inherit.File{Access: a, File: files[stdio+i]})
	}
	return r, nil
}

// serveExec runs one exec; the connection is over when it returns.
func serveExec(ctx context.Context, c *net.UnixConn, h Handler, m message, files []*os.File) {
	r, err := execRequest(m, files)
	if err != nil {
		_ = send(c, message{Type: typeError, Error: err.Error()})
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	in := make(chan message)
	var wg sync.WaitGroup
	wg.Go(func() { // ends with the connection, or with ctx
		defer cancel()
		defer close(in)
		for {
			m, files, err := recv(c)
			closeAll(files)
			if err != nil {
				return
			}
			select {
			case in <- m:
			case <-ctx.Done():
				return
			}
		}
	})
	defer wg.Wait()
	defer c.Close()
	defer cancel()
	s, err := h.Exec(ctx, r)
	if err != nil {
		_ = send(c, message{Type: typeError, Error: err.Error()})
		return
	}
	defer s.Close()
	if send(c, message{Type: typeOK, PID: s.PID()}) != nil {
		return
	}
	runSession(ctx, c, s, in)
}

// runSession hands the client's messages to the process until it ends or the
// client hangs up.
func runSession(ctx context.Context, c *net.UnixConn, s ExecSession, in <-chan message) {
	type result struct {
		status int
		err    error
	}
	ended := make(chan result, 1)
	go func() {
		status, err := s.Wait(ctx)
		ended <- result{status, err}
	}()
	for {
		select {
		case r := <-ended:
			answer := message{Type: typeExit, Status: r.status}
			if r.err != nil && ctx.Err() != nil {
				return // the container has ended: hanging up says so
			}
			if r.err != nil {
				answer = message{Type: typeError, Error: r.err.Error()}
			}
			_ = send(c, answer)
			return
		case m, ok := <-in:
			if !ok { // ctx is done, too
				_ = s.Close()
				<-ended
				return
			}
			// That the process has just ended is all that can fail; the
			// exit status follows.
			switch m.Type {
			case typeSignal:
				_ = s.Signal(ctx, m.Signal)
			case typeResize:
				_ = s.Resize(ctx, m.Rows, m.Cols)
			}
		}
	}
}
