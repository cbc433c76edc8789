package integration

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"runv/tests/harness"
)

// counts makes a container that counts in a file of its rootfs, which the host
// sees, and its file.
func counts(t *testing.T) (*harness.Container, string) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Shell(`trap 'echo term; exit 6' TERM; i=0; while :; do i=$((i+1)); echo $i > /next; mv /next /count; sleep 0.02; done`))
	return r.Create(b, nil, newOutput(t).w).Start(), filepath.Join(b.Rootfs, "count")
}

// counted reads the file.
func counted(t *testing.T, file string) int {
	t.Helper()
	data, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return 0 // it has not begun
	} else if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// grows waits until the container counts on.
func grows(t *testing.T, file string) {
	t.Helper()
	from := counted(t, file)
	harness.Within(t, harness.Limit, "the container counts", func() bool { return counted(t, file) > from })
}

// stands fails if the container counts on, or its VM uses the processor.
func stands(t *testing.T, c *harness.Container, file string) {
	t.Helper()
	from, cpu := counted(t, file), harness.CPUTime(t, c.PID)
	time.Sleep(500 * time.Millisecond)
	if to := counted(t, file); to != from {
		t.Errorf("a paused container counted from %d to %d", from, to)
	}
	if used := harness.CPUTime(t, c.PID) - cpu; used > harness.Scaled(50*time.Millisecond) {
		t.Errorf("a paused container used %v of the processor within 500 ms", used)
	}
}

// TestPause: what commands do with a paused container.
func TestPause(t *testing.T) {
	c, file := counts(t)
	r := c.Runtime
	grows(t, file)
	refused(t, r, "container not paused", 1, "resume", c.ID)
	r.Must("pause", c.ID)
	if got := c.State().Status; got != "paused" {
		t.Errorf("status: got %s, want paused", got)
	}
	stands(t, c, file)
	refused(t, r, "container not running", 1, "pause", c.ID)
	refused(t, r, "cannot start a container in the paused state", 1, "start", c.ID)
	refused(t, r, "cannot exec in a paused container", 255, "exec", c.ID, "true")
	refused(t, r, "that is not stopped: paused", 1, "delete", c.ID)

	// The agent answers, and the workload does not go on meanwhile.
	before := counted(t, file)
	if got := r.Must("ps", c.ID); !strings.Contains(got, "count") {
		t.Errorf("ps: got %q", got)
	}
	r.Must("kill", c.ID, "TERM")
	if now := counted(t, file); now != before {
		t.Errorf("it counted from %d to %d", before, now)
	}
	stands(t, c, file)
	r.Must("resume", c.ID)
	if got := c.Wait(); got != 6 {
		t.Errorf("status: got %d, want 6: the signal of before", got)
	}
	refused(t, r, "container not running", 1, "pause", c.ID)
	refused(t, r, "container not paused", 1, "resume", c.ID)
	c.Delete()
}

// TestPauseAndGoOn: the clock is right, streams stay, and it can be done again.
func TestPauseAndGoOn(t *testing.T) {
	c, file := counts(t)
	for range 3 {
		grows(t, file)
		c.Runtime.Must("pause", c.ID)
		stands(t, c, file)
		c.Runtime.Must("resume", c.ID)
		if got := c.State().Status; got != "running" {
			t.Errorf("status: got %s, want running", got)
		}
	}
	grows(t, file)
	c.Runtime.Must("pause", c.ID)
	time.Sleep(3 * time.Second) // as much as the clock may be wrong below
	c.Runtime.Must("resume", c.ID)
	now, err := strconv.ParseInt(c.Output("date +%s"), 10, 64)
	if diff := time.Since(time.Unix(now, 0)).Abs(); err != nil || diff > harness.Scaled(1500*time.Millisecond) {
		t.Errorf("the container's clock is wrong by %v (%v)", diff, err)
	}
	c.End()
}

// TestPauseAndKill: what is paused can be killed.
func TestPauseAndKill(t *testing.T) {
	for _, how := range []string{"kill", "delete"} {
		t.Run(how, func(t *testing.T) {
			c, file := counts(t)
			grows(t, file)
			c.Runtime.Must("pause", c.ID)
			begin := time.Now()
			if how == "delete" {
				c.Runtime.Must("delete", "--force", c.ID)
			} else {
				c.Runtime.Must("kill", c.ID, "KILL")
			}
			if got := c.Wait(); got != 137 {
				t.Errorf("status: got %d, want 137", got)
			}
			if took := time.Since(begin); took > harness.Scaled(10*time.Second) {
				t.Errorf("it took %v", took)
			}
			if how == "kill" {
				c.Delete()
			}
		})
	}
}

// TestPauseBeforeStart: a created container is created again after it.
func TestPauseBeforeStart(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Shell("exit 9")))
	r.Must("pause", c.ID)
	r.Must("resume", c.ID)
	if got := c.State().Status; got != "created" {
		t.Errorf("status: got %s, want created", got)
	}
	c.Start()
	if got := c.Wait(); got != 9 {
		t.Errorf("status: got %d, want 9", got)
	}
	c.Delete()
}
