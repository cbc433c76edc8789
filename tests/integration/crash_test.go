package integration

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

// hypervisor is the pid of the process that runs the VM of a container. With
// runv's own VMM that is the monitor itself, and there is nothing to test that
// TestMonitorKilled has not.
func hypervisor(t *testing.T, c *harness.Container) int {
	t.Helper()
	for _, p := range harness.Descendants(c.PID) {
		if strings.HasPrefix(p.Comm, "qemu-system") {
			return p.PID
		}
	}
	if os.Getenv("RUNV_BACKEND") == "kvm" {
		c.End()
		t.Skip("the VM is the monitor itself")
	}
	t.Fatal("no QEMU below the monitor")
	return 0
}

// lost checks what is left when a container was lost.
func lost(t *testing.T, c *harness.Container, want int) {
	t.Helper()
	if got := c.Wait(); got != want {
		t.Errorf("status: got %d, want %d", got, want)
	}
	if got := c.State(); got.Status != "stopped" {
		t.Errorf("state: got %+v, want stopped", got)
	}
	refused(t, c.Runtime, "container not running", 1, "kill", c.ID, "TERM")
	refused(t, c.Runtime, "cannot exec in a stopped container", 255, "exec", c.ID, "true")
	c.Delete()
}

func TestHypervisorKilled(t *testing.T) {
	for _, started := range []bool{true, false} {
		t.Run(map[bool]string{true: "running", false: "created"}[started], func(t *testing.T) {
			r := newRuntime(t)
			r.Flags = []string{"--log", r.Dir + "/log"}
			c := r.Create(r.NewBundle(harness.Args("sleep", "1000")))
			if started {
				c.Start()
			}
			begin := time.Now()
			if err := unix.Kill(hypervisor(t, c), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			lost(t, c, 137)
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("noticed after %v", took)
			}
			log, err := os.ReadFile(r.Dir + "/log")
			if err != nil || !strings.Contains(string(log), "the container was lost") || !strings.Contains(strings.ToLower(string(log)), "kill") {
				t.Errorf("the log does not say so: %q, %v", log, err)
			}
		})
	}
}

// TestHypervisorKilledUnderCommands: what is at work then ends with an error.
func TestHypervisorKilledUnderCommands(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Args("sleep", "1000"))).Start()
	vm := hypervisor(t, c)
	out := newOutput(t)
	cmd := r.Command("exec", c.ID, "sh", "-c", "echo ready; sleep 1000")
	cmd.Stdout = out.w
	stderr := r.ErrorFile(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.expect("ready\n")
	if err := unix.Kill(vm, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := r.Wait(cmd); got != 137 {
		t.Errorf("status of exec: got %d (%s), want 137", got, stderr())
	}
	lost(t, c, 137)
}

func TestMonitorKilled(t *testing.T) {
	for _, started := range []bool{true, false} {
		t.Run(map[bool]string{true: "running", false: "created"}[started], func(t *testing.T) {
			r := newRuntime(t)
			c := r.Create(r.NewBundle(harness.Args("sleep", "1000")))
			if started {
				c.Start()
			}
			children := harness.Descendants(c.PID)
			if err := unix.Kill(c.PID, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			// Before anybody reaps it, too.
			harness.Within(t, harness.Limit, "state stopped", func() bool { return c.State().Status == "stopped" })
			lost(t, c, 137)
			for _, p := range children {
				if err := unix.Kill(p.PID, 0); err != unix.ESRCH {
					t.Errorf("%s is still there: %v", p, err)
				}
			}
		})
	}
}

// TestMonitorKilledAnytime: what a monitor has made so far goes with it, and its
// creator tells.
func TestMonitorKilledAnytime(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("sleep", "1000"))
	whole := r.Run("run", "--bundle", r.NewBundle(harness.Args("true")).Dir, r.NewID()).Took
	const steps = 15
	killed := 0
	for i := range steps {
		id := r.NewID()
		cmd := r.Command("create", "--bundle", b.Dir, "--pid-file", "pid-"+id, id)
		stderr := r.ErrorFile(cmd)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The moment is what the test varies.
		time.Sleep(whole * time.Duration(i) / steps)
		for _, p := range harness.Descendants(cmd.Process.Pid) {
			if p.PPID == cmd.Process.Pid {
				unix.Kill(p.PID, unix.SIGKILL) //nolint:errcheck // it may have ended
				killed++
			}
		}
		if status := r.Wait(cmd); status == 0 {
			// It was faster, or killed behind its last step.
			p := harness.ReadPid(t, r.Dir+"/pid-"+id)
			r.Must("delete", "--force", id)
			harness.Reap(t, p)
			continue
		}
		if got := stderr(); strings.Count(got, "level=error") != 1 || !strings.Contains(got, "monitor") {
			t.Errorf("after %d/%d: got %q, want one error that names the monitor", i, steps, got)
		}
		refused(t, r, "container does not exist", 1, "state", id)
		reapOrphans(t)
	}
	if killed < steps/2 {
		t.Errorf("%d of %d monitors were killed", killed, steps)
	}
}

func TestForegroundKilled(t *testing.T) {
	r := newRuntime(t)
	id := r.NewID()
	out := newOutput(t)
	cmd := r.Command("run", "--pid-file", "pid", "--bundle", r.NewBundle(harness.Shell("echo ready; sleep 1000")).Dir, id)
	cmd.Stdout = out.w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.expect("ready\n")
	pid := harness.ReadPid(t, r.Dir+"/pid")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := r.Wait(cmd); got != 137 {
		t.Errorf("status: got %d", got)
	}
	r.Must("delete", "--force", id)
	harness.Reap(t, pid) // runv was its subreaper; now it is we
}

// writableProc lets the workload set what is the guest's, not only the container's.
func writableProc(s *specs.Spec) {
	s.Linux.ReadonlyPaths = nil
	for i := range s.Mounts {
		if s.Mounts[i].Destination == "/proc" {
			s.Mounts[i].Options = nil
		}
	}
}

// TestGuestCrashes: the kernel panics under a running workload.
func TestGuestCrashes(t *testing.T) {
	r := newRuntime(t)
	r.Flags = []string{"--log", r.Dir + "/log"}
	c := r.Create(r.NewBundle(harness.Args("sleep", "1000"), writableProc)).Start()
	if got := c.Exec("cat /proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 5; echo alive"); strings.Contains(got.Stdout, "alive") {
		r.Must("delete", "--force", c.ID)
		c.Wait()
		t.Skipf("the guest's kernel has no sysrq: %+v", got)
	}
	lost(t, c, 137)
	log, err := os.ReadFile(r.Dir + "/log")
	if err != nil || !strings.Contains(string(log), "sysrq triggered crash") {
		t.Errorf("the log has no console tail: %q, %v", log, err)
	}
}

// TestGuestOutOfMemory: the workload is killed, not the guest.
func TestGuestOutOfMemory(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Shell("(tail -c 90m /dev/zero); echo status $?"), func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}}
	})
	got := r.Run("run", "--bundle", b.Dir, r.NewID())
	if got.Stdout != "status 137\n" || got.Status != 0 {
		t.Errorf("got %+v", got)
	}
}

