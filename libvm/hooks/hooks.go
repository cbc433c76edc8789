// Package hooks runs the hooks of a config.json that are programs of the host
// (runtime-spec v1.3 config.md "POSIX-platform Hooks"). Words and semantics are
// runc's where the specification leaves them open.
package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The kinds of hooks.
const (
	Prestart        = "prestart"
	CreateRuntime   = "createRuntime"
	CreateContainer = "createContainer"
	Poststart       = "poststart"
	Poststop        = "poststop"
)

// maxOutput bounds what is kept of a stream of a hook, for an error. The rest is
// read and forgotten.
const maxOutput = 16 << 10 // bytes

// lingerTime is how long the streams of a hook that has ended are read when a
// process that it left behind holds them open.
const lingerTime = time.Second

// Options are what the hooks of one kind have in common.
type Options struct {
	// Dir is their working directory; empty: the caller's.
	Dir string
	// Env is the environment of those that set none; nil: the caller's.
	Env []string
}

// Run runs the hooks of a kind one after the other, with the state
// on their standard input. The first that fails ends it, and so does the end of
// ctx; no process of a hook's group is left then.
func Run(ctx context.Context, kind string, list []specs.Hook, state *specs.State, o Options) error {
	for i := range list {
		if err := runOne(ctx, &list[i], state, o); err != nil {
			return failed(kind, i, err)
		}
	}
	return nil
}

// RunAll runs the hooks of a kind although some fail, and returns an error for
// each of those.
func RunAll(ctx context.Context, kind string, list []specs.Hook, state *specs.State, o Options) []error {
	var errs []error
	for i := range list {
		if err := runOne(ctx, &list[i], state, o); err != nil {
			errs = append(errs, failed(kind, i, err))
		}
	}
	return errs
}

// failed has runc's words, which for those that are part of making the container
// say so.
func failed(kind string, i int, err error) error {
	prefix := ""
	switch kind {
	case Prestart, CreateRuntime, CreateContainer:
		prefix = "unable to start container process: error during container init: "
	}
	return fmt.Errorf("%serror running %s hook #%d: %w", prefix, kind, i, err)
}

// errTimeout is the cause of the end of a hook's context.
type errTimeout time.Duration

func (t errTimeout) Error() string {
	return fmt.Sprintf("hook ran past specified timeout of %.1fs", time.Duration(t).Seconds())
}

// runOne runs a hook to its end.
func runOne(ctx context.Context, h *specs.Hook, state *specs.State, o Options) error {
	input, err := json.Marshal(state)
	if err != nil {
		return err
	}
	if h.Timeout != nil {
		d := time.Duration(*h.Timeout) * time.Second
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d, errTimeout(d))
		defer cancel()
	}
	var stdout, stderr head
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args // argv[0], too: it need not be the path
	}
	if cmd.Env = h.Env; len(h.Env) == 0 {
		cmd.Env = o.Env
	}
	cmd.Dir = o.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, &stderr
	cmd.WaitDelay = lingerTime
	// Its whole group ends with it, and it ends with us: no hook may go on at a
	// container that is being taken back.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	cmd.Cancel = func() error {
		err := unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		if err == unix.ESRCH {
			return os.ErrProcessDone
		}
		return err
	}
	// A child gets its Pdeathsig when the thread that made it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return err
	}
	err = cmd.Wait()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return nil // what it left behind is its own business
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w, stdout: %s, stderr: %s", err, stdout.b, stderr.b)
}

// head keeps the first bytes that are written to it.
type head struct{ b []byte }

func (h *head) Write(p []byte) (int, error) {
	h.b = append(h.b, p[:min(len(p), maxOutput-len(h.b))]...)
	return len(p), nil
}
