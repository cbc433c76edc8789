package integration

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/tests/harness"
)

// guestLimits are the files of the container's cgroup, in one line each.
func guestLimits(c *harness.Container, files ...string) string {
	return strings.ReplaceAll(c.Output("cd /sys/fs/cgroup; cat "+strings.Join(files, " ")), "\n", "|")
}

// limited makes a container with limits to change.
func limited(t *testing.T) *harness.Container {
	r := newRuntime(t)
	return r.Create(r.NewBundle(harness.Args("sleep", "1000"), func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(64 << 20))}
		s.Linux.Resources.CPU = &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000))}
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: ptr(int64(50))}
	}))
}

func TestUpdate(t *testing.T) {
	c := limited(t)
	r := c.Runtime
	files := []string{"memory.max", "memory.low", "cpu.max", "cpu.max.burst", "cpu.weight", "cpu.idle", "pids.max"}
	ram := hostLimit(t, c.PID, "memory.limit_in_bytes", "memory.max")
	const idle = "idle"
	steps := []struct {
		name, stdin string
		args        []string
		want        string
	}{
		{"created", "", []string{"--memory", "48m", "--memory-swap", "48m"}, "50331648|0|50000 100000|0|100|0|50"},
		{"every flag", "", []string{"--memory", "32m", "--memory-swap", "64m", "--memory-reservation", "16m", "--cpu-quota", "40000", "--cpu-period", "50000",
			"--cpu-burst", "1000", "--cpu-share", "512", "--pids-limit", "40", "--cpuset-cpus", "0", "--cpuset-mems", "0"},
			"33554432|16777216|40000 50000|1000|59|0|40"},
		{"quota alone", "", []string{"--cpu-quota", "20000"}, "33554432|16777216|20000 50000|1000|59|0|40"},
		{"idle", "", []string{"--cpu-idle", "1"}, idle},
		{"not idle", "", []string{"--cpu-idle", "0", "--cpu-share", "1024"}, "33554432|16777216|20000 50000|1000|100|0|40"},
		{"as docker does", `{"memory":{"limit":41943040,"swap":0,"reservation":0,"kernel":0},"cpu":{"shares":0,"quota":0,"period":0,"cpus":"","mems":"","realtimeRuntime":0},"blockIO":{"weight":0},"pids":{"limit":0}}`,
			[]string{"--resources", "-"}, "41943040|16777216|20000 50000|1000|100|0|40"},
		{"as podman does", `{"pids":{"limit":-1}}`, []string{"--resources", "-"}, "41943040|16777216|20000 50000|1000|100|0|max"},
		{"up to what the VM has", "", []string{"--memory", "64m"}, "67108864|16777216|20000 50000|1000|100|0|max"},
		{"no limits", "", []string{"--memory", "-1", "--cpu-quota", "-1"}, "max|16777216|max 50000|1000|100|0|max"},
		{"unified", `{"unified":{"memory.high":"33554432"},"memory":{"limit":60000000}}`, []string{"-r", "-"}, "59998208|16777216|max 50000|1000|100|0|max"},
		{"nothing", "", nil, "59998208|16777216|max 50000|1000|100|0|max"},
	}
	for i, s := range steps {
		got := r.RunWith(strings.NewReader(s.stdin), append(append([]string{"update"}, s.args...), c.ID)...)
		if got.Status != 0 || got.Stdout != "" {
			t.Fatalf("%s: %+v", s.name, got)
		}
		if i == 0 {
			c.Start()
		}
		if s.want == idle {
			// On a busy host the whole VM stands still now.
			if got := hostLimit(t, c.PID, "cpu.idle", "cpu.idle"); got != "1" && got != "" {
				t.Errorf("cpu.idle on the host: %s", got)
			}
			continue
		}
		if got := guestLimits(c, files...); got != s.want {
			t.Errorf("%s: got %s, want %s", s.name, got, s.want)
		}
	}
	if got := guestLimits(c, "memory.high"); got != "33554432" {
		t.Errorf("memory.high: %s", got)
	}
	for _, tt := range []struct{ v1, v2, want1, want2 string }{
		{"memory.limit_in_bytes", "memory.max", ram, ram},
		{"cpu.shares", "cpu.weight", "1024", "100"},
		{"cpu.cfs_quota_us", "cpu.max", "-1", "max 50000"},
		{"pids.max", "pids.max", "max", "max"},
	} {
		want := map[bool]string{false: tt.want1, true: tt.want2}[unified()]
		if got := hostLimit(t, c.PID, tt.v1, tt.v2); got != want && got != "" {
			t.Errorf("on the host, %s: got %q, want %q", tt.v1, got, want)
		}
	}
	c.End()
}

