package integration

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

// procNames are the types of namespaces, with their names in /proc/<pid>/ns.
var procNames = map[specs.LinuxNamespaceType]string{
	specs.CgroupNamespace: "cgroup", specs.IPCNamespace: "ipc", specs.MountNamespace: "mnt", specs.NetworkNamespace: "net",
	specs.PIDNamespace: "pid", specs.TimeNamespace: "time", specs.UserNamespace: "user", specs.UTSNamespace: "uts",
}

// namespacesOf are those of a process, by type.
func namespacesOf(t *testing.T, pid int) map[specs.LinuxNamespaceType]string {
	t.Helper()
	all := map[specs.LinuxNamespaceType]string{}
	for typ, name := range procNames {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		all[typ] = link
	}
	return all
}

// holder is a process in new namespaces, to be joined.
func holder(t *testing.T, flags uintptr) int {
	t.Helper()
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // Wait tells
		cmd.Wait()         //nolint:errcheck // it was killed
	})
	harness.Within(t, harness.Limit, "it sleeps", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		return err == nil && strings.Contains(string(b), "(sleep) S ")
	})
	return cmd.Process.Pid
}

// mapped gives the spec a user namespace.
func mapped(s *specs.Spec) {
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1000}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = m, m
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
}

// withNamespaces replaces the namespaces, and what does not go without them.
func withNamespaces(list ...specs.LinuxNamespace) harness.Change {
	return func(s *specs.Spec) {
		s.Linux.Namespaces = list
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths, s.Hostname = nil, nil, ""
	}
}

// The pid that engines get is in the namespaces that the config asks for: new ones,
// the caller's, or those that were there; and it works like any container.
func TestNamespacesOnTheHost(t *testing.T) {
	there := holder(t, unix.CLONE_NEWCGROUP|unix.CLONE_NEWIPC|unix.CLONE_NEWNS|unix.CLONE_NEWNET|unix.CLONE_NEWPID|unix.CLONE_NEWUTS)
	var fresh, joined []specs.LinuxNamespace
	for typ, name := range procNames {
		if typ != specs.UserNamespace {
			fresh = append(fresh, specs.LinuxNamespace{Type: typ})
			if typ != specs.TimeNamespace {
				joined = append(joined, specs.LinuxNamespace{Type: typ, Path: fmt.Sprintf("/proc/%d/ns/%s", there, name)})
			}
		}
	}
	own := namespacesOf(t, os.Getpid())
	for _, tt := range []struct {
		name   string
		change []harness.Change
		want   func(typ specs.LinuxNamespaceType, link string) bool
	}{
		{"all new", []harness.Change{withNamespaces(fresh...), mapped}, func(typ specs.LinuxNamespaceType, link string) bool { return link != own[typ] }},
		{"all the caller's", []harness.Change{withNamespaces()}, func(typ specs.LinuxNamespaceType, link string) bool { return link == own[typ] }},
		{"all joined", []harness.Change{withNamespaces(joined...)}, func(typ specs.LinuxNamespaceType, link string) bool {
			if typ == specs.UserNamespace || typ == specs.TimeNamespace {
				return link == own[typ]
			}
			return link == namespacesOf(t, there)[typ]
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRuntime(t)
			r.Env = append(r.Env, "RUNV_HOST_NETWORK=none")
			b := r.NewBundle(append([]harness.Change{harness.Shell("trap 'exit 7' TERM; echo >/tmp/up; while :; do sleep 0.1; done")}, tt.change...)...)
			if err := os.Chmod(filepath.Join(b.Rootfs, "tmp"), 0o1777); err != nil {
				t.Fatal(err)
			}
			c := r.Create(b)
			for typ, link := range namespacesOf(t, c.PID) {
				if !tt.want(typ, link) {
					t.Errorf("%s namespace of the container: got %s", typ, link)
				}
			}
			if got := c.State().PID; got != c.PID {
				t.Errorf("state has pid %d, the pid file %d", got, c.PID)
			}
			// Nobody without capabilities gets at it, be it by ptrace(2) or by its root.
			weak := exec.Command("setpriv", "--bounding-set=-all", "--inh-caps=-all", "readlink", fmt.Sprintf("/proc/%d/root", c.PID))
			if out, err := weak.CombinedOutput(); err == nil && namespacesOf(t, c.PID)[specs.UserNamespace] == own[specs.UserNamespace] { // root owns another
				t.Errorf("a process without capabilities sees the root %s", out)
			}
			monitor := monitorOf(t, c)
			if got, want := cgroupsOf(t, c.PID), cgroupsOf(t, monitor); got != want {
				t.Errorf("the pid is in the cgroups %s, the VM in %s", got, want)
			}
			c.Start()
			harness.Within(t, harness.Limit, "the workload runs", func() bool { return c.Exec("test -e /tmp/up").Status == 0 })
			// Engines signal the pid itself, and reap it.
			if err := unix.Kill(c.PID, unix.SIGTERM); err != nil {
				t.Error(err)
			}
			if got := c.Wait(); got != 7 {
				t.Errorf("status %d, want 7 of the workload's own", got)
			}
			c.Delete()
			harness.Reap(t, monitor)
		})
	}
}

