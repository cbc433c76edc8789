package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

func TestLifecycle(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Shell("trap 'exit 42' TERM; echo started; while :; do sleep 0.05; done"),
		func(s *specs.Spec) { s.Annotations = map[string]string{"com.example.a": "b"} })
	out := newOutput(t)
	c := r.Create(b, nil, out.w)

	got := c.State()
	if got.ID != c.ID || got.Status != "created" || got.PID != c.PID || got.Bundle != b.Dir || got.Rootfs != b.Rootfs ||
		got.Annotations["com.example.a"] != "b" || got.Created.IsZero() || got.OCIVersion == "" {
		t.Errorf("state: got %+v", got)
	}
	refused(t, r, "container not running", 1, "kill", r.NewID()+"x", "0")
	refused(t, r, "already exists", 1, "create", "--bundle", b.Dir, c.ID)
	c.Start()
	out.expect("started\n")
	if got := c.State(); got.Status != "running" || got.PID != c.PID {
		t.Errorf("state: got %+v", got)
	}
	refused(t, r, "cannot start an already running container", 1, "start", c.ID)
	refused(t, r, "that is not stopped: running", 1, "delete", c.ID)

	// Only a parent learns the status, so that the test is a subreaper.
	r.Must("kill", c.ID, "TERM")
	if got := c.Wait(); got != 42 {
		t.Errorf("status: got %d, want 42", got)
	}
	if got := c.State(); got.Status != "stopped" || got.PID != 0 {
		t.Errorf("state: got %+v, want stopped, pid 0", got)
	}
	refused(t, r, "container not running", 1, "kill", c.ID, "TERM")
	r.Must("kill", "--all", c.ID, "9")
	refused(t, r, "cannot start a container that has stopped", 1, "start", c.ID)
	refused(t, r, "cannot exec in a stopped container", 255, "exec", c.ID, "true")
	c.Delete()
	refused(t, r, "container does not exist", 1, "state", c.ID)
	refused(t, r, "container does not exist", 1, "delete", c.ID)
	r.Must("delete", "--force", c.ID)
}

// refused runs a command that must fail with the words and the status.
func refused(t *testing.T, r *harness.Runtime, words string, status int, args ...string) {
	t.Helper()
	got := r.Run(args...)
	if got.Status != status || !strings.Contains(got.Stderr, words) || got.Stdout != "" {
		if words == "container not running" && strings.Contains(got.Stderr, "container does not exist") {
			return // of an id that never was
		}
		t.Errorf("runv %s: got status %d, stdout %q, stderr %q, want %d, %q", strings.Join(args, " "), got.Status, got.Stdout, got.Stderr, status, words)
	}
}

// TestStateBeforeReaping: a container whose parent has not reaped it is stopped.
func TestStateBeforeReaping(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Shell("exit 3"))).Start()
	harness.Within(t, harness.Limit, "state stopped", func() bool { return c.State().Status == "stopped" })
	c.Delete()
	if got := c.Wait(); got != 3 {
		t.Errorf("status: got %d, want 3", got)
	}
}

// TestStateIsRuncs compares the JSON's keys and their order.
func TestStateIsRuncs(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("sleep", "1000"), func(s *specs.Spec) { s.Process.Rlimits = nil; s.Linux.Resources = nil })
	c := r.Create(b)
	defer c.End()
	id := r.NewID()
	runc := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("runc", append([]string{"--root", filepath.Join(r.Dir, "runc")}, args...)...)
		cmd.Dir = r.Dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("runc %v: %v", args, err)
		}
		return string(out)
	}
	create := exec.Command("runc", "--root", filepath.Join(r.Dir, "runc"), "create", "--bundle", b.Dir, "--pid-file", filepath.Join(r.Dir, "runc.pid"), id)
	if err := create.Run(); err != nil {
		t.Skipf("runc create: %v", err)
	}
	defer func() {
		pid := harness.ReadPid(t, filepath.Join(r.Dir, "runc.pid"))
		runc("delete", "--force", id)
		harness.Reap(t, pid)
	}()
	keys := regexp.MustCompile(`(?m)^ *"\w+":`)
	if ours, theirs := keys.FindAllString(r.Must("state", c.ID), -1), keys.FindAllString(runc("state", id), -1); strings.Join(ours, "") != strings.Join(theirs, "") {
		t.Errorf("keys of state: got %q, runc %q", ours, theirs)
	}
	header := func(table string) string {
		line, _, _ := strings.Cut(table, "\n")
		return strings.Join(strings.Fields(line), " ")
	}
	if ours, theirs := header(r.Must("list")), header(runc("list")); ours != theirs {
		t.Errorf("header of list: got %q, runc %q", ours, theirs)
	}
}

