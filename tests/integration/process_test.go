package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/tests/harness"
)

// withProbe puts a program of testdata into a bundle's /bin: one that has been
// built, in the directory RUNV_TEST_PROBES, or built now.
func withProbe(t *testing.T, b *harness.Bundle, name string) *harness.Bundle {
	t.Helper()
	to := filepath.Join(b.Rootfs, "bin", name)
	if dir := os.Getenv("RUNV_TEST_PROBES"); dir != "" {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = os.WriteFile(to, data, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	build := exec.Command("go", "build", "-o", to, "./testdata/"+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return b
}

func twoCPUs(s *specs.Spec) {
	s.VM = &specs.VM{HwConfig: &specs.HWConfig{VCPUs: ptr(uint32(2))}}
}

// schedulers are what a process asks for and what sched_getattr(2) then says.
var schedulers = []struct {
	name string
	in   specs.Scheduler
	want string
}{
	{"other", specs.Scheduler{Policy: specs.SchedOther, Nice: -5}, "policy 0 flags 0x0 nice -5 priority 0 deadline 0/0/0\n"},
	{"batch", specs.Scheduler{Policy: specs.SchedBatch, Nice: 19}, "policy 3 flags 0x0 nice 19 priority 0 deadline 0/0/0\n"},
	{"idle", specs.Scheduler{Policy: specs.SchedIdle}, "policy 5 flags 0x0 nice 0 priority 0 deadline 0/0/0\n"},
	{"fifo", specs.Scheduler{Policy: specs.SchedFIFO, Priority: 7}, "policy 1 flags 0x0 nice 0 priority 7 deadline 0/0/0\n"},
	{"round robin", specs.Scheduler{Policy: specs.SchedRR, Priority: 99, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}, "policy 2 flags 0x1 nice 0 priority 99 deadline 0/0/0\n"},
	// Without reset-on-fork such a process may not have threads, and Go's do.
	{"deadline", specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 10e6, Deadline: 40e6, Period: 50e6, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork, specs.SchedFlagReclaim}}, "policy 6 flags 0x3 nice 0 priority 0 deadline 10000000/40000000/50000000\n"},
}

// TestScheduler: of a container's first process, and of an exec's.
func TestScheduler(t *testing.T) {
	r := newRuntime(t)
	b := withProbe(t, r.NewBundle(harness.Args("sched")), "sched")
	for _, tt := range schedulers {
		t.Run(tt.name, func(t *testing.T) {
			r.In(t)
			b.Change(t, func(s *specs.Spec) { s.Process.Scheduler = &tt.in })
			if got := r.Run("run", "--bundle", b.Dir, r.NewID()); got.Stdout != tt.want || got.Status != 0 {
				t.Errorf("got %+v, want %q", got, tt.want)
			}
		})
	}
	b.Change(t, harness.Args("sleep", "1000"), func(s *specs.Spec) { s.Process.Scheduler = &schedulers[0].in })
	c := r.Create(b).Start()
	defer c.End()
	t.Run("inherited by exec", func(t *testing.T) {
		r.In(t)
		if got := r.Must("exec", c.ID, "sched"); got != schedulers[0].want {
			t.Errorf("got %q, want %q", got, schedulers[0].want)
		}
	})
	for _, tt := range schedulers {
		t.Run("exec "+tt.name, func(t *testing.T) {
			r.In(t)
			file := processFile(t, r, &specs.Process{Args: []string{"/bin/sched"}, Cwd: "/", Scheduler: &tt.in})
			if got := r.Must("exec", "--process", file, c.ID); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("the kernel refuses", func(t *testing.T) {
		r.In(t)
		file := processFile(t, r, &specs.Process{Args: []string{"/bin/sched"}, Cwd: "/", Scheduler: &specs.Scheduler{Policy: specs.SchedFIFO, Priority: 100}})
		if got := r.Run("exec", "--process", file, c.ID); got.Status != 255 || !strings.Contains(got.Stderr, "error setting scheduler: invalid argument") {
			t.Errorf("got %+v", got)
		}
	})
}

func TestIOPriority(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("sh", "-c", "ionice -p $$; sleep 1000"), func(s *specs.Spec) {
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_RT, Priority: 3}
	})
	out := newOutput(t)
	c := r.Create(b, nil, out.w).Start()
	defer c.End()
	out.expect("realtime: prio 3\n")
	if got := c.Output("ionice -p $$"); got != "realtime: prio 3" {
		t.Errorf("inherited by exec: got %q", got)
	}
	for want, p := range map[string]specs.LinuxIOPriority{
		"best-effort: prio 7\n": {Class: specs.IOPRIO_CLASS_BE, Priority: 7},
		"idle\n":                {Class: specs.IOPRIO_CLASS_IDLE},
	} {
		file := processFile(t, r, &specs.Process{Args: []string{"/bin/sh", "-c", "ionice -p $$"}, Env: []string{"PATH=/bin"}, Cwd: "/", IOPriority: &p})
		if got := r.Must("exec", "--process", file, c.ID); got != want {
			t.Errorf("%s: got %q, want %q", p.Class, got, want)
		}
	}
}

// TestExecCPUAffinity: where execs run, not the container's own process.
func TestExecCPUAffinity(t *testing.T) {
	const script = "grep Cpus_allowed_list /proc/self/status"
	r := newRuntime(t)
	b := r.NewBundle(twoCPUs, harness.Args("sh", "-c", script+"; sleep 1000"), func(s *specs.Spec) {
		s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "1"}
	})
	out := newOutput(t)
	c := r.Create(b, nil, out.w).Start()
	defer c.End()
	out.expect("Cpus_allowed_list:\t0-1\n")
	if got := c.Output(script); got != "Cpus_allowed_list:\t1" {
		t.Errorf("final of the container: got %q", got)
	}
	for _, tt := range []struct {
		affinity specs.CPUAffinity
		want     string
		failure  string
	}{
		{specs.CPUAffinity{Final: "0"}, "Cpus_allowed_list:\t0\n", ""},
		{specs.CPUAffinity{Initial: "1"}, "Cpus_allowed_list:\t0-1\n", ""},
		{specs.CPUAffinity{Initial: "1", Final: "0-1"}, "Cpus_allowed_list:\t0-1\n", ""},
		{specs.CPUAffinity{Final: "7"}, "", "error setting final CPU affinity: invalid argument"},
		{specs.CPUAffinity{Initial: "7"}, "", "error setting initial CPU affinity: invalid argument"},
	} {
		file := processFile(t, r, &specs.Process{Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin"}, Cwd: "/", ExecCPUAffinity: &tt.affinity})
		got := r.Run("exec", "--process", file, c.ID)
		if got.Stdout != tt.want || !strings.Contains(got.Stderr, tt.failure) || (got.Status == 0) != (tt.failure == "") {
			t.Errorf("%+v: got %+v, want %q, %q", tt.affinity, got, tt.want, tt.failure)
		}
	}
}
