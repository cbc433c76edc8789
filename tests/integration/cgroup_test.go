package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

// cgroups are where a process is in the host's hierarchies, by controller; that of
// cgroup v2 is "". The paths are absolute.
func cgroups(t *testing.T, pid int) map[string]string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		for _, name := range strings.Split(parts[1], ",") {
			out[name] = filepath.Join("/sys/fs/cgroup", strings.TrimPrefix(name, "name="), parts[2])
			if name == "" && !unified() {
				out[name] = filepath.Join("/sys/fs/cgroup/unified", parts[2])
			}
		}
	}
	return out
}

// unified says whether the host has cgroup v2 only.
func unified() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// hostLimit reads a limit of a container on the host: by the file of cgroup v1, or
// that of v2. Empty if the host has no such controller.
func hostLimit(t *testing.T, pid int, v1, v2 string) string {
	t.Helper()
	name := v1
	if unified() {
		name = v2
	}
	controller, _, _ := strings.Cut(v1, ".")
	dir := cgroups(t, pid)[map[bool]string{true: "", false: controller}[unified()]]
	if dir == "" {
		return ""
	}
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(data))
}

// removeParents removes, at the end of a test, what runv leaves as runc does.
func removeParents(t *testing.T, pid int, levels int) {
	var dirs []string
	for _, dir := range cgroups(t, pid) {
		for range levels {
			dir = filepath.Dir(dir)
			dirs = append(dirs, dir)
		}
	}
	t.Cleanup(func() {
		for _, dir := range dirs {
			if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
				t.Errorf("the parent of a container's cgroup: %v", err)
			}
		}
	})
}

func TestHostCgroup(t *testing.T) {
	r := newRuntime(t)
	name := filepath.Base(r.Dir)
	own := cgroups(t, os.Getpid())
	for _, tt := range []struct{ name, path, want string }{
		{"absolute", "/" + name + "/a/b", "/" + name + "/a/b"},
		{"relative", name + "/r", name + "/r"},
		{"out of the tree", "../../" + name + "/o", name + "/o"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.In(t)
			c := r.Create(r.NewBundle(harness.Args("sleep", "1000"), func(s *specs.Spec) { s.Linux.CgroupsPath = tt.path }))
			removeParents(t, c.PID, strings.Count(strings.Trim(tt.want, "/"), "/"))
			places := cgroups(t, c.PID)
			for controller, dir := range places {
				if !strings.HasSuffix(dir, "/"+strings.Trim(tt.want, "/")) {
					t.Errorf("%s: the container is in %s, not in %s", controller, dir, tt.want)
				}
				if tt.name == "relative" && !unified() && !strings.HasPrefix(dir, own[controller]) {
					t.Errorf("%s: %s is not below the caller's %s", controller, dir, own[controller])
				}
			}
			for _, p := range harness.Descendants(c.PID) {
				for controller, dir := range cgroups(t, p.PID) {
					if dir != places[controller] {
						t.Errorf("%s: %s is in %s", controller, p, dir)
					}
				}
			}
			c.Start()
			c.End()
			for _, dir := range places {
				if _, err := os.Stat(dir); !os.IsNotExist(err) {
					t.Errorf("%s is there after delete: %v", dir, err)
				}
			}
		})
	}
}

// TestHostCgroupOfOthers: delete leaves what it has not made, and a cgroup in which
// others are is refused.
func TestHostCgroupOfOthers(t *testing.T) {
	r := newRuntime(t)
	name := filepath.Base(r.Dir)
	dir := filepath.Join("/sys/fs/cgroup", name)
	if !unified() {
		dir = filepath.Join("/sys/fs/cgroup/devices", name)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir) //nolint:errcheck // the test's end looks for it
	b := r.NewBundle(harness.Args("sleep", "1000"), func(s *specs.Spec) { s.Linux.CgroupsPath = "/" + name })
	r.Create(b).Start().End()
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("delete has removed a cgroup that was there before: %v", err)
	}
	other := exec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()         //nolint:errcheck // killed
	defer other.Process.Kill() //nolint:errcheck // it runs
	if err := os.WriteFile(dir+"/cgroup.procs", fmt.Append(nil, other.Process.Pid), 0); err != nil {
		t.Fatal(err)
	}
	hooked := filepath.Join(b.Dir, "hooked")
	b.Change(t, func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/touch", Args: []string{"touch", hooked}}}}
	})
	refused(t, r, "container's cgroup is not empty: 1 process(es) found", 1, "create", "--bundle", b.Dir, r.NewID())
	if _, err := os.Stat(hooked); err == nil {
		t.Error("a poststop hook was run for a container of which nothing had been made")
	}
	other.Process.Kill() //nolint:errcheck // it runs
	other.Wait()         //nolint:errcheck // killed
}

