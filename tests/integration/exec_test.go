package integration

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

// sleeper is a container to exec in.
func sleeper(t *testing.T, changes ...harness.Change) *harness.Container {
	t.Helper()
	r := newRuntime(t)
	return r.Create(r.NewBundle(append([]harness.Change{harness.Args("sleep", "100000")}, changes...)...)).Start()
}

func TestExec(t *testing.T) {
	c := sleeper(t)
	defer c.End()
	r := c.Runtime
	for _, tt := range []struct {
		name   string
		flags  []string
		args   []string
		stdin  string
		stdout string
		stderr string // part of it
		status int
	}{
		{"stdio", nil, []string{"sh", "-c", "cat; echo err >&2; exit 7"}, "in", "in", "err\n", 7},
		{"signal", nil, []string{"sh", "-c", "kill -TERM $$"}, "", "", "", 143},
		{"kill", nil, []string{"sh", "-c", "kill -9 $$"}, "", "", "", 137},
		{"user", []string{"--user", "1000:1001"}, []string{"sh", "-c", "id -u; id -g"}, "", "1000\n1001\n", "", 0},
		{"additional groups", []string{"--user", "1:2", "--additional-gids", "7", "--additional-gids", "8"}, []string{"id", "-G"}, "", "2 7 8\n", "", 0},
		{"cwd", []string{"--cwd", "/tmp"}, []string{"pwd"}, "", "/tmp\n", "", 0},
		{"no cwd", []string{"--cwd", "/nosuch"}, []string{"pwd"}, "", "", "/nosuch", 255},
		{"env", []string{"-e", "A=x,y", "-e", "B="}, []string{"sh", "-c", "echo $A-$B-"}, "", "x,y--\n", "", 0},
		{"home", []string{"--user", "65534"}, []string{"sh", "-c", "echo $HOME"}, "", "/nonexistent\n", "", 0},
		{"no new privileges", []string{"--no-new-privs"}, []string{"grep", "NoNewPrivs", "/proc/self/status"}, "", "NoNewPrivs:\t1\n", "", 0},
		{"capability", []string{"--cap", "CAP_SYS_TIME"}, []string{"grep", "CapEff", "/proc/self/status"}, "", "CapEff:\t0000000022000420\n", "", 0},
		{"missing", nil, []string{"nosuch"}, "", "", `exec: \"nosuch\": executable file not found in $PATH`, 255},
		{"missing path", nil, []string{"/no/such"}, "", "", `exec: \"/no/such\": stat /no/such: no such file or directory`, 255},
		{"not executable", nil, []string{"/etc/passwd"}, "", "", `exec: \"/etc/passwd\": permission denied`, 255},
		{"same namespaces", nil, []string{"sh", "-c", "readlink /proc/self/ns/pid | cmp - /dev/fd/3 3<<X\n$(readlink /proc/1/ns/pid)\nX"}, "", "", "", 0},
		{"same cgroup", nil, []string{"cmp", "/proc/1/cgroup", "/proc/self/cgroup"}, "", "", "", 0},
		{"last line without a newline", nil, []string{"printf", "x"}, "", "x", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.In(t)
			args := append(append(append([]string{"exec"}, tt.flags...), c.ID), tt.args...)
			got := r.RunWith(strings.NewReader(tt.stdin), args...)
			if got.Stdout != tt.stdout || got.Status != tt.status || !strings.Contains(got.Stderr, tt.stderr) || tt.stderr == "" && got.Stderr != "" {
				t.Errorf("got stdout %q, stderr %q, status %d, want %q, %q, %d", got.Stdout, got.Stderr, got.Status, tt.stdout, tt.stderr, tt.status)
			}
		})
	}
}

// processFile writes a process.json, and returns its path.
func processFile(t *testing.T, r *harness.Runtime, p *specs.Process) string {
	t.Helper()
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.Dir, "process-"+r.NewID()+".json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExecProcessFile(t *testing.T) {
	c := sleeper(t)
	defer c.End()
	p := specs.Process{
		Args: []string{"sh", "-c", "id -u; pwd; echo $X; ulimit -n"}, Env: []string{"PATH=/bin", "X=y"}, Cwd: "/home", User: specs.User{UID: 3},
		Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 99, Hard: 100}},
	}
	if got, want := c.Runtime.Must("exec", "--process", processFile(t, c.Runtime, &p), c.ID), "3\n/home\ny\n99\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestExecLargeStreams(t *testing.T) {
	c := sleeper(t)
	defer c.End()
	in := make([]byte, 5<<20)
	rand.Read(in) //nolint:errcheck // never fails
	got := c.Runtime.RunWith(bytes.NewReader(in), "exec", c.ID, "cat")
	if got.Status != 0 || !bytes.Equal([]byte(got.Stdout), in) {
		t.Errorf("status %d, %d bytes of %d", got.Status, len(got.Stdout), len(in))
	}
}

