package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/stats"
	"runv/tests/harness"
)

// oomScript needs more memory than its container has, in a process of its own.
const oomScript = `x=a; while :; do x=$x$x; done`

func TestStats(t *testing.T) {
	c := limited(t).Start()
	r := c.Runtime
	c.Output("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
	var e stats.Event
	out := r.Must("events", "--stats", c.ID)
	if err := json.Unmarshal([]byte(out), &e); err != nil || strings.Count(out, "\n") != 1 {
		t.Fatalf("%q: %v", out, err)
	}
	s := e.Data
	if e.Type != "stats" || e.ID != c.ID || s == nil {
		t.Fatalf("got %s", out)
	}
	if s.Pids.Current < 1 || s.Pids.Limit != 50 {
		t.Errorf("pids: %+v", s.Pids)
	}
	if s.Memory.Usage.Limit != 64<<20 || s.Memory.Usage.Usage == 0 || s.Memory.Usage.Usage > 64<<20 || s.Memory.Raw["anon"] == 0 {
		t.Errorf("memory: %+v", s.Memory.Usage)
	}
	if u := s.CPU.Usage; u.Total == 0 || u.User+u.Kernel > u.Total+2000 || s.CPU.Throttling.Periods == 0 {
		t.Errorf("cpu: %+v", s.CPU)
	}
	if _, ok := s.Hugetlb["2MB"]; !ok || s.Interfaces != nil {
		t.Errorf("hugetlb %v, interfaces %v", s.Hugetlb, s.Interfaces)
	}
	r.Must("pause", c.ID)
	if got := r.Must("events", "--stats", c.ID); !strings.HasPrefix(got, `{"type":"stats"`) {
		t.Errorf("of a paused container: %q", got)
	}
	r.Must("resume", c.ID)
	refused(t, r, "duration interval must be greater than 0", 1, "events", "--interval", "0s", c.ID)
	r.Must("kill", c.ID, "KILL")
	c.Wait()
	refused(t, r, "container with id "+c.ID+" is not running", 1, "events", "--stats", c.ID)
	refused(t, r, "container with id "+c.ID+" is not running", 1, "events", c.ID)
	c.Delete()
}

// TestEvents: events come as long as the container runs.
func TestEvents(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Shell(oomScript+" & wait; sleep 1000"), func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(32 << 20))}
	}))
	cmd := r.Command("events", "--interval", "200ms", c.ID)
	cmd.Stderr = nil
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr := r.ErrorFile(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	next := func() (e stats.Event) {
		if !lines.Scan() {
			t.Fatalf("events ended: %v, %s", lines.Err(), stderr())
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.ID != c.ID {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		return e
	}
	if e := next(); e.Type != "stats" || e.Data.Memory.Usage.Limit != 32<<20 {
		t.Errorf("first: %s", lines.Text())
	}
	c.Start()
	kinds := map[string]int{}
	for kinds["oom"] == 0 || kinds["stats"] < 3 {
		kinds[next().Type]++
	}
	if kinds["oom"] != 1 {
		t.Errorf("got %v", kinds)
	}
	r.Must("kill", c.ID, "KILL")
	c.Wait()
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), `{"type":"oom"`) {
			t.Errorf("a kill is told as %s", lines.Text())
		}
	}
	if status := r.Wait(cmd); status != 0 || stderr() != "" {
		t.Errorf("status %d, %s", status, stderr())
	}
	c.Delete()
}

// TestEventsOfOOM: if the first process is what is killed, that is the last event.
func TestEventsOfOOM(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Shell(oomScript), func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(32 << 20))}
	}))
	out := newOutput(t)
	cmd := r.Command("events", "--interval", "1h", c.ID)
	cmd.Stdout = out.w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// It reads how many were killed before.
	harness.Within(t, harness.Limit, "events watches", func() bool { return harness.Sockets(t, cmd.Process.Pid) >= 2 })
	c.Start()
	if got := c.Wait(); got != 137 {
		t.Errorf("status: got %d, want 137", got)
	}
	if status := r.Wait(cmd); status != 0 {
		t.Errorf("status of events: %d", status)
	}
	out.expect(`{"type":"oom","id":"` + c.ID + `"}` + "\n")
	c.Delete()
}

// TestHostSeesOOM: engines learn of it by the container's cgroup on the host.
func TestHostSeesOOM(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Shell("echo begin; "+oomScript), func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(32 << 20))}
	}))
	place := cgroups(t, c.PID)
	killed := func() string { return hostFile(t, place[""], "memory.events") }
	if !unified() {
		killed = oomEvents(t, place["memory"])
	}
	c.Start()
	if got := c.Wait(); got != 137 {
		t.Errorf("status: got %d, want 137", got)
	}
	if got := killed(); !strings.Contains(got, "oom_kill 1") {
		t.Errorf("the host saw %q", got)
	}
	if got := c.State().Status; got != "stopped" {
		t.Errorf("state: %s", got)
	}
	c.Delete()
	// A kill is no want of memory.
	c = r.Create(r.NewBundle(harness.Args("sleep", "1000"))).Start()
	place = cgroups(t, c.PID)
	r.Must("kill", c.ID, "KILL")
	c.Wait()
	file := map[bool]string{true: "memory.events", false: "memory.oom_control"}[unified()]
	if got := hostFile(t, place[map[bool]string{true: "", false: "memory"}[unified()]], file); !strings.Contains(got, "oom_kill 0") {
		t.Errorf("after a kill: %q", got)
	}
	c.Delete()
	// In the foreground, too.
	b := r.NewBundle(harness.Shell(oomScript), func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(32 << 20))}
	})
	if got := r.Run("run", "--bundle", b.Dir, r.NewID()); got.Status != 137 || strings.Contains(got.Stderr, "level=error") {
		t.Errorf("run: %+v", got)
	}
}

// hostFile reads a file of a cgroup of the host.
func hostFile(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// oomEvents registers for the events of cgroup v1 as containerd does. The result
// says whether there was one, and what memory.oom_control says.
func oomEvents(t *testing.T, dir string) func() string {
	t.Helper()
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(event) }) //nolint:errcheck // an eventfd
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close() //nolint:errcheck // only registered
	if err := os.WriteFile(filepath.Join(dir, "cgroup.event_control"), fmt.Appendf(nil, "%d %d", event, control.Fd()), 0); err != nil {
		t.Fatal(err)
	}
	return func() string {
		var b [8]byte
		if _, err := unix.Read(event, b[:]); err != nil {
			return "no event: " + err.Error()
		}
		return hostFile(t, dir, "memory.oom_control")
	}
}