// TestHostLimits: the host's cgroup has the limits of the config, with the VM's own
// needs on top where it would die without.
func TestHostLimits(t *testing.T) {
	r := newRuntime(t)
	cpus, count := "0", "1"
	if runtime.NumCPU() > 1 {
		cpus, count = "0-1", "2"
	}
	c := r.Create(r.NewBundle(harness.Args("sleep", "1000"), func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Reservation: ptr(int64(32 << 20))}
		s.Linux.Resources.CPU = &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(80000)), Period: ptr(uint64(50000)), Cpus: cpus, Mems: "0"}
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: ptr(int64(20))}
	})).Start()
	const ram = 64 + 64 + 1 // MiB: limit, the guest's own, its page structures
	for _, tt := range []struct{ v1, v2, want1, want2 string }{
		{"memory.limit_in_bytes", "memory.max", fmt.Sprint((ram + 256) << 20), ""},
		{"memory.soft_limit_in_bytes", "memory.low", fmt.Sprint(32 << 20), ""},
		{"cpu.shares", "cpu.weight", "512", "59"},
		{"cpu.cfs_quota_us", "cpu.max", "80000", "80000 50000"},
		{"cpu.cfs_period_us", "cpu.max", "50000", "80000 50000"},
		{"cpuset.cpus", "cpuset.cpus", cpus, ""},
		{"cpuset.mems", "cpuset.mems", "0", ""},
		{"pids.max", "pids.max", fmt.Sprint(20 + 2048), ""},
	} {
		want := tt.want1
		if unified() && tt.want2 != "" {
			want = tt.want2
		}
		if got := hostLimit(t, c.PID, tt.v1, tt.v2); got != want && got != "" {
			t.Errorf("%s: got %q, want %q", tt.v1, got, want)
		}
	}
	if got := c.Output("nproc; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max"); got != count+"\n67108864\n20\n80000 50000" {
		t.Errorf("in the guest: %q", got)
	}
	c.End()
}

// TestSmallLimits: what would be too little for a VM is enough for its workload.
func TestSmallLimits(t *testing.T) {
	r := newRuntime(t)
	got := r.Run("run", "--bundle", r.NewBundle(harness.Shell("cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max"), func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(6 << 20)), Swap: ptr(int64(6 << 20))}
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: ptr(int64(2))}
	}).Dir, r.NewID())
	if got.Status != 0 || got.Stdout != "6291456\n2\n" {
		t.Errorf("%+v", got)
	}
}

// TestGuestLimits are limits that other tests have not, in the files of the guest.
func TestGuestLimits(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Args("sleep", "1000"), func(s *specs.Spec) {
		s.Linux.Resources.CPU = &specs.LinuxCPU{Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Burst: ptr(uint64(20000)), Idle: ptr(int64(1))}
		s.Linux.Resources.HugepageLimits = []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}, {Pagesize: "1GB"}, {Pagesize: "64KB"}}
		if unified() {
			s.Linux.Resources.Unified = map[string]string{"memory.high": "33554432", "pids.max": "17"}
		} else {
			s.Linux.Resources.Unified = map[string]string{"memory.high": "33554432", "pids.max": "17", "memory.oom.group": "1"}
		}
	})).Start()
	if got := c.Output("cd /sys/fs/cgroup; cat cpu.max cpu.max.burst cpu.idle hugetlb.2MB.max memory.high pids.max"); got != "50000 100000\n20000\n1\n4194304\n33554432\n17" {
		t.Errorf("in the guest: %q", got)
	}
	c.End()
	for _, tt := range []struct{ file, want string }{
		{"a/b", "must be a file name (no slashes)"},
		{"nothing", "must be in the form CONTROLLER.PARAMETER"},
		{"foo.max", "not available"},
	} {
		b := r.NewBundle(func(s *specs.Spec) { s.Linux.Resources.Unified = map[string]string{tt.file: "1"} })
		refused(t, r, tt.want, 1, "create", "--bundle", b.Dir, r.NewID())
	}
}

