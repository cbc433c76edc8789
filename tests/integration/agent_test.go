package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/tests/harness"
)

// starve is a script after which nothing in the guest gets more memory than it
// has, not even its init: the kernel promises none that is not there, and of
// what is there a kilobyte.
const starve = "echo 2 >/proc/sys/vm/overcommit_memory; echo 1 >/proc/sys/vm/overcommit_kbytes"

// noticed is how long it may take until the end of an agent is known everywhere.
const noticed = 10 * time.Second

// agentDied is what everybody is told then: who died, why, and what came of it. Go's
// runtime has two names for the reason.
var agentDied = []*regexp.Regexp{
	regexp.MustCompile("its agent died"), regexp.MustCompile("out of memory|cannot allocate memory"), regexp.MustCompile("Attempted to kill init"),
}

// endAgent makes the agent die. A workload has a pid namespace of its own and
// cannot signal it, and as the init of its kernel no signal would end it. But a
// Go program that gets no memory ends itself; the exec of so large a process,
// which it has to read as a whole, is what it needs memory for.
func endAgent(t *testing.T, r *harness.Runtime, id string) {
	t.Helper()
	const size = 2000 << 10 // bytes, just less than an exec may have
	data, err := json.Marshal(specs.Process{Args: []string{"true"}, Cwd: "/", Env: []string{"X=" + strings.Repeat("x", size)}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(r.Dir, "large.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	got := r.Run("exec", "--process", file, id)
	if got.Status != 255 || got.Took > noticed {
		t.Errorf("exec: got %+v, want status 255", got)
	}
	tells(t, "the error of exec", got.Stderr)
}

// tells checks that a text tells of the agent's death.
func tells(t *testing.T, what, text string) {
	t.Helper()
	for _, want := range agentDied {
		if !want.MatchString(text) {
			t.Errorf("%s: got %q, want %q in it", what, text, want)
		}
	}
}

func TestAgentDies(t *testing.T) {
	for _, started := range []bool{true, false} {
		t.Run(map[bool]string{true: "running", false: "created"}[started], func(t *testing.T) {
			r := newRuntime(t)
			r.Flags = []string{"--log", r.Dir + "/log"}
			c := r.Create(r.NewBundle(harness.Args("sleep", "1000"), writableProc))
			if started {
				c.Start()
			}
			c.Output(starve)
			begin := time.Now()
			endAgent(t, r, c.ID)
			lost(t, c, 137)
			if took := time.Since(begin); took > noticed {
				t.Errorf("it took %v", took)
			}
			log, err := os.ReadFile(r.Dir + "/log")
			if err != nil || !strings.Contains(string(log), "the container was lost") {
				t.Errorf("the log does not say so: %q, %v", log, err)
			}
			tells(t, "the log", string(log))
		})
	}
}

// TestAgentDiesUnderRun: run ends too, says why, and takes the container away.
func TestAgentDiesUnderRun(t *testing.T) {
	r := newRuntime(t)
	id := r.NewID()
	out := newOutput(t)
	cmd := r.Command("run", "--bundle", r.NewBundle(harness.Shell(starve+"; echo ready; read forever"), writableProc).Dir, id)
	cmd.Stdout = out.w
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close() //nolint:errcheck // the end of run closes it
	stderr := r.ErrorFile(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.expect("ready\n")
	begin := time.Now()
	endAgent(t, r, id)
	if got := r.Wait(cmd); got != 137 {
		t.Errorf("status of run: got %d, want 137", got)
	}
	if took := time.Since(begin); took > noticed {
		t.Errorf("it took %v", took)
	}
	tells(t, "the error of run", stderr())
	if got := strings.Count(stderr(), "level=error"); got != 1 {
		t.Errorf("the error of run: got %d errors, want 1: %q", got, stderr())
	}
	refused(t, r, "container does not exist", 1, "state", id)
}