// TestUpdatePaused: a paused container has its new limits when it goes on.
func TestUpdatePaused(t *testing.T) {
	c := limited(t).Start()
	c.Runtime.Must("pause", c.ID)
	c.Runtime.Must("update", "--pids-limit", "30", "--memory", "40m", c.ID)
	if got := c.State().Status; got != "paused" {
		t.Errorf("state: %s", got)
	}
	c.Runtime.Must("resume", c.ID)
	if got := guestLimits(c, "pids.max", "memory.max"); got != "30|41943040" {
		t.Errorf("got %s", got)
	}
	c.End()
}

func TestUpdateRefused(t *testing.T) {
	c := limited(t).Start()
	r := c.Runtime
	const files = "memory.max cpu.max pids.max"
	before := guestLimits(c, files)
	for _, tt := range []struct {
		name, stdin, want string
		args              []string
	}{
		{"more memory than a VM may have", "", "MiB at most: ", []string{"--memory", "1000g", "--memory-swap", "1000g"}},
		{"swap below memory", "", "memory+swap limit should be >= memory limit", []string{"--memory-swap", "1m"}},
		{"a word", "", `invalid value for memory: invalid size: 'much'`, []string{"--memory", "much"}},
		{"a negative period", "", `invalid value for cpu-period: strconv.ParseUint: parsing "-5": invalid syntax`, []string{"--cpu-period", "-5"}},
		{"realtime", "", "--cpu-rt-runtime is not supported", []string{"--cpu-rt-runtime", "5"}},
		{"realtime in JSON", `{"cpu":{"realtimeRuntime":5}}`, "linux.resources.cpu.realtimeRuntime is not supported", []string{"-r", "-"}},
		{"cache", "", "--l3-cache-schema is not supported", []string{"--l3-cache-schema", "L3:0=1"}},
		{"no JSON", `{"memory":`, "resources:1:10: unexpected end of JSON input", []string{"-r", "-"}},
		{"no file", "", "no such file or directory", []string{"--resources", "/no/such"}},
		{"what the kernel refuses", "", "cpu", []string{"--cpu-quota", "5", "--pids-limit", "9"}},
		{"a bad name", `{"unified":{"a/b":"1"},"pids":{"limit":8}}`, "must be a file name (no slashes)", []string{"-r", "-"}},
		{"below what is in use", `{"memory":{"limit":4096,"swap":4096,"checkBeforeUpdate":true}}`, "rejecting memory", []string{"-r", "-"}},
		{"no id", "", "exactly 1", []string{}},
	} {
		args := append(append([]string{"update"}, tt.args...), c.ID)
		if tt.name == "no id" {
			args = args[:1]
		}
		got := r.RunWith(strings.NewReader(tt.stdin), args...)
		if got.Status != 1 || strings.Count(got.Stderr, "level=error") != 1 && tt.name != "no id" || !strings.Contains(strings.ReplaceAll(got.Stderr, `\"`, `"`), tt.want) {
			t.Errorf("%s: %+v, want %s", tt.name, got, tt.want)
		}
	}
	if got := guestLimits(c, files); got != before {
		t.Errorf("limits: got %s, want %s as before", got, before)
	}
	if got := hostLimit(t, c.PID, "pids.max", "pids.max"); got != fmt.Sprint(50+2048) && got != "" {
		t.Errorf("on the host, pids: got %s", got)
	}
	r.Must("kill", c.ID, "KILL")
	c.Wait()
	refused(t, r, "container not running", 1, "update", "--pids-limit", "3", c.ID)
	c.Delete()
	refused(t, r, "container does not exist", 1, "update", "--pids-limit", "3", c.ID)
}