// TestBadHostLimits: what the host's cgroup refuses leaves nothing.
func TestBadHostLimits(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("sleep", "1000"), func(s *specs.Spec) { s.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "4000"} })
	refused(t, r, "cpuset.cpus", 1, "create", "--bundle", b.Dir, r.NewID())
	reapOrphans(t)
	b = r.NewBundle()
	r.Flags = []string{"--systemd-cgroup"}
	if _, err := os.Lstat("/run/systemd/system"); err != nil {
		refused(t, r, "systemd", 1, "create", "--bundle", b.Dir, r.NewID())
	}
}

// TestCreatorKilled: if the creator dies, the monitor leaves no cgroup and no state.
func TestCreatorKilled(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("sleep", "1000"))
	whole := r.Run("run", "--bundle", r.NewBundle(harness.Args("true")).Dir, r.NewID()).Took
	const steps = 8
	for i := range steps {
		id := r.NewID()
		cmd := r.Command("create", "--bundle", b.Dir, "--pid-file", "pid-"+id, id)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(whole * time.Duration(i) / steps) // the moment is what the test varies
		monitors := slices.DeleteFunc(harness.Descendants(cmd.Process.Pid), func(p harness.Proc) bool { return p.PPID != cmd.Process.Pid })
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		if status := r.Wait(cmd); status == 0 {
			p := harness.ReadPid(t, r.Dir+"/pid-"+id) // it was faster
			r.Must("delete", "--force", id)
			harness.Reap(t, p)
			continue
		}
		// An engine deletes then, while the monitor may be at work on its end.
		r.Must("delete", "--force", id)
		for _, p := range monitors {
			harness.Reap(t, p.PID)
		}
	}
}

// TestExecCgroup: exec puts a process into a cgroup that the container has made.
func TestExecCgroup(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Args("sleep", "1000"), func(s *specs.Spec) {
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/sys/fs/cgroup" })
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev"}})
		if !slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace }) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		}
	})).Start()
	c.Output("mkdir -p /sys/fs/cgroup/a/b")
	for path, want := range map[string]string{"a": "0::/a\n", "/a/b": "0::/a/b\n", "/": "0::/\n"} {
		if got := r.Run("exec", "--cgroup", path, c.ID, "cat", "/proc/self/cgroup"); got.Stdout != want || got.Status != 0 {
			t.Errorf("--cgroup %s: %+v", path, got)
		}
	}
	refused(t, r, "no such file or directory", 255, "exec", "--cgroup", "none", c.ID, "true")
	refused(t, r, "bad sub cgroup path: ../x", 255, "exec", "--cgroup", "../x", c.ID, "true")
	refused(t, r, "one path", 255, "exec", "--cgroup", "a", "--cgroup", "b", c.ID, "true")
	c.End()
}

// disk is the block device on which a directory is, if it is on one.
func disk(t *testing.T, dir string) (major, minor int64) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	major, minor = int64(unix.Major(st.Dev)), int64(unix.Minor(st.Dev))
	if _, err := os.Stat(fmt.Sprintf("/sys/dev/block/%d:%d/queue", major, minor)); err != nil {
		t.Skipf("%s is on %d:%d, no disk (try: TMPDIR on one)", dir, major, minor)
	}
	return major, minor
}

// TestDiskLimits: the guest's reading of files is the monitor's, which the host's
// cgroup slows down.
func TestDiskLimits(t *testing.T) {
	r := newRuntime(t)
	major, minor := disk(t, r.Dir)
	if _, err := os.Stat("/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device"); err != nil && !unified() {
		t.Skip("no blkio controller (try: a host with cgroup v2)")
	}
	const size, rate = 4 << 20, 2 << 20 // bytes, bytes/s
	b := r.NewBundle(harness.Shell("cat /data | wc -c"), func(s *specs.Spec) {
		d := specs.LinuxThrottleDevice{Rate: rate}
		d.Major, d.Minor = major, minor
		s.Linux.Resources.BlockIO = &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{d}}
	})
	path := filepath.Join(b.Rootfs, "data")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	c := r.Create(b)
	file := map[bool]string{true: "io.max", false: "blkio.throttle.read_bps_device"}[unified()]
	if got := hostFile(t, cgroups(t, c.PID)[map[bool]string{true: "", false: "blkio"}[unified()]], file); !strings.Contains(got, fmt.Sprint(rate)) {
		t.Errorf("%s: %q", file, got)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	c.Start()
	if got := c.Wait(); got != 0 {
		t.Errorf("status: %d", got)
	}
	if took := time.Since(begin); took < size*time.Second/rate/2 {
		t.Errorf("%d bytes at %d a second took %v", size, rate, took)
	}
	c.Delete()
}