// monitorOf finds the monitor of a container whose pid is that of a stand-in. An
// engine's subreaper reaps it, too, and nobody asks for its status.
func monitorOf(t *testing.T, c *harness.Container) int {
	t.Helper()
	for _, p := range harness.Descendants(os.Getpid()) {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID)); err == nil && string(b) == "runv\x00monitor\x00"+c.ID+"\x00" && p.PID != c.PID {
			return p.PID
		}
	}
	t.Fatalf("container %d has no monitor beside it", c.PID)
	return 0
}

// cgroupsOf is what engines read to find a container's statistics.
func cgroupsOf(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A container ends as a whole, whichever of its two processes on the host is killed.
func TestStandInKilled(t *testing.T) {
	for _, tt := range []string{"stand-in", "monitor"} {
		t.Run(tt, func(t *testing.T) {
			r := newRuntime(t)
			c := r.Create(r.NewBundle(harness.Args("sleep", "1000"), mapped)).Start()
			monitor := monitorOf(t, c)
			victim := c.PID
			if tt == "monitor" {
				victim = monitor
			}
			if err := unix.Kill(victim, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if got := c.Wait(); got != 137 {
				t.Errorf("status %d, want 137", got)
			}
			if got := harness.Reap(t, monitor); got != 137 {
				t.Errorf("status of the monitor: %d, want 137", got)
			}
			if got := c.State().Status; got != "stopped" {
				t.Errorf("state %q, want stopped", got)
			}
			c.Delete()
		})
	}
}

// What the container itself sees: of the kinds that it has of its own, its own; of
// the others the guest's first ones, as under runc the host's.
func TestNamespacesInTheGuest(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	there := holder(t, unix.CLONE_NEWIPC|unix.CLONE_NEWPID|unix.CLONE_NEWUTS)
	if out, err := exec.Command("nsenter", "-u", "-t", strconv.Itoa(there), "hostname", "of-theirs").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	basic := []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace}}
	with := func(more ...specs.LinuxNamespace) harness.Change { return withNamespaces(append(more, basic...)...) }
	path := func(name string) string { return fmt.Sprintf("/proc/%d/ns/%s", there, name) }
	const script = `hostname; cat /proc/1/comm; test $$ = 1 && echo first; tr -s ' ' </proc/self/uid_map`
	const whole = " 0 0 4294967295"
	for _, tt := range []struct {
		name    string
		change  harness.Change
		want    []string
		warning string
	}{
		{"of the guest", with(), []string{host, "init", whole}, "no pid namespace: the container has that of its guest"},
		{"new", with(specs.LinuxNamespace{Type: specs.PIDNamespace}, specs.LinuxNamespace{Type: specs.UTSNamespace}, specs.LinuxNamespace{Type: specs.IPCNamespace}),
			[]string{host, "sh", "first", whole}, ""},
		{"joined", with(specs.LinuxNamespace{Type: specs.PIDNamespace, Path: path("pid")}, specs.LinuxNamespace{Type: specs.UTSNamespace, Path: path("uts")},
			specs.LinuxNamespace{Type: specs.IPCNamespace, Path: path("ipc")}), []string{"of-theirs", "sh", "first", whole}, "it does not see the processes there"},
		{"mapped", mapped, []string{"runc", "sh", "first", " 0 1000 1000"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRuntime(t)
			b := r.NewBundle(harness.Shell(script), tt.change)
			res := r.Run("run", "--bundle", b.Dir, r.NewID())
			want := tt.want
			if tt.name == "mapped" {
				want[0] = b.Spec.Hostname
			}
			if diff := cmp.Diff(want, strings.Split(strings.TrimSuffix(res.Stdout, "\n"), "\n")); diff != "" || res.Status != 0 {
				t.Errorf("status %d, %s (-want +got):\n%s", res.Status, res.Stderr, diff)
			}
			if !strings.Contains(res.Stderr, tt.warning) || tt.warning == "" && res.Stderr != "" {
				t.Errorf("warnings %q, want %q", res.Stderr, tt.warning)
			}
		})
	}
}

