package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Limit bounds every command and wait of a test: a VM boots in a second, but
// under emulation on a loaded machine it has taken ten.
var Limit = Scaled(60 * time.Second)

// Scaled is what d on any machine is on this one: an emulated KVM host
// (scripts/kvmhost.sh) is some four times slower.
func Scaled(d time.Duration) time.Duration {
	if os.Getenv("RUNV_KVMHOST") != "" {
		return 4 * d
	}
	return d
}

// pipeLimit is how long the output of a command may be held open after its end:
// a container that it left behind by mistake would do so for ever.
const pipeLimit = 5 * time.Second

// Runtime is runv with a state directory of one test's own.
type Runtime struct {
	T     testing.TB
	Setup *Setup
	Dir   string   // the test's, removed at its end
	Root  string   // --root
	Flags []string // further global flags
	Env   []string // on top of the process's
	ids   atomic.Int32
}

// New returns a runtime, and checks at the end of the test that nothing is left
// of it.
func New(t testing.TB, s *Setup) *Runtime {
	t.Helper()
	if s.Skip != "" {
		t.Skip(s.Skip)
	}
	dir, err := os.MkdirTemp(s.Dir, "t")
	if err != nil {
		t.Fatal(err)
	}
	r := &Runtime{T: t, Setup: s, Dir: dir, Root: filepath.Join(dir, "root")}
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	r.Env = []string{"RUNV_KERNEL=" + s.Kernel, "TMPDIR=" + tmp}
	before := snapshot(t)
	t.Cleanup(func() {
		r.cleanUp()
		before.check(t, r)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return r
}

// In makes a subtest the one that fails, until it ends.
func (r *Runtime) In(t testing.TB) {
	outer := r.T
	r.T = t
	t.Cleanup(func() { r.T = outer })
}

// NewID returns an id that no other container has.
func (r *Runtime) NewID() string {
	return fmt.Sprintf("it%d-%s-%d", os.Getpid(), filepath.Base(r.Dir), r.ids.Add(1))
}

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Status         int           // exit status, 128+n for a signal
	Took           time.Duration // wall clock
}

// Command prepares a runv command with the runtime's root and environment.
func (r *Runtime) Command(args ...string) *exec.Cmd {
	all := append([]string{"--root", r.Root}, r.Flags...)
	cmd := exec.Command(r.Setup.Runv, append(all, args...)...)
	cmd.Env = append(os.Environ(), r.Env...)
	cmd.Dir = r.Dir
	return cmd
}

// Run runs a runv command to its end without input.
func (r *Runtime) Run(args ...string) Result {
	r.T.Helper()
	return r.RunWith(nil, args...)
}

// RunWith is Run with standard input.
func (r *Runtime) RunWith(stdin io.Reader, args ...string) Result {
	r.T.Helper()
	cmd := r.Command(args...)
	cmd.Stdin = stdin
	return r.Finish(cmd)
}

// Must is Run of what has to succeed; it returns the standard output.
func (r *Runtime) Must(args ...string) string {
	r.T.Helper()
	res := r.Run(args...)
	if res.Status != 0 {
		r.T.Fatalf("runv %s: status %d, stderr %q", strings.Join(args, " "), res.Status, res.Stderr)
	}
	return res.Stdout
}

// Finish runs a prepared command to its end, and to that of its output.
func (r *Runtime) Finish(cmd *exec.Cmd) Result {
	r.T.Helper()
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	cmd.WaitDelay = pipeLimit
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		r.T.Fatal(err)
	}
	status := r.Wait(cmd)
	return Result{stdout.String(), stderr.String(), status, time.Since(begin)}
}

// Wait waits for a started command, and kills it after the limit.
func (r *Runtime) Wait(cmd *exec.Cmd) int {
	r.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Limit)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() }) //nolint:errcheck // it may have ended
	err := cmd.Wait()
	if !stop() {
		r.T.Fatalf("%s: did not end within %v", strings.Join(cmd.Args, " "), Limit)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.T.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
	}
	return StatusOf(cmd.ProcessState)
}

// Container is a created container.
type Container struct {
	Runtime *Runtime
	ID      string
	PID     int
	Bundle  *Bundle
}