func TestListAndPs(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Shell("sleep 1000 & wait"))).Start()
	defer c.End()
	harness.Within(t, harness.Limit, "the child", func() bool { return strings.Contains(r.Must("ps", c.ID), "sleep 1000\n") })
	ps := strings.Split(strings.TrimSpace(r.Must("ps", c.ID)), "\n")
	if got := strings.Fields(ps[0]); strings.Join(got, " ") != "UID PID PPID C STIME TTY TIME CMD" {
		t.Errorf("header of ps: %q", got)
	}
	if len(ps) != 3 || !regexp.MustCompile(`^root +1 +0 +\d+ \d\d:\d\d \? +00:00:0\d sh -c sleep 1000 & wait$`).MatchString(ps[1]) {
		t.Errorf("ps: got %q", ps)
	}
	if got, want := r.Must("ps", "--format", "json", c.ID), fmt.Sprintf("[%d]\n", c.PID); got != want {
		t.Errorf("ps --format json: got %q, want %q", got, want)
	}
	if got := r.Must("list", "--quiet"); got != c.ID+"\n" {
		t.Errorf("list --quiet: got %q", got)
	}
	line := strings.Split(r.Must("list"), "\n")[1]
	if got := strings.Fields(line); len(got) != 6 || got[0] != c.ID || got[1] != strconv.Itoa(c.PID) || got[2] != "running" || got[3] != c.Bundle.Dir || got[5] != "root" {
		t.Errorf("list: got %q", got)
	}
	var all []harness.State
	if err := json.Unmarshal([]byte(r.Must("list", "--format", "json")), &all); err != nil || len(all) != 1 || all[0].ID != c.ID {
		t.Errorf("list --format json: got %+v, %v", all, err)
	}
	refused(t, r, "is not supported: the processes are in a virtual machine", 1, "ps", c.ID, "--forest")
}

// TestPsColumns: what ps tells is what /proc in the container tells.
func TestPsColumns(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Args("sleep", "1000"))).Start()
	defer c.End()
	pid := detached(t, c, nil, []string{"--user", "7:8"}, "sh", "-c", "renice -n 5 $$ >/dev/null; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 1001")
	defer func() {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Error(err)
		}
		harness.Reap(t, pid)
	}()
	line := func() string {
		_, rest, _ := strings.Cut(r.Must("ps", c.ID, "-o", "pid,ppid,uid,ni,stat,tty,pgid,sid,nlwp,rss,etimes,time,args"), "\n      1 ")
		_, rest, _ = strings.Cut(rest, "\n")
		return strings.TrimSuffix(rest, "\n")
	}
	// It runs its exec's last for a moment under its new name.
	harness.Within(t, harness.Limit, "the sleep", func() bool {
		return regexp.MustCompile(`^ *(\d+ +){4}S.*:\d\d sleep 1001$`).MatchString(line())
	})
	f := strings.Fields(line())
	inside := strings.Fields(c.Output("cd /proc/" + f[0] + "; cut -d' ' -f4,5,6,19 stat; awk '/^Uid/ {print $3} /^VmRSS/ {print $2} /^Threads/ {print $2}' status"))
	if len(inside) != 7 {
		t.Fatalf("/proc: %q", inside)
	}
	got := []string{f[1], f[6], f[7], f[3], f[2], f[9], f[8]}
	if !slices.Equal(got, inside) {
		t.Errorf("ppid, pgid, sid, nice, uid, rss and threads: got %q, want %q", got, inside)
	}
	if f[4] != "SNs" || f[5] != "?" {
		t.Errorf("stat and tty: got %q", f)
	}
	harness.Within(t, harness.Limit, "the time passes", func() bool { return strings.Fields(line())[10] != "0" })
}

