package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/tests/harness"
)

// TestSameAsRunc runs one bundle under both and compares what it sees. Left out
// is what must differ: kernel (ours has no /proc/kcore), hardware, cgroup version,
// sizes and numbers, and how the host's file system keeps access times.
func TestSameAsRunc(t *testing.T) {
	// Go raises its own soft limit, and runc 1.1 takes that for its caller's.
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	equal := syscall.Rlimit{Cur: files.Max, Max: files.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &equal); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files) //nolint:errcheck // it was so before
	for _, tt := range []struct {
		name   string
		change harness.Change
		script string
	}{
		// GNU make starts us with signals 32 and 33 ignored, which runc hands on.
		{"process", nil, `id; umask; pwd; env | sort; cat /proc/self/comm
			grep -E '^(Uid|Gid|Groups|Cap.*|NoNewPrivs|Seccomp|Sig(Ign|Cgt|Blk)|NSpid|NSsid):' /proc/1/status | sed '/^SigIgn/s/0000000[0-9a-f]\([0-9a-f]\{8\}\)$/00000000\1/; /^SigIgn/s/8\([0-9a-f]\{7\}\)$/0\1/'
			ls /proc/self/fd | wc -l; cat /proc/1/oom_score_adj; cut -d' ' -f4-8 /proc/1/stat`},
		{"limits", nil, `cat /proc/self/limits`},
		{"user", func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 65534, GID: 65534, AdditionalGids: []uint32{3, 4}, Umask: ptr(uint32(0o77))}
			s.Process.Cwd, s.Process.NoNewPrivileges = "/tmp", false
		}, `id -u; id -G; umask; pwd; echo $HOME; touch /tmp/x; stat -c '%a %u %g' /tmp/x; rm /tmp/x; grep ^Cap /proc/self/status`},
		{"devices", nil, `cd /dev; for f in $(find . | grep -v -e core -e pts/ | sort); do stat -c '%n %F %a %u %g %t:%T' $f; readlink $f; done
			echo x >/dev/full; dd if=/dev/null of=/dev/null; test -t 0; echo $?`},
		// A mount's own options; the file system's are the kernel's affair.
		{"mounts", nil, `awk '{for (i = 7; $i != "-"; i++); t = $(i+1); s = $(i+2); if ($5 == "/") { t = s = ""; sub("noatime", "relatime", $6) }; print $5, $6, t, s}' /proc/self/mountinfo |
			grep -v -e /sys/fs/cgroup -e /sys/firmware -e /proc/acpi -e /proc/sysrq -e /proc/kcore -e ' / ' | sort`},
		{"masked and read-only", nil, `for f in /proc/keys /proc/timer_list; do head -c 10 $f | wc -c; done; ls -A /sys/firmware /proc/scsi 2>&1
			for f in /proc/sys/kernel/domainname /proc/irq/x /sys/x /proc/bus/x; do echo 1 2>&1 >$f; done`},
		{"modes of mounts", nil, `stat -c '%n %a %u %g' / /dev /dev/pts /dev/shm /dev/mqueue /proc /sys`},
		{"errors", nil, `mount -t tmpfs x /tmp; chroot / true; mknod /tmp/n c 1 3; hostname x; ip link set lo down; kill -0 2; chown 1:1 /tmp; echo $?`},
		{"existing mount point", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp/new/deep", Type: "tmpfs", Source: "t", Options: []string{"mode=711"}}, specs.Mount{Destination: "/home", Type: "tmpfs", Source: "t"})
		}, `stat -c '%n %a' /tmp/new /tmp/new/deep /home; touch /home/x && ls /home`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRuntime(t)
			b := r.NewBundle(harness.Shell("exec 2>&1\n"+tt.script), func(s *specs.Spec) {
				s.Process.Rlimits = nil // runc may not be allowed to raise them
				if tt.change != nil {
					tt.change(s)
				}
			})
			cmd := exec.Command("runc", "--root", filepath.Join(r.Dir, "runc"), "run", "--bundle", b.Dir, r.NewID())
			theirs, err := cmd.CombinedOutput()
			if err != nil && len(theirs) == 0 || strings.Contains(string(theirs), "runc run failed") {
				t.Skipf("runc does not run here: %v, %s", err, theirs)
			}
			ours := r.Run("run", "--bundle", b.Dir, r.NewID())
			if diff := cmp.Diff(strings.Split(string(theirs), "\n"), strings.Split(ours.Stdout, "\n")); diff != "" {
				t.Errorf("-runc +runv:\n%s%s", diff, ours.Stderr)
			}
		})
	}
}