// TestUpdateGrows: a limit beyond the VM's RAM brings more of it, also to a container
// that is paused; the host counts it, and a limit that goes down is felt.
func TestUpdateGrows(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Args("sleep", "1000"), func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(64 << 20))}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mem", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1g"}})
	})).Start()
	total := func() int {
		n, err := strconv.Atoi(c.Output("awk '/^MemTotal/ { print $2 }' /proc/meminfo"))
		if err != nil {
			t.Fatal(err)
		}
		return n >> 10
	}
	first := r.RunWith(nil, "update", "--memory", "200m", "--memory-swap", "200m", c.ID)
	if first.Status != 0 && !strings.HasSuffix(c.Output("uname -r"), "-runv") {
		if !strings.Contains(first.Stderr, "CONFIG_ARCH_MEMORY_PROBE") || guestLimits(c, "memory.max") != fmt.Sprint(64<<20) {
			t.Errorf("a kernel that cannot grow: %+v", first)
		}
		c.End()
		return
	}
	ram := func() string { return hostLimit(t, c.PID, "memory.limit_in_bytes", "memory.max") }
	before := ram()
	r.Must("pause", c.ID)
	r.Must("update", "--memory", "400m", "--memory-swap", "400m", c.ID)
	r.Must("resume", c.ID)
	if got := total(); first.Status != 0 || got < 400 || got > 600 {
		t.Errorf("%+v, and the guest has %d MiB", first, got)
	}
	if after := ram(); after == before && after != "" {
		t.Errorf("the host's limit is still %s", after)
	}
	const fill = "dd if=/dev/zero of=/mem/x bs=1M count=%d 2>/dev/null; wc -c </mem/x; rm /mem/x"
	if got := c.Output(fmt.Sprintf(fill, 300)); got != fmt.Sprint(300<<20) {
		t.Errorf("in use: %s", got)
	}
	r.Must("update", "--memory", "100m", "--memory-swap", "100m", c.ID)
	if got := c.Output(fmt.Sprintf(fill, 150)); got == fmt.Sprint(150<<20) { // dd is killed
		t.Errorf("in use with a limit of 100 MiB: %s", got)
	}
	c.End()
}

// TestUpdateGrowsFromNoLimit: our own VMM keeps from the guest what it was not given;
// under QEMU only a limit of the host's does, so that without one a VM does not grow.
func TestUpdateGrowsFromNoLimit(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Args("sleep", "1000"))).Start()
	got := r.RunWith(nil, "update", "--memory", "700m", "--memory-swap", "700m", c.ID)
	switch {
	case os.Getenv("RUNV_BACKEND") != "kvm":
		if got.Status != 1 || !strings.Contains(got.Stderr, "grows to 512 MiB at most: ") {
			t.Errorf("%+v", got)
		}
	case !strings.HasSuffix(c.Output("uname -r"), "-runv"):
		if got.Status != 1 || !strings.Contains(got.Stderr, "CONFIG_ARCH_MEMORY_PROBE") {
			t.Errorf("%+v", got)
		}
	default:
		if n := guestLimits(c, "memory.max"); got.Status != 0 || n != fmt.Sprint(700<<20) {
			t.Errorf("%+v, limit %s", got, n)
		}
		if n := c.Output("head -c 600m /dev/zero | tail | wc -c"); n != fmt.Sprint(600<<20) {
			t.Errorf("in use: %s", n)
		}
	}
	c.End()
}

// TestUpdateHolds: a limit that goes down is felt.
func TestUpdateHolds(t *testing.T) {
	c := limited(t).Start()
	const script = `i=0; while [ $i -lt 8 ]; do sleep 2 & i=$((i+1)); done; wait; echo made`
	if got := c.Output(script); got != "made" {
		t.Fatal(got)
	}
	c.Runtime.Must("update", "--pids-limit", "5", c.ID)
	if got := c.Exec(script); got.Status == 0 {
		t.Errorf("9 processes with a limit of 5: %+v", got)
	}
	c.End()
}
