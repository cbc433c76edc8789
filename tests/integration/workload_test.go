package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

// Capabilities as the bits of /proc/<pid>/status.
const (
	capsBounding = "00000000080000a3" // CHOWN DAC_OVERRIDE KILL SETUID MKNOD
	capsAmbient  = "0000000000000020" // KILL
)

// richConfig sets everything that one container can show at a time.
func richConfig(dir string) harness.Change {
	return func(s *specs.Spec) {
		p := s.Process
		p.Args = []string{"sleep", "1000"}
		p.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5, 999}, Umask: ptr(uint32(0o027))}
		p.Cwd = "/home"
		p.Env = []string{"PATH=/bin", "A=1 2", "EMPTY="}
		p.Capabilities = &specs.LinuxCapabilities{
			Bounding:    []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETUID", "CAP_MKNOD"},
			Permitted:   []string{"CAP_CHOWN", "CAP_KILL"},
			Effective:   []string{"CAP_CHOWN", "CAP_KILL"},
			Inheritable: []string{"CAP_KILL"},
			Ambient:     []string{"CAP_KILL"},
		}
		p.Rlimits = []specs.POSIXRlimit{
			{Type: "RLIMIT_NOFILE", Soft: 2000, Hard: 3000},
			{Type: "RLIMIT_CORE", Soft: 1, Hard: 2},
			{Type: "RLIMIT_NPROC", Soft: 1 << 20, Hard: 1 << 21},
		}
		p.OOMScoreAdj = ptr(321)
		p.NoNewPrivileges = true
		s.Hostname, s.Domainname = "rich", "rich.example"
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/m/tmp", Type: "tmpfs", Source: "scratch", Options: []string{"nosuid", "noexec", "size=1m", "mode=1770", "uid=7", "gid=8"}},
			specs.Mount{Destination: "/etc/up", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}},
			bind(dir+"/rw", "/m/rw", "rbind", "rw"),
			bind(dir+"/ro", "/m/ro", "bind", "ro", "nodev"),
			bind(dir+"/file-rw", "/m/file-rw", "bind"),
			bind(dir+"/file-ro", "/m/file-ro", "rbind", "ro"),
			bind(dir+"/rw", "/m/slave", "rbind", "rslave"),
			bind(dir+"/rw", "/m/shared", "rbind", "rshared"),
		)
		l := s.Linux
		l.Sysctl = map[string]string{"kernel.shmmax": "12345678", "net.ipv4.ip_forward": "1"}
		l.MaskedPaths = append(l.MaskedPaths, "/etc/masked", "/etc/masked.d", "/no/such")
		l.ReadonlyPaths = append(l.ReadonlyPaths, "/etc/readonly.d")
		l.Devices = []specs.LinuxDevice{{Path: "/dev/sub/null2", Type: "c", Major: 1, Minor: 3, FileMode: ptr(os.FileMode(0o640)), UID: ptr(uint32(11)), GID: ptr(uint32(12))}}
		l.Resources = &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: ptr(int64(128 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(77))},
			CPU: &specs.LinuxCPU{Quota: ptr(int64(50_000)), Period: ptr(uint64(100_000))},
		}
		// On a host with cgroup v2 only, "spec" has one already.
		if own := (specs.LinuxNamespace{Type: specs.CgroupNamespace}); !slices.Contains(l.Namespaces, own) {
			l.Namespaces = append(l.Namespaces, own)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func bind(from, to string, options ...string) specs.Mount {
	return specs.Mount{Destination: to, Type: "bind", Source: from, Options: options}
}

// richBundle has what richConfig refers to.
func richBundle(t *testing.T, r *harness.Runtime) *harness.Bundle {
	t.Helper()
	b := r.NewBundle(richConfig(r.Dir))
	for _, d := range []string{r.Dir + "/rw", r.Dir + "/ro", b.Rootfs + "/etc/masked.d", b.Rootfs + "/etc/readonly.d", b.Rootfs + "/etc/up"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string]string{
		r.Dir + "/ro/f": "ro", r.Dir + "/rw/f": "rw", r.Dir + "/file-rw": "file", r.Dir + "/file-ro": "file",
		b.Rootfs + "/etc/masked": "secret", b.Rootfs + "/etc/masked.d/f": "secret", b.Rootfs + "/etc/up/f": "copied",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mknod(b.Rootfs+"/tmp/kmsg", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 11))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(b.Rootfs+"/tmp/kmsg", 0o666); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestWorkloadSeesItsConfig looks at one container from inside.
func TestWorkloadSeesItsConfig(t *testing.T) {
	r := newRuntime(t)
	b := richBundle(t, r)
	c := r.Create(b).Start()
	defer c.End()

	var host unix.Utsname
	if err := unix.Uname(&host); err != nil {
		t.Fatal(err)
	}
	if got := c.Output("uname -r"); got == unix.ByteSliceToString(host.Release[:]) {
		t.Errorf("the kernel is the host's, %s", got)
	}
	for _, tt := range []struct {
		name   string
		user   string // of the exec; empty: the config's
		script string
		want   string
	}{
		{"pid 1", "", "tr '\\0' ' ' </proc/1/cmdline", "sleep 1000 "},
		{"pid 1 in ps", "", "ps | sed -n 2p | awk '{print $1,$3,$4}'", "1 sleep 1000"},
		{"id", "", "id -u; id -g; id -G", "1000\n1001\n1001 5 999"},
		{"groups of pid 1", "", field("Groups"), "5 999"},
		{"umask", "", field("Umask"), "0027"},
		{"no new privileges", "", field("NoNewPrivs"), "1"},
		{"seccomp", "", field("Seccomp"), "0"},
		{"bounding", "", field("CapBnd"), capsBounding},
		{"inheritable", "", field("CapInh"), capsAmbient},
		// What execve(2) leaves a user of the other sets is the ambient one.
		{"ambient", "", field("CapAmb"), capsAmbient},
		{"permitted", "", field("CapPrm"), capsAmbient},
		{"effective", "", field("CapEff"), capsAmbient},
		{"cwd", "", "pwd; readlink /proc/1/cwd", "/home\n/home"},
		{"env", "", "tr '\\0' '\\n' </proc/1/environ", "PATH=/bin\nA=1 2\nEMPTY=\nHOME=/"},
		{"open files", "", limit("open files"), "2000 3000"},
		{"core", "", limit("core file size"), "1 2"},
		{"processes", "", limit("processes"), "1048576 2097152"},
		{"descriptors", "", "cd /proc/1/fd && echo *", "0 1 2"},
		{"oom score", "", "cat /proc/1/oom_score_adj", "321"},
		{"hostname", "", "hostname; cat /proc/sys/kernel/domainname", "rich\nrich.example"},
		{"sysctl", "", "cat /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ip_forward", "12345678\n1"},
		{"sysctls are read-only", "0:0", "echo 1 2>&1 >/proc/sys/kernel/shmmax", "sh: can't create /proc/sys/kernel/shmmax: Read-only file system"},
		{"masked file", "0:0", "cat /etc/masked; ls -l /etc/masked | cut -c1", "c"},
		{"masked directory", "0:0", "ls -A /etc/masked.d", ""},
		{"read-only path", "0:0", "touch /etc/readonly.d/x 2>&1 || touch /etc/x && rm /etc/x", "touch: /etc/readonly.d/x: Read-only file system"},
		{"tmpfs", "", "stat -c '%a %u %g' /m/tmp; df -k /m/tmp | awk 'NR==2{print $2}'", "1770 7 8\n1024"},
		{"tmpfs options", "", mountinfo("/m/tmp"), "rw,nosuid,noexec,relatime - tmpfs scratch"},
		{"tmpcopyup", "", "cat /etc/up/f", "copied"},
		{"bind", "0:0", "cat /m/rw/f; echo new >/m/rw/f; cat /m/slave/f", "rwnew"},
		{"read-only bind", "0:0", "cat /m/ro/f; echo 2>&1 >/m/ro/f", "rosh: can't create /m/ro/f: Read-only file system"},
		{"bind options", "", mountinfo("/m/ro"), "ro,nodev,relatime - virtiofs runv"},
		{"bind of a file", "0:0", "echo more >>/m/file-rw; cat /m/file-rw", "filemore"},
		{"read-only bind of a file", "0:0", "echo 2>&1 >/m/file-ro", "sh: can't create /m/file-ro: Read-only file system"},
		// Nothing propagates from the host, so there is no master to be seen.
		{"slave", "", "grep ' /m/slave ' /proc/self/mountinfo | grep -c ' shared:' || :", "0"},
		{"shared", "", "grep ' /m/shared ' /proc/self/mountinfo | grep -c ' shared:'", "1"},
		{"private", "", "grep ' /m/rw ' /proc/self/mountinfo | grep -c -e shared: -e master: || :", "0"},
		{"root of a bind", "", "awk '$5 == \"/m/file-rw\" {n = split($4, p, \"/\"); print p[n]}' /proc/self/mountinfo", "file-rw"},
		{"devpts", "", mountinfo("/dev/pts"), "rw,nosuid,noexec,relatime - devpts devpts"},
		{"mqueue", "", mountinfo("/dev/mqueue"), "rw,nosuid,nodev,noexec,relatime - mqueue mqueue"},
		{"shm", "", mountinfo("/dev/shm"), "rw,nosuid,nodev,noexec,relatime - tmpfs shm"},
		{"cgroup", "", mountinfo("/sys/fs/cgroup"), "ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup"},
		{"own cgroup is the root", "", "cat /proc/1/cgroup", "0::/"},
		{"limits", "", "cd /sys/fs/cgroup; cat memory.max pids.max cpu.max", "134217728\n77\n50000 100000"},
		{"device", "", "stat -c '%F %a %u %g %t:%T' /dev/sub/null2", "character special file 640 11 12 1:3"},
		{"default devices", "", "cd /dev; stat -c '%n %a %t:%T' null zero full random urandom tty", "null 666 1:3\nzero 666 1:5\nfull 666 1:7\nrandom 666 1:8\nurandom 666 1:9\ntty 666 5:0"},
		{"default links", "", "cd /dev; for l in fd stdin stdout stderr ptmx; do readlink $l; done", "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx"},
		{"devices work", "", "head -c 3 /dev/zero | od -An -tx1 | tr -d ' '; head -c 9 /dev/urandom | wc -c", "000000\n9"},
		{"other devices are refused", "", "cat /tmp/kmsg 2>&1", "cat: can't open '/tmp/kmsg': Operation not permitted"},
		{"network", "", "ls /sys/class/net; ip -o link show lo | grep -c LOOPBACK,UP", "lo\n1"},
		{"one namespace each", "", "for n in ipc mnt net pid uts cgroup; do [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo $n; done", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.In(t)
			args := []string{"exec", c.ID, "sh", "-c", tt.script}
			if tt.user != "" {
				args = append([]string{"exec", "--user", tt.user}, args[1:]...)
			}
			got := r.Run(args...)
			if out := strings.TrimSuffix(got.Stdout, "\n"); out != tt.want {
				t.Errorf("%s\ngot  %q (status %d, stderr %q)\nwant %q", tt.script, out, got.Status, got.Stderr, tt.want)
			}
		})
	}
	if now, err := strconv.ParseInt(c.Output("date +%s"), 10, 64); err != nil || time.Since(time.Unix(now, 0)).Abs() > 3*time.Second {
		t.Errorf("the guest's clock: %v, %v", time.Unix(now, 0), err)
	}
	for path, want := range map[string]string{"rw/f": "new\n", "ro/f": "ro", "file-rw": "filemore\n", "file-ro": "file"} {
		if got, err := os.ReadFile(filepath.Join(r.Dir, path)); err != nil || string(got) != want {
			t.Errorf("%s on the host: got %q, %v, want %q", path, got, err, want)
		}
	}
	if got, err := os.ReadFile(b.Rootfs + "/etc/up/f"); err != nil || string(got) != "copied" {
		t.Errorf("what tmpcopyup copied: %q, %v", got, err)
	}
}

// field prints a field of PID 1's status.
func field(name string) string {
	return "sed -n 's/^" + name + ":[[:space:]]*//p' /proc/1/status | sed 's/ *$//'"
}

// limit prints a soft and a hard limit of PID 1.
func limit(name string) string {
	return "sed -n 's/^Max " + name + " *//p' /proc/1/limits | awk '{print $1, $2}'"
}

// mountinfo prints a mount's own options, its type and its source.
func mountinfo(at string) string {
	return "awk '$5 == \"" + at + "\" {for (i = 7; $i != \"-\"; i++); print $6, \"-\", $(i+1), $(i+2)}' /proc/self/mountinfo"
}

func TestReadOnlyRoot(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(func(s *specs.Spec) { s.Root.Readonly = true },
		harness.Shell("touch /x; echo y >/etc/passwd; rm /bin/busybox; chmod 700 /etc; mknod /dev/x c 1 3 && echo dev is writable; grep -c . /proc/self/mountinfo >/dev/null"))
	before := listing(t, b.Rootfs)
	got := r.Run("run", "--bundle", b.Dir, r.NewID())
	if n := strings.Count(got.Stderr, "Read-only file system"); n != 4 || got.Status != 0 {
		t.Errorf("got %+v", got)
	}
	if after := listing(t, b.Rootfs); after != before {
		t.Errorf("the rootfs was changed:\n%s\nbefore:\n%s", after, before)
	}
}

// listing is every path of a tree with what chmod, chown and writing change.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var sb strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			sb.WriteString(path + " " + info.Mode().String() + " " + info.ModTime().String() + "\n")
		} else if err == nil {
			sb.WriteString(path + " " + info.Mode().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sb.String()
}
