package setup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxOutput bounds what is kept of a stream of a hook, for an error; both fit
// into what sendFailed sends.
const maxOutput = maxError / 4 // bytes

// hooks are the startContainer hooks: programs of the container, run by its first
// process in its place (runtime-spec v1.3 config.md "StartContainer Hooks").
type hooks struct {
	list []specs.Hook
	env  []string // of those that set none
	// files are their stdin, stdout and stderr, memory files: nobody has to
	// read what a daemon writes that a hook leaves behind.
	files [3]*os.File
}

// hookError is why a hook failed.
type hookError struct {
	index int
	err   error
}

func (e *hookError) Error() string {
	return fmt.Sprintf("error running startContainer hook #%d: %v", e.index, e.err)
}

func (e *hookError) Unwrap() error { return e.err }

// newHooks prepares the hooks of c while everything is allowed still; env is the
// workload's environment.
func newHooks(c *Config, env []string) (*hooks, error) {
	h := &hooks{list: c.Hooks, env: env}
	if len(h.list) == 0 {
		return h, nil
	}
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
		if err != nil {
			return nil, os.NewSyscallError("memfd_create", err)
		}
		h.files[i] = os.NewFile(uintptr(fd), name)
	}
	pid := strconv.AppendInt(nil, int64(os.Getpid()), 10)
	if _, err := h.files[0].Write(bytes.Replace(c.HookState, []byte{0}, pid, 1)); err != nil {
		return nil, err
	}
	return h, nil
}

// run runs the hooks one after the other, until one fails.
func (h *hooks) run() error {
	for i := range h.list {
		if err := h.runOne(&h.list[i]); err != nil {
			return &hookError{i, err}
		}
	}
	return nil
}

func (h *hooks) runOne(k *specs.Hook) error {
	fds := make([]uintptr, len(h.files))
	for i, f := range h.files {
		if _, err := f.Seek(0, 0); err != nil {
			return err
		}
		if i > 0 {
			if err := f.Truncate(0); err != nil {
				return err
			}
		}
		fds[i] = f.Fd()
	}
	argv, env := k.Args, k.Env
	if len(argv) == 0 {
		argv = []string{k.Path}
	}
	if len(env) == 0 {
		env = h.env
	}
	pid, err := syscall.ForkExec(k.Path, argv, &syscall.ProcAttr{Env: env, Files: fds, Sys: &syscall.SysProcAttr{Setpgid: true}})
	if err != nil {
		return &os.PathError{Op: "fork/exec", Path: k.Path, Err: err}
	}
	ws, err := wait(pid, k.Timeout)
	if err == nil && (!ws.Exited() || ws.ExitStatus() != 0) {
		err = fmt.Errorf("%s, stdout: %s, stderr: %s", words(ws), head(h.files[1]), head(h.files[2]))
	}
	return err
}

// wait waits for a hook, and kills its process group when its time (s) is over.
func wait(pid int, timeout *int) (unix.WaitStatus, error) {
	var ws unix.WaitStatus
	var timer *time.Timer
	if timeout != nil {
		timer = time.AfterFunc(time.Duration(*timeout)*time.Second, func() { _ = unix.Kill(-pid, unix.SIGKILL) }) // it may have ended
	}
	for {
		_, err := unix.Wait4(pid, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if timer != nil && !timer.Stop() {
			return ws, fmt.Errorf("hook ran past specified timeout of %d.0s", *timeout)
		}
		return ws, os.NewSyscallError("wait4", err)
	}
}

// words says how a process ended, as os.ProcessState does.
func words(ws unix.WaitStatus) string {
	if ws.Signaled() {
		return "signal: " + ws.Signal().String()
	}
	return "exit status " + strconv.Itoa(ws.ExitStatus())
}

// head returns the first bytes of what a hook has written.
func head(f *os.File) []byte {
	b := make([]byte, maxOutput)
	n, _ := f.ReadAt(b, 0)
	return b[:max(n, 0)]
}