// detached execs in the background and returns the stand-in's pid.
func detached(t *testing.T, c *harness.Container, stdout *os.File, flags []string, args ...string) int {
	t.Helper()
	pidFile := filepath.Join(c.Runtime.Dir, "exec-"+c.Runtime.NewID())
	all := append(append([]string{"exec", "--detach", "--pid-file", pidFile}, flags...), c.ID)
	cmd := c.Runtime.Command(append(all, args...)...)
	if stdout != nil {
		cmd.Stdout = stdout
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if got := c.Runtime.Wait(cmd); got != 0 {
		t.Fatalf("exec --detach: status %d", got)
	}
	return harness.ReadPid(t, pidFile)
}

// count is how many processes of the container have words in their command.
func count(c *harness.Container, words string) string {
	// The pattern does not match itself in the shell's command.
	return c.Output("ps | grep -c '[" + words[:1] + "]" + words[1:] + "' || :")
}

func TestExecDetached(t *testing.T) {
	c := sleeper(t)
	defer c.End()
	t.Run("status", func(t *testing.T) {
		c.Runtime.In(t)
		out := newOutput(t)
		pid := detached(t, c, out.w, nil, "sh", "-c", "echo hello; exit 6")
		out.expect("hello\n")
		if got := harness.Reap(t, pid); got != 6 {
			t.Errorf("got %d, want 6", got)
		}
	})
	t.Run("TERM is forwarded", func(t *testing.T) {
		c.Runtime.In(t)
		out := newOutput(t)
		pid := detached(t, c, out.w, nil, "sh", "-c", "trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.05; done")
		out.expect("ready\n")
		if err := unix.Kill(pid, unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		out.expect("bye\n")
		if got := harness.Reap(t, pid); got != 4 {
			t.Errorf("got %d, want 4", got)
		}
	})
	t.Run("TERM kills", func(t *testing.T) {
		c.Runtime.In(t)
		pid := detached(t, c, nil, nil, "sleep", "1001")
		if err := unix.Kill(pid, unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if got := harness.Reap(t, pid); got != 143 {
			t.Errorf("got %d, want 143", got)
		}
	})
	t.Run("KILL ends the process in the guest", func(t *testing.T) {
		c.Runtime.In(t)
		pid := detached(t, c, nil, nil, "sleep", "1002")
		if got := count(c, "sleep 1002"); got != "1" {
			t.Fatalf("processes in the guest: %s", got)
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if got := harness.Reap(t, pid); got != 137 {
			t.Errorf("got %d, want 137", got)
		}
		harness.Within(t, harness.Limit, "the process in the guest ends", func() bool {
			return count(c, "sleep 1002") == "0"
		})
	})
	t.Run("keeps nothing of the caller's", func(t *testing.T) {
		c.Runtime.In(t)
		out := newOutput(t)
		pid := detached(t, c, out.w, nil, "sleep", "1003")
		for fd := range 3 {
			if target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err != nil || target != "/dev/null" {
				t.Errorf("descriptor %d of the stand-in: %s, %v", fd, target, err)
			}
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		harness.Reap(t, pid)
	})
}

func TestExecSignalsToTheProxy(t *testing.T) {
	c := sleeper(t)
	defer c.End()
	out := newOutput(t)
	cmd := c.Runtime.Command("exec", "--pid-file", "proxy.pid", c.ID, "sh", "-c", "trap 'exit 4' HUP; echo ready; while :; do sleep 0.05; done")
	cmd.Stdout = out.w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.expect("ready\n")
	// The process may have said that before the file was written, as under runc.
	harness.Within(t, harness.Limit, "a pid file", func() bool {
		_, err := os.Stat(c.Runtime.Dir + "/proxy.pid")
		return err == nil
	})
	if got := harness.ReadPid(t, c.Runtime.Dir+"/proxy.pid"); got != cmd.Process.Pid {
		t.Errorf("pid file: got %d, want %d", got, cmd.Process.Pid)
	}
	if err := cmd.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if got := c.Runtime.Wait(cmd); got != 4 {
		t.Errorf("status: got %d, want 4", got)
	}
}

// TestExecBackgroundChild: the exec ends with its process, whatever that left.
func TestExecBackgroundChild(t *testing.T) {
	c := sleeper(t)
	defer c.End()
	out := newOutput(t)
	cmd := c.Runtime.Command("exec", c.ID, "sh", "-c", "(while [ ! -e /tmp/go ]; do sleep 0.05; done; echo late) & echo early; exit 2")
	cmd.Stdout = out.w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if got := c.Runtime.Wait(cmd); got != 2 {
		t.Errorf("status: got %d, want 2", got)
	}
	out.expect("early\n")
	c.Output("touch /tmp/go")
	out.expect("late\n") // the child's output still arrives
}

// TestExecConcurrently: of 50 at a time none loses output, on either stream, input,
// or its status.
func TestExecConcurrently(t *testing.T) {
	c := sleeper(t)
	defer c.End()
	const lines = 400 // of some 20 bytes: more than a pipe's page
	var wg sync.WaitGroup
	for i := range 50 {
		script := fmt.Sprintf("cat; n=0; while [ $n -lt %d ]; do echo out %d line $n; echo err %d line $n >&2; n=$((n+1)); done; exit %d", lines, i, i, 100+i)
		cmd := c.Runtime.Command("exec", c.ID, "sh", "-c", script)
		var stdout, stderr bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(fmt.Sprintln("in", i)), &stdout, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			cmd.Wait() //nolint:errcheck // the status is looked at below
			if got := cmd.ProcessState.ExitCode(); got != 100+i {
				t.Errorf("status of %d: got %d", i, got)
			}
			var out, errors strings.Builder
			fmt.Fprintln(&out, "in", i)
			for n := range lines {
				fmt.Fprintln(&out, "out", i, "line", n)
				fmt.Fprintln(&errors, "err", i, "line", n)
			}
			if got, want := stdout.String(), out.String(); got != want {
				t.Errorf("output of %d: got %d bytes, want %d: %.200q", i, len(got), len(want), got)
			}
			if got, want := stderr.String(), errors.String(); got != want {
				t.Errorf("errors of %d: got %d bytes, want %d: %.200q", i, len(got), len(want), got)
			}
		})
	}
	wg.Wait()
	if got := strings.Count(c.Runtime.Must("ps", c.ID), "\n"); got != 2 {
		t.Errorf("left: %d lines of ps", got)
	}
}

// TestExecDetachedConcurrently: each stand-in exits with the status of its own
// process, as engines with many health checks need it.
func TestExecDetachedConcurrently(t *testing.T) {
	c := sleeper(t)
	defer c.End()
	const n = 50
	pidFile := func(i int) string { return filepath.Join(c.Runtime.Dir, fmt.Sprint("pid", i)) }
	var started [n]bool
	var wg sync.WaitGroup
	for i := range n {
		cmd := c.Runtime.Command("exec", "--detach", "--pid-file", pidFile(i), c.ID, "sh", "-c", fmt.Sprintf("echo %d >/tmp/out%d; exit %d", i, i, 100+i))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := cmd.Wait(); err != nil {
				t.Errorf("exec --detach of %d: %v", i, err)
			} else {
				started[i] = true
			}
		})
	}
	wg.Wait()
	for i := range n {
		if !started[i] {
			continue // told of
		}
		if got := harness.Reap(t, harness.ReadPid(t, pidFile(i))); got != 100+i {
			t.Errorf("status of %d: got %d", i, got)
		}
	}
	if got := c.Output("cat /tmp/out* | wc -l"); got != fmt.Sprint(n) {
		t.Errorf("got output of %s", got)
	}
}

// TestExecAndTheContainersEnd: with PID 1 everything in its namespace goes.
func TestExecAndTheContainersEnd(t *testing.T) {
	c := sleeper(t)
	pid := detached(t, c, nil, nil, "sleep", "1004")
	cmd := c.Runtime.Command("exec", c.ID, "sleep", "1005")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	harness.Within(t, harness.Limit, "the exec runs", func() bool { return count(c, "sleep 1005") == "1" })
	c.End()
	if got := harness.Reap(t, pid); got != 137 {
		t.Errorf("detached: got %d, want 137", got)
	}
	if got := c.Runtime.Wait(cmd); got != 137 {
		t.Errorf("foreground: got %d, want 137", got)
	}
}

func TestExecInCreated(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Args("sleep", "1000")))
	if got := c.Output("echo before the start"); got != "before the start" {
		t.Errorf("got %q", got)
	}
	c.Start().End()
}
