package integration

import (
	"bytes"
	"crypto/rand"
	"os/exec"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

func TestRunStdioAndStatus(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle()
	for _, tt := range []struct {
		name           string
		script         string
		stdout, stderr string
		status         int
	}{
		{"echo", "echo hello", "hello\n", "", 0},
		{"both streams and a status", "echo out; echo err >&2; exit 7", "out\n", "err\n", 7},
		// As PID 1 of its namespace it ignores what it has no handler for.
		{"kill itself", "kill -9 $$; kill -TERM $$; echo alive; exit 3", "alive\n", "", 3},
		{"nothing", ":", "", "", 0},
		{"child killed", "sh -c 'kill -9 $$'; echo $?", "137\n", "Killed\n", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.In(t)
			b.Change(t, harness.Shell(tt.script))
			got := r.Run("run", "--bundle", b.Dir, r.NewID())
			if got.Stdout != tt.stdout || got.Stderr != tt.stderr || got.Status != tt.status {
				t.Errorf("got stdout %q, stderr %q, status %d, want %q, %q, %d",
					got.Stdout, got.Stderr, got.Status, tt.stdout, tt.stderr, tt.status)
			}
		})
	}
}

func TestRunCatReturnsItsInput(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("cat"))
	in := make([]byte, 5<<20)
	rand.Read(in) //nolint:errcheck // never fails
	got := r.RunWith(bytes.NewReader(in), "run", "--bundle", b.Dir, r.NewID())
	if got.Status != 0 || got.Stderr != "" {
		t.Errorf("got status %d, stderr %q", got.Status, got.Stderr)
	}
	if !bytes.Equal([]byte(got.Stdout), in) {
		t.Errorf("%d bytes came back of %d, or others", len(got.Stdout), len(in))
	}
}

func TestRunForwardsSignals(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Shell(`trap 'echo got term; exit 5' TERM; echo ready; while :; do sleep 0.05; done`))
	out := newOutput(t)
	cmd := r.Command("run", "--bundle", b.Dir, r.NewID())
	cmd.Stdout = out.w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.expect("ready\n")
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := r.Wait(cmd); got != 5 {
		t.Errorf("status: got %d, want 5", got)
	}
	out.expect("got term\n")
}

func TestRunKilled(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Shell("echo ready; sleep 1000"))
	out := newOutput(t)
	id := r.NewID()
	cmd := r.Command("run", "--bundle", b.Dir, id)
	cmd.Stdout = out.w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.expect("ready\n")
	r.Must("kill", id, "KILL")
	if got := r.Wait(cmd); got != 137 {
		t.Errorf("status: got %d, want 137", got)
	}
}

func TestRunDetachedAndKeep(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Shell("exit 9"))
	id := r.NewID()
	if got := r.Run("run", "--keep", "--bundle", b.Dir, id); got.Status != 9 {
		t.Errorf("status: got %d (%s), want 9", got.Status, got.Stderr)
	}
	if got := r.Must("state", id); !strings.Contains(got, `"status": "stopped"`) {
		t.Errorf("state of a kept container: %s", got)
	}
	r.Must("delete", id)

	b.Change(t, harness.Shell("sleep 1000"))
	c := &harness.Container{Runtime: r, ID: r.NewID(), Bundle: b}
	cmd := r.Command("run", "--detach", "--pid-file", "detached.pid", "--bundle", b.Dir, c.ID)
	if err := cmd.Run(); err != nil { // without a pipe that the container would hold
		t.Fatal(err)
	}
	c.PID = harness.ReadPid(t, r.Dir+"/detached.pid") // relative to the caller's directory
	if got := c.State(); got.Status != "running" || got.PID != c.PID {
		t.Errorf("got %+v, want running, pid %d", got, c.PID)
	}
	c.End()
}

// TestMissingExecutable compares the words with runc's: engines match on them.
func TestMissingExecutable(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(func(s *specs.Spec) { s.Process.Rlimits = nil })
	for _, tt := range []struct {
		name string
		args []string
		cwd  string
		want string // of the message, as runc says it
	}{
		{"in path", []string{"nosuch"}, "/", `exec: "nosuch": executable file not found in $PATH`},
		{"absolute", []string{"/no/such"}, "/", `exec: "/no/such": stat /no/such: no such file or directory`},
		{"not executable", []string{"/etc/passwd"}, "/", `exec: "/etc/passwd": permission denied`},
		{"directory", []string{"/etc"}, "/", `exec: "/etc": `},
		{"relative", []string{"./nosuch"}, "/", `exec: "./nosuch": stat ./nosuch: no such file or directory`},
		{"empty", []string{""}, "/", ``},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.In(t)
			b.Change(t, harness.Args(tt.args...), func(s *specs.Spec) { s.Process.Cwd = tt.cwd })
			id := r.NewID()
			got := r.Run("create", "--bundle", b.Dir, "--pid-file", "pid", id)
			if got.Status != 1 {
				t.Errorf("status: got %d, want 1", got.Status)
			}
			if !strings.Contains(message(got.Stderr), tt.want) {
				t.Errorf("got %q, want %q in it", message(got.Stderr), tt.want)
			}
			if state := r.Run("state", id); state.Status != 1 || !strings.Contains(state.Stderr, "does not exist") {
				t.Errorf("state after a failed create: %+v", state)
			}
			runc := exec.Command("runc", "--root", r.Dir+"/runc", "create", "--bundle", b.Dir, id)
			out, err := runc.CombinedOutput()
			if err == nil {
				t.Fatal("runc created it")
			}
			theirs := strings.ReplaceAll(message(string(out)), "runc", "runv")
			// Since 1.2 runc says "is a directory" of the one in question.
			ours := strings.Replace(message(got.Stderr), "is a directory", "permission denied", 1)
			if ours != theirs {
				t.Errorf("got  %s\nrunc %s", ours, theirs)
			}
		})
	}
}

// message is what a line of the text log says.
func message(line string) string {
	_, msg, found := strings.Cut(strings.TrimSpace(line), "msg=")
	if !found {
		return line
	}
	return strings.ReplaceAll(strings.Trim(msg, `"`), `\"`, `"`)
}