// TestNamespacesLikeRunc compares what is seen where a namespace is mapped, and where
// there is none but the host's, or the guest's. Left out are device nodes: runc binds
// the host's, whose owner is whoever its caller, or runc itself, has made it.
func TestNamespacesLikeRunc(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change harness.Change
		script string
	}{
		{"mapped", mapped, `id; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; for f in / /proc /dev/pts /dev/shm /sys; do stat -c "%n %u %g %a" $f; done
			touch /tmp/x; stat -c %u /tmp/x; grep Cap /proc/self/status; cat /proc/self/oom_score_adj; hostname foo; mknod /tmp/n c 1 3; mount -t tmpfs x /tmp; cat /proc/sys/kernel/msgmax`},
		{"none", withNamespaces(specs.LinuxNamespace{Type: specs.MountNamespace}, specs.LinuxNamespace{Type: specs.NetworkNamespace}),
			`hostname; hostname foo; cat /proc/sys/kernel/msgmax; id; cat /proc/self/uid_map; test $$ = 1 || echo not the first; test -r /proc/1/comm && echo but there is one`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRuntime(t)
			b := r.NewBundle(harness.Shell("exec 2>&1\n"+tt.script), tt.change, func(s *specs.Spec) { s.Process.Rlimits = nil })
			err := filepath.WalkDir(b.Rootfs, func(path string, _ fs.DirEntry, err error) error {
				if err == nil {
					err = os.Lchown(path, 1000, 1000)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, dir := range []string{b.Dir, r.Dir, filepath.Dir(r.Dir)} {
				if err := os.Chmod(dir, 0o755); err != nil { // its user walks through
					t.Fatal(err)
				}
			}
			theirs := r.Finish(exec.Command("runc", "--root", filepath.Join(r.Dir, "runc"), "run", "--bundle", b.Dir, r.NewID()))
			if theirs.Status != 0 && theirs.Stdout == "" {
				t.Skipf("runc does not run here: %s", theirs.Stderr)
			}
			if err := os.Remove(filepath.Join(b.Rootfs, "tmp/x")); err != nil && tt.name == "mapped" {
				t.Fatal(err)
			}
			ours := r.Run("run", "--bundle", b.Dir, r.NewID())
			if diff := cmp.Diff(strings.Split(theirs.Stdout, "\n"), strings.Split(ours.Stdout, "\n")); diff != "" || ours.Status != theirs.Status {
				t.Errorf("status %d and %d, -runc +runv:\n%s%s", theirs.Status, ours.Status, diff, ours.Stderr)
			}
		})
	}
}

// The UTS namespace on the host has the container's name, for who enters it.
func TestHostnameOnTheHost(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Args("true"), func(s *specs.Spec) { s.Hostname, s.Domainname = "its-name", "its.domain" }))
	out, err := exec.Command("nsenter", "-u", "-t", strconv.Itoa(c.PID), "sh", "-c", "hostname; cat /proc/sys/kernel/domainname").CombinedOutput()
	if got, want := string(out), "its-name\nits.domain\n"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	r.Must("delete", "--force", c.ID)
	c.Wait()
}

// linux.timeOffsets are seen by the workload and by execs, and by them only.
func TestTimeOffsets(t *testing.T) {
	r := newRuntime(t)
	const script = "cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets | tr -s ' '"
	b := r.NewBundle(harness.Shell(script+"; date +%s"), func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 86400, Nanosecs: 5}, "monotonic": {Secs: 172800}}
	})
	check := func(what, out string) {
		t.Helper()
		l := strings.Split(out, "\n")
		if len(l) < 3 {
			t.Fatalf("%s: got %q", what, out)
		}
		if up, err := strconv.Atoi(l[0]); err != nil || up < 86400 || up > 86400+3600 {
			t.Errorf("%s: uptime %q s, want a day more than the guest's", what, l[0])
		}
		if diff := cmp.Diff([]string{"monotonic 172800 0", "boottime 86400 5"}, l[1:3]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	res := r.Run("run", "--bundle", b.Dir, r.NewID())
	check("run", res.Stdout)
	b.Change(t, harness.Args("sleep", "1000"))
	c := r.Create(b)
	check("exec before the start", c.Output(script))
	c.Start()
	check("exec", c.Output(script))
	if got, want := namespacesOf(t, c.PID)[specs.TimeNamespace], namespacesOf(t, os.Getpid())[specs.TimeNamespace]; got == want {
		t.Errorf("time namespace on the host: got the caller's")
	}
	monitor := monitorOf(t, c)
	c.End()
	harness.Reap(t, monitor)
}

// Two containers cannot share what is in two virtual machines.
func TestForeignNamespaces(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Args("sleep", "1000"), mapped, func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}))
	monitor := monitorOf(t, c)
	for typ, name := range procNames {
		b := r.NewBundle(harness.Args("true"), func(s *specs.Spec) {
			list := s.Linux.Namespaces[:0:0]
			for _, n := range s.Linux.Namespaces {
				if n.Type != typ {
					list = append(list, n)
				}
			}
			s.Linux.Namespaces = append(list, specs.LinuxNamespace{Type: typ, Path: fmt.Sprintf("/proc/%d/ns/%s", c.PID, name)})
			s.Linux.Resources = nil
		})
		want := "is that of another container, " + c.ID
		if typ == specs.UserNamespace || typ == specs.TimeNamespace {
			want = "is not supported: the guest's"
		}
		if res := r.Run("run", "--bundle", b.Dir, r.NewID()); res.Status != 1 || !strings.Contains(res.Stderr, want) {
			t.Errorf("%s: status %d, %q, want %q", typ, res.Status, res.Stderr, want)
		}
	}
	b := r.NewBundle(harness.Args("true"), withNamespaces(specs.LinuxNamespace{Type: specs.MountNamespace}))
	if res := r.Run("run", "--bundle", b.Dir, r.NewID()); res.Status != 1 || !strings.Contains(res.Stderr, "the host's network namespace is not supported") {
		t.Errorf("host's network: status %d, %q", res.Status, res.Stderr)
	}
	r.Must("delete", "--force", c.ID)
	c.Wait()
	harness.Reap(t, monitor)
}