// TestPsOfStopped: nothing, as runc says it.
func TestPsOfStopped(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Args("true"))).Start()
	c.Wait()
	if got := r.Must("ps", "-f", "json", c.ID); got != "null\n" {
		t.Errorf("json: got %q", got)
	}
	if got := r.Must("ps", c.ID); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "UID ") {
		t.Errorf("table: got %q", got)
	}
	c.Delete()
}

// TestMonitorIsTheContainer: engines enter its namespaces and look at its files.
func TestMonitorIsTheContainer(t *testing.T) {
	r := newRuntime(t)
	leaked, err := os.CreateTemp(r.Dir, "leaked")
	if err != nil {
		t.Fatal(err)
	}
	defer leaked.Close() //nolint:errcheck // nothing is written
	b := r.NewBundle(harness.Args("sleep", "1000"))
	id := r.NewID()
	cmd := r.Command("create", "--bundle", b.Dir, "--pid-file", "pid", id)
	cmd.ExtraFiles = []*os.File{leaked}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	c := &harness.Container{Runtime: r, ID: id, Bundle: b, PID: harness.ReadPid(t, r.Dir+"/pid")}
	defer c.End()
	c.Start()
	for _, p := range append(harness.Descendants(c.PID), harness.Proc{PID: c.PID}) {
		dir := fmt.Sprintf("/proc/%d/fd", p.PID)
		fds, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if target, _ := os.Readlink(filepath.Join(dir, fd.Name())); target == leaked.Name() {
				t.Errorf("%s holds the caller's descriptor open", p)
			}
		}
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/bin/busybox", c.PID)); err != nil {
		t.Errorf("its root is not the container's: %v", err)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", c.PID, r.Setup.Runv)); err == nil {
		t.Error("its root shows the host's files")
	}
	for _, ns := range []string{"mnt", "pid", "net", "ipc", "uts"} {
		ours, _ := os.Readlink("/proc/self/ns/" + ns)
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.PID, ns))
		if err != nil || ours == theirs {
			t.Errorf("namespace %s: %s, %v, is ours", ns, theirs, err)
		}
	}
	// Signals sent to the pid are the workload's: PID 1 ignores this one.
	if err := unix.Kill(c.PID, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if got := c.Output("echo alive"); got != "alive" {
		t.Errorf("after SIGUSR1: got %q", got)
	}
}

func TestSignalToThePid(t *testing.T) {
	r := newRuntime(t)
	out := newOutput(t)
	c := r.Create(r.NewBundle(harness.Shell("trap 'exit 8' USR1; echo ready; while :; do sleep 0.05; done")), nil, out.w).Start()
	out.expect("ready\n")
	if err := unix.Kill(c.PID, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if got := c.Wait(); got != 8 {
		t.Errorf("status: got %d, want 8", got)
	}
	c.Delete()
}

func TestDelete(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("sleep", "1000"))
	t.Run("created, never started", func(t *testing.T) {
		r.In(t)
		c := r.Create(b)
		c.Delete()
		if got := c.Wait(); got != 137 {
			t.Errorf("status: got %d, want 137", got)
		}
	})
	t.Run("killed before it was started", func(t *testing.T) {
		r.In(t)
		c := r.Create(b)
		r.Must("kill", c.ID, "9")
		if got := c.Wait(); got != 137 {
			t.Errorf("status: got %d, want 137", got)
		}
		refused(t, r, "cannot start a container that has stopped", 1, "start", c.ID)
		c.Delete()
	})
	t.Run("running, by force", func(t *testing.T) {
		r.In(t)
		c := r.Create(b).Start()
		r.Must("delete", "--force", c.ID)
		if got := c.Wait(); got != 137 {
			t.Errorf("status: got %d, want 137", got)
		}
	})
}

func TestTwoContainersOfOneBundle(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("sleep", "1000"))
	one, two := r.Create(b).Start(), r.Create(b).Start()
	one.Output("echo from one >/tmp/shared")
	if got := two.Output("cat /tmp/shared"); got != "from one" {
		t.Errorf("got %q", got)
	}
	if got := count(two, "sleep 1000"); got != "1" {
		t.Errorf("processes: got %s, want 1", got)
	}
	one.End()
	if got := two.Output("echo alive"); got != "alive" {
		t.Errorf("got %q", got)
	}
	two.End()
}