// Create creates a container with all of its stdio on /dev/null, or the given
// files (stdin, stdout, stderr; nil is /dev/null).
func (r *Runtime) Create(b *Bundle, stdio ...*os.File) *Container {
	r.T.Helper()
	return r.CreateWith(b, nil, stdio...)
}

// CreateWith is Create with further flags.
func (r *Runtime) CreateWith(b *Bundle, flags []string, stdio ...*os.File) *Container {
	r.T.Helper()
	c := &Container{Runtime: r, ID: r.NewID(), Bundle: b}
	pidFile := filepath.Join(r.Dir, c.ID+".pid")
	args := append([]string{"create", "--bundle", b.Dir, "--pid-file", pidFile}, flags...)
	cmd := r.Command(append(args, c.ID)...)
	stderr := r.ErrorFile(cmd)
	for i, dst := range []*io.Reader{&cmd.Stdin} {
		if i < len(stdio) && stdio[i] != nil {
			*dst = stdio[i]
		}
	}
	if len(stdio) > 1 && stdio[1] != nil {
		cmd.Stdout = stdio[1]
	}
	if len(stdio) > 2 && stdio[2] != nil {
		cmd.Stderr = stdio[2]
	}
	if err := cmd.Start(); err != nil {
		r.T.Fatal(err)
	}
	if status := r.Wait(cmd); status != 0 {
		r.T.Fatalf("create: status %d: %s", status, stderr())
	}
	c.PID = ReadPid(r.T, pidFile)
	return c
}

// ErrorFile gives a command a file as stderr: the end of a pipe would be the
// container's, too, and its reader would wait for that.
func (r *Runtime) ErrorFile(cmd *exec.Cmd) (read func() string) {
	r.T.Helper()
	f, err := os.CreateTemp(r.Dir, "stderr")
	if err != nil {
		r.T.Fatal(err)
	}
	r.T.Cleanup(func() { f.Close() }) //nolint:errcheck // temporary
	cmd.Stderr = f
	return func() string {
		data, err := os.ReadFile(f.Name())
		if err != nil {
			return err.Error()
		}
		return string(data)
	}
}

// Start starts the container.
func (c *Container) Start() *Container {
	c.Runtime.T.Helper()
	c.Runtime.Must("start", c.ID)
	return c
}

// Exec runs a shell script in the container.
func (c *Container) Exec(script string) Result {
	c.Runtime.T.Helper()
	return c.Runtime.Run("exec", c.ID, "sh", "-c", script)
}

// Output is what a script prints that has to succeed, without the last newline.
func (c *Container) Output(script string) string {
	c.Runtime.T.Helper()
	res := c.Exec(script)
	if res.Status != 0 {
		c.Runtime.T.Fatalf("exec %q: status %d, stdout %q, stderr %q", script, res.Status, res.Stdout, res.Stderr)
	}
	return strings.TrimSuffix(res.Stdout, "\n")
}

// State is what `runv state` prints.
type State struct {
	OCIVersion  string            `json:"ociVersion"`
	ID          string            `json:"id"`
	PID         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations"`
	Owner       string            `json:"owner"`
}

// State asks for the container's state.
func (c *Container) State() State {
	c.Runtime.T.Helper()
	var s State
	if err := json.Unmarshal([]byte(c.Runtime.Must("state", c.ID)), &s); err != nil {
		c.Runtime.T.Fatal(err)
	}
	return s
}

// Wait reaps the container and returns its exit status, 128+n for signal n.
func (c *Container) Wait() int {
	c.Runtime.T.Helper()
	return Reap(c.Runtime.T, c.PID)
}

// Delete deletes the container.
func (c *Container) Delete() {
	c.Runtime.T.Helper()
	c.Runtime.Must("delete", c.ID)
}

// End kills the container, reaps it, and deletes it.
func (c *Container) End() {
	c.Runtime.T.Helper()
	c.Runtime.Must("kill", c.ID, "KILL")
	if got := c.Wait(); got != 137 {
		c.Runtime.T.Errorf("status of a killed container: got %d, want 137", got)
	}
	c.Delete()
}

// ReadPid reads a pid file.
func ReadPid(t testing.TB, path string) int {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(data))
	if err != nil {
		t.Fatalf("pid file: %v", err)
	}
	return pid
}