// TestCreateInterrupted: at whatever moment create is ended, nothing is left.
// The harness looks for processes, mounts and files; this for the state.
func TestCreateInterrupted(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("sleep", "1000"))
	whole := r.Run("run", "--bundle", r.NewBundle(harness.Args("true")).Dir, r.NewID()).Took
	const steps = 10
	for _, tt := range []struct {
		sig  unix.Signal
		want int
	}{{unix.SIGINT, 130}, {unix.SIGTERM, 143}, {unix.SIGKILL, 137}} {
		for i := range steps {
			id := r.NewID()
			cmd := r.Command("create", "--bundle", b.Dir, "--pid-file", "pid-"+id, id)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// The moment is what the test varies.
			time.Sleep(whole * time.Duration(i) / steps)
			cmd.Process.Signal(tt.sig) //nolint:errcheck // it may have ended
			status := r.Wait(cmd)
			pid, err := os.ReadFile(r.Dir + "/pid-" + id)
			switch {
			case status == 0 || tt.sig == unix.SIGKILL && err == nil && len(pid) > 0:
				// It was faster, or killed behind its last step.
				p := harness.ReadPid(t, r.Dir+"/pid-"+id)
				r.Must("delete", "--force", id)
				harness.Reap(t, p)
				continue
			case status != tt.want:
				t.Errorf("%v after %d/%d: status %d, want %d", tt.sig, i, steps, status, tt.want)
			case err == nil:
				t.Errorf("%v after %d/%d left a pid file", tt.sig, i, steps)
			}
			if tt.sig == unix.SIGKILL {
				// Nobody was left to clean the state up: engines delete.
				r.Must("delete", "--force", id)
			}
			if got := r.Run("state", id); got.Status == 0 {
				t.Errorf("%v after %d/%d left a state: %s", tt.sig, i, steps, got.Stdout)
			}
			reapOrphans(t)
		}
	}
}

// reapOrphans waits for the processes that ended commands left to us.
func reapOrphans(t *testing.T) {
	t.Helper()
	harness.Within(t, 10*time.Second, "the processes of an interrupted create end", func() bool {
		_, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		return err == unix.ECHILD
	})
}

// TestCreateTwiceAtOnce: one of them wins, and the other one takes nothing away.
func TestCreateTwiceAtOnce(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("sleep", "1000"))
	id := r.NewID()
	var cmds []*exec.Cmd
	for i := range 3 {
		cmd := r.Command("create", "--bundle", b.Dir, "--pid-file", "pid"+itoa(i), id)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	created := 0
	c := &harness.Container{Runtime: r, ID: id, Bundle: b}
	for i, cmd := range cmds {
		if r.Wait(cmd) == 0 {
			created++
			c.PID = harness.ReadPid(t, r.Dir+"/pid"+itoa(i))
		}
	}
	if created != 1 {
		t.Fatalf("%d creates of one id succeeded", created)
	}
	c.Start().End()
}
