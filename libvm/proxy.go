package libvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/ctl"
	"runv/libvm/tty"
)

// A detached exec leaves a stand-in for the process in the guest:
//
//	exec --detach                           stand-in (runv exec-proxy)
//	   │ starts the process in the guest
//	   │ session, terminal ────────────────►│ catches signals
//	   │◄──────────────────────────── ready │
//	   │ writes the pid file                │
//	   │ commit ───────────────────────────►│ passes signals and sizes on,
//	   │ exits                              │ exits with the process's status
//	   (closes without commit: ────────────►│ hangs up, which kills the process)

// ProxyCommand is the hidden command of the stand-in.
const ProxyCommand = "exec-proxy"

// The stand-in's inherited descriptors. Its stdio is /dev/null, or, on 0, the
// terminal's slave, which is its controlling terminal.
const (
	proxySession   = 3
	proxyHandshake = 4
)

// The one byte of each side of the handshake.
const (
	proxyReady  = 'r'
	proxyCommit = 'c'
)

// detached is exec --detach.
func (e *execution) detached(ctx context.Context) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	r := ctl.ExecRequest{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if e.process.Terminal {
		slave, err := sendTerminal(e.ConsoleSocket, e.process.ConsoleSize)
		if err != nil {
			return err
		}
		defer slave.Close()
		r = ctl.ExecRequest{TTY: slave}
		r.Rows, r.Cols = tty.Size(slave)
	}
	s, err := e.openSession(ctx, r)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := e.leaveProxy(ctx, s, r.TTY); err != nil {
		return cause(ctx, err)
	}
	return nil
}

// sendTerminal makes a pty pair and sends the master over the console socket.
func sendTerminal(socket string, size *specs.Box) (slave *os.File, err error) {
	conn, err := tty.Dial(socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	master, slave, err := tty.Open()
	if err != nil {
		return nil, err
	}
	defer master.Close()
	if size != nil {
		err = tty.SetSize(slave, uint16(min(size.Height, 0xffff)), uint16(min(size.Width, 0xffff)))
	}
	if err == nil {
		err = tty.Send(conn, master)
	}
	if err != nil {
		return nil, errors.Join(err, slave.Close())
	}
	return slave, nil
}

// leaveProxy starts the stand-in and hands the session over to it.
func (e *execution) leaveProxy(ctx context.Context, s *ctl.Session, slave *os.File) error {
	session, err := s.File()
	if err != nil {
		return err
	}
	defer session.Close()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "handshake"), os.NewFile(uintptr(fds[1]), "handshake")
	defer ours.Close()
	cmd := exec.Command("/proc/self/exe", ProxyCommand, strconv.Itoa(s.PID()))
	cmd.Args[0] = "runv"
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{session, theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if slave != nil {
		cmd.Stdin = slave
		cmd.SysProcAttr.Setctty = true
	}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return fmt.Errorf("start the stand-in of the process: %w", err)
	}
	if err := e.commitProxy(ctx, ours, cmd.Process.Pid); err != nil {
		_ = ours.Close()
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()
		return err
	}
	return cmd.Process.Release()
}

func (e *execution) commitProxy(ctx context.Context, handshake *os.File, pid int) error {
	b := make([]byte, 1)
	if _, err := io.ReadFull(handshake, b); err != nil {
		return fmt.Errorf("start the stand-in of the process: %w", err)
	}
	if err := sendPidfd(e.pidfd, pidfdExec, pid); err != nil {
		return err
	}
	if e.PidFile != "" {
		if err := writePidFile(e.PidFile, pid); err != nil {
			return err
		}
	}
	err := ctx.Err()
	if err == nil {
		_, err = handshake.Write([]byte{proxyCommit})
	}
	if err != nil && e.PidFile != "" {
		err = errors.Join(err, os.Remove(e.PidFile))
	}
	return err
}

// Proxy is the hidden command of the stand-in: it returns the exit status of
// the process in the guest. args is the process's id there.
func Proxy(args []string) (int, error) {
	if len(args) != 1 {
		return 0, fmt.Errorf("%s is not a command for users", ProxyCommand)
	}
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return 0, fmt.Errorf("%s is not a command for users: %w", ProxyCommand, err)
	}
	unix.CloseOnExec(proxyHandshake)
	s, err := ctl.Resume(os.NewFile(proxySession, "session"), pid)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	signals, stop := catchSignals()
	defer stop()
	if err := awaitCommit(os.NewFile(proxyHandshake, "handshake")); err != nil {
		return 0, err
	}
	ctx := context.Background()
	resize := func() {
		if rows, cols := tty.Size(os.Stdin); rows != 0 || cols != 0 {
			_ = s.Resize(ctx, rows, cols) // fails only once the process ended
		}
	}
	resize() // the size may have changed before we listened
	return attendSession(ctx, s, signals, resize)
}

func awaitCommit(handshake *os.File) error {
	defer handshake.Close()
	if _, err := handshake.Write([]byte{proxyReady}); err != nil {
		return err
	}
	b := make([]byte, 1)
	if _, err := io.ReadFull(handshake, b); err != nil || b[0] != proxyCommit {
		return errors.Join(errors.New("the command that started this stand-in went away"), err)
	}
	return nil
}
