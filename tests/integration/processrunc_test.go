package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/tests/harness"
)

// TestProcessLikeRunc runs processes under both, one field at a time, and compares
// what they see, and whether they run at all. The limits are below those that a
// caller without CAP_SYS_RESOURCE has, so that runc can set them.
func TestProcessLikeRunc(t *testing.T) {
	const caps = `grep ^Cap /proc/self/status`
	sets := func(c specs.LinuxCapabilities) func(*specs.Process) {
		return func(p *specs.Process) { p.Capabilities = &c }
	}
	kill, clock, both := []string{"CAP_KILL"}, []string{"CAP_SYS_TIME"}, []string{"CAP_KILL", "CAP_SYS_TIME"}
	user := func(p *specs.Process) { p.User = specs.User{UID: 12, GID: 34} }
	limits := func(l ...specs.POSIXRlimit) func(*specs.Process) {
		return func(p *specs.Process) { p.Rlimits = l }
	}
	for _, tt := range []struct {
		name    string
		changes []func(*specs.Process)
		script  string
	}{
		{"no capabilities", []func(*specs.Process){func(p *specs.Process) { p.Capabilities = nil }}, caps},
		{"empty sets", []func(*specs.Process){sets(specs.LinuxCapabilities{})}, caps},
		{"bounding alone", []func(*specs.Process){sets(specs.LinuxCapabilities{Bounding: both})}, caps},
		{"inheritable", []func(*specs.Process){sets(specs.LinuxCapabilities{Bounding: both, Permitted: both, Effective: both, Inheritable: kill})}, caps},
		{"ambient", []func(*specs.Process){sets(specs.LinuxCapabilities{Bounding: both, Permitted: both, Effective: both, Inheritable: both, Ambient: both}), user}, caps},
		{"ambient that is not inheritable", []func(*specs.Process){sets(specs.LinuxCapabilities{Bounding: both, Permitted: both, Effective: both, Ambient: kill}), user}, caps},
		{"ambient in part", []func(*specs.Process){sets(specs.LinuxCapabilities{Bounding: both, Permitted: kill, Effective: kill, Inheritable: kill, Ambient: both}), user}, caps},
		{"user without ambient", []func(*specs.Process){sets(specs.LinuxCapabilities{Bounding: both, Permitted: both, Effective: both}), user}, caps},
		{"effective beyond permitted", []func(*specs.Process){sets(specs.LinuxCapabilities{Bounding: both, Permitted: kill, Effective: both})}, caps},
		{"inheritable beyond bounding", []func(*specs.Process){sets(specs.LinuxCapabilities{Bounding: kill, Permitted: kill, Inheritable: clock})}, caps},
		{"unknown capability", []func(*specs.Process){sets(specs.LinuxCapabilities{Bounding: []string{"CAP_KILL", "CAP_FOO", "kill"}})}, caps},
		{"supplementary groups", []func(*specs.Process){user, func(p *specs.Process) { p.User.AdditionalGids = []uint32{5, 34, 2147483647} }}, `grep -E '^(Uid|Gid|Groups)' /proc/self/status`},
		{"umask 0", []func(*specs.Process){func(p *specs.Process) { p.User.Umask = ptr(uint32(0)) }}, `umask; touch /tmp/u; stat -c %a /tmp/u; rm /tmp/u`},
		{"umask beyond", []func(*specs.Process){func(p *specs.Process) { p.User.Umask = ptr(uint32(0o7777)) }}, `umask`},
		{"limits", []func(*specs.Process){limits(
			specs.POSIXRlimit{Type: "RLIMIT_AS", Soft: 1 << 40, Hard: 1 << 41}, specs.POSIXRlimit{Type: "RLIMIT_CORE", Soft: 0, Hard: 0},
			specs.POSIXRlimit{Type: "RLIMIT_CPU", Soft: 100, Hard: 200}, specs.POSIXRlimit{Type: "RLIMIT_DATA", Soft: 1 << 40, Hard: 1 << 40},
			specs.POSIXRlimit{Type: "RLIMIT_FSIZE", Soft: 1 << 30, Hard: 1 << 31}, specs.POSIXRlimit{Type: "RLIMIT_LOCKS", Soft: 5, Hard: 6},
			specs.POSIXRlimit{Type: "RLIMIT_MEMLOCK", Soft: 4096, Hard: 8192}, specs.POSIXRlimit{Type: "RLIMIT_MSGQUEUE", Soft: 1000, Hard: 2000},
			specs.POSIXRlimit{Type: "RLIMIT_NICE", Soft: 0, Hard: 0}, specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: 50, Hard: 60},
			specs.POSIXRlimit{Type: "RLIMIT_NPROC", Soft: 700, Hard: 800}, specs.POSIXRlimit{Type: "RLIMIT_RSS", Soft: 1 << 40, Hard: 1 << 41},
			specs.POSIXRlimit{Type: "RLIMIT_RTPRIO", Soft: 0, Hard: 0}, specs.POSIXRlimit{Type: "RLIMIT_RTTIME", Soft: 1000, Hard: 2000},
			specs.POSIXRlimit{Type: "RLIMIT_SIGPENDING", Soft: 90, Hard: 91}, specs.POSIXRlimit{Type: "RLIMIT_STACK", Soft: 1 << 20, Hard: 1 << 21},
		)}, `cat /proc/self/limits`},
		{"unknown limit", []func(*specs.Process){limits(specs.POSIXRlimit{Type: "RLIMIT_FOO", Soft: 1, Hard: 1})}, `true`},
		{"soft above hard", []func(*specs.Process){limits(specs.POSIXRlimit{Type: "RLIMIT_CPU", Soft: 2, Hard: 1})}, `true`},
		{"oom score", []func(*specs.Process){func(p *specs.Process) { p.OOMScoreAdj = ptr(777) }}, `cat /proc/self/oom_score_adj`},
		{"oom score beyond", []func(*specs.Process){func(p *specs.Process) { p.OOMScoreAdj = ptr(1001) }}, `true`},
		{"SELinux label", []func(*specs.Process){func(p *specs.Process) { p.SelinuxLabel = "a:b:c:d" }}, `true`},
		{"AppArmor profile", []func(*specs.Process){func(p *specs.Process) { p.ApparmorProfile = "no-such-profile" }}, `true`},
		{"environment twice", []func(*specs.Process){func(p *specs.Process) { p.Env = []string{"PATH=/bin", "A=1", "B=2", "A=3", "HOME="} }}, `env`},
		{"environment without =", []func(*specs.Process){func(p *specs.Process) { p.Env = []string{"PATH=/bin", "A"} }}, `env`},
		{"relative cwd", []func(*specs.Process){func(p *specs.Process) { p.Cwd = "tmp" }}, `pwd`},
		{"cwd that is not there", []func(*specs.Process){func(p *specs.Process) { p.Cwd = "/made/by/it" }}, `pwd; ls -ld /made/by/it | cut -c1-10`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRuntime(t)
			b := r.NewBundle(harness.Shell("exec 2>&1\n"+tt.script), func(s *specs.Spec) {
				s.Process.Rlimits = nil
				for _, c := range tt.changes {
					c(s.Process)
				}
			})
			var stderr strings.Builder
			cmd := exec.Command("runc", "--root", filepath.Join(r.Dir, "runc"), "run", "--bundle", b.Dir, r.NewID())
			cmd.Stderr = &stderr
			theirs, err := cmd.Output()
			if cmd.ProcessState == nil {
				t.Skipf("no runc (try: apt-get install runc): %v", err)
			}
			ours := r.Run("run", "--bundle", b.Dir, r.NewID())
			if ours.Status != cmd.ProcessState.ExitCode() {
				t.Errorf("status: got %d, runc %d:\n%s\n%s", ours.Status, cmd.ProcessState.ExitCode(), ours.Stderr, stderr.String())
			}
			if diff := cmp.Diff(strings.Split(string(theirs), "\n"), strings.Split(ours.Stdout, "\n")); diff != "" {
				t.Errorf("-runc +runv:\n%s%s", diff, ours.Stderr)
			}
			if (ours.Stderr == "") != (stderr.String() == "") {
				t.Errorf("stderr: got %q, runc %q", ours.Stderr, stderr.String())
			}
		})
	}
}