// TestHostLimitsAsRunc: the host's files say what they say under runc, but for what
// TestHostLimits has.
func TestHostLimitsAsRunc(t *testing.T) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("no runc (try: apt-get install runc)")
	}
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("sleep", "1000"), func(s *specs.Spec) {
		s.Linux.CgroupsPath = "/" + filepath.Base(r.Dir)
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(-1)), Reservation: ptr(int64(32 << 20)), Swappiness: ptr(uint64(7))}
		// Of the most shares alone every version of runc makes the same weight of v2.
		s.Linux.Resources.CPU = &specs.LinuxCPU{Shares: ptr(uint64(262144)), Quota: ptr(int64(30000)), Period: ptr(uint64(60000)), Cpus: "0", Mems: "0"}
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: ptr(int64(-1))}
	})
	read := func(pid int) map[string]string {
		out := map[string]string{}
		for _, f := range []struct{ v1, v2 string }{
			{"cpu.shares", "cpu.weight"}, {"cpu.cfs_quota_us", "cpu.max"}, {"cpu.cfs_period_us", "cpu.max"}, {"cpu.idle", "cpu.idle"},
			{"cpuset.cpus", "cpuset.cpus"}, {"cpuset.mems", "cpuset.mems"}, {"memory.soft_limit_in_bytes", "memory.low"},
			{"memory.memsw.limit_in_bytes", "memory.swap.max"}, {"memory.swappiness", "memory.high"}, {"pids.max", "pids.max"},
		} {
			out[f.v1] = hostLimit(t, pid, f.v1, f.v2)
		}
		return out
	}
	c := r.Create(b)
	ours, place := read(c.PID), cgroups(t, c.PID)
	r.Must("delete", "--force", c.ID)
	c.Wait()

	cmd := exec.Command(runc, "--root", r.Dir+"/runc", "create", "--bundle", b.Dir, "--pid-file", r.Dir+"/runc.pid", c.ID)
	stderr := r.ErrorFile(cmd)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, stderr())
	}
	pid := harness.ReadPid(t, r.Dir+"/runc.pid")
	theirs, theirPlace := read(pid), cgroups(t, pid)
	if out, err := exec.Command(runc, "--root", r.Dir+"/runc", "delete", "--force", c.ID).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	harness.Reap(t, pid)
	if diff := cmp.Diff(theirs, ours); diff != "" {
		t.Errorf("limits (-runc +runv):\n%s", diff)
	}
	if diff := cmp.Diff(theirPlace, place); diff != "" {
		t.Errorf("places (-runc +runv):\n%s", diff)
	}
}

// TestFreeMemory: memory that the guest frees goes back to the host.
func TestFreeMemory(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Args("sleep", "1000"), func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(256 << 20))}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mem", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=200m"}})
	})).Start()
	used := func() int64 {
		n, err := strconv.ParseInt(hostLimit(t, c.PID, "memory.usage_in_bytes", "memory.current"), 10, 64)
		if err != nil {
			t.Skip("the host does not count memory (try: the controller memory)")
		}
		return n
	}
	const size = 160 << 20
	before := used()
	c.Output("dd if=/dev/zero of=/mem/x bs=1M count=160 2>/dev/null")
	full := used()
	if full < before+size/2 {
		t.Errorf("the host counts %d MiB before and %d MiB with %d MiB in use", before>>20, full>>20, size>>20)
	}
	c.Output("rm /mem/x")
	// The guest reports what has been free for some seconds.
	harness.Within(t, harness.Limit, "the host has its memory back", func() bool { return used() < full-size/2 })
	if got := c.Output("dd if=/dev/zero of=/mem/x bs=1M count=100 2>/dev/null; wc -c </mem/x"); got != fmt.Sprint(100<<20) {
		t.Errorf("in use again: %s", got)
	}
	c.End()
}
