package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

// withMounts adds mounts and, so that a test can look behind them, CAP_SYS_ADMIN.
func withMounts(mounts ...specs.Mount) harness.Change {
	return func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, mounts...)
		grant(s, "CAP_SYS_ADMIN", "CAP_MKNOD")
	}
}

// grant adds capabilities.
func grant(s *specs.Spec, names ...string) {
	c := s.Process.Capabilities
	for _, set := range []*[]string{&c.Bounding, &c.Permitted, &c.Effective} {
		*set = append(*set, names...)
	}
}

func tmpfs(dest string, options ...string) specs.Mount {
	return specs.Mount{Destination: dest, Type: "tmpfs", Source: "t", Options: options}
}

// flags prints a mount's own options and propagation, its type and its source.
const flags = `flags() { awk -v at="$1" '$5 == at {o = $6; for (i = 7; $i != "-"; i++) {sub(":.*", "", $i); o = o " " $i}; print $5, o, $(i+1), $(i+2)}' /proc/self/mountinfo; }; `

// TestMountOptions: each option has its effect on the mount, seen from inside.
func TestMountOptions(t *testing.T) {
	r := newRuntime(t)
	data := filepath.Join(r.Dir, "data")
	makeTree(t, data, map[string]string{"sub/file": "content", "link": "->sub/file", "run": "#!/bin/sh\necho ran\n"})
	if err := os.Chmod(data+"/run", 0o755); err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct {
		mount  specs.Mount
		script string
		want   string
	}{
		{bind(data, "/m", "bind", "ro"), `touch /m/x; flags /m`, "touch: /m/x: Read-only file system\n/m ro,relatime virtiofs runv"},
		{bind(data, "/m", "rbind", "noexec"), `/m/run; flags /m`, "sh: /m/run: Permission denied\n/m rw,noexec,relatime virtiofs runv"},
		{bind(data, "/m", "rbind", "nosymfollow"), `cat /m/link; cat /m/sub/file`, "cat: can't open '/m/link': Too many levels of symbolic links\ncontent"},
		{bind(data, "/m", "bind", "nosuid", "nodev", "noatime", "nodiratime"), `flags /m`, "/m rw,nosuid,nodev,noatime,nodiratime virtiofs runv"},
		{bind(data, "/m", "bind", "nosuid", "suid", "strictatime"), `flags /m`, "/m rw virtiofs runv"},
		{bind(data, "/m", "rbind", "rro"), `touch /m/sub/x; flags /m`, "touch: /m/sub/x: Read-only file system\n/m ro,relatime virtiofs runv"},
		{bind(data, "/m", "rbind", "rnosuid", "rnodev", "rnoexec", "rnoatime", "rnodiratime", "rnosymfollow"), `flags /m`, "/m rw,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow virtiofs runv"},
		{bind(data, "/m", "bind", "noatime", "rrelatime", "ro", "rrw"), `flags /m`, "/m rw,relatime virtiofs runv"},
		{bind(data, "/m", "bind", "rshared"), `mkdir /m/a; mount -t tmpfs in /m/a; flags /m; flags /m/a; umount /m/a; rmdir /m/a`, "/m rw,relatime shared virtiofs runv\n/m/a rw,relatime shared tmpfs in"},
		{bind(data, "/m", "bind", "shared", "slave"), `flags /m`, "/m rw,relatime virtiofs runv"},
		{bind(data, "/m", "bind", "unbindable"), `mkdir /n; mount --bind /m /n; flags /m`, "mount: mounting /m on /n failed: Invalid argument\n/m rw,relatime unbindable virtiofs runv"},
		{specs.Mount{Destination: "/m", Source: data, Options: []string{"bind"}}, `flags /m`, "/m rw,relatime virtiofs runv"},
		{specs.Mount{Destination: "/m", Type: "none", Source: data, Options: []string{"rbind", "ro"}}, `flags /m`, "/m ro,relatime virtiofs runv"},
		{specs.Mount{Destination: "/m", Type: "bind", Source: data}, `cat /m/link`, "content"},
		{bind("/dev/zero", "/m/zero", "bind", "ro"), `flags /m/zero; head -c 4 /m/zero | wc -c; awk '$5 == "/m/zero" {sub(".*/", "", $4); print $4}' /proc/self/mountinfo`, "/m/zero ro,relatime tmpfs runv\n4\nzero"},
		{bind("/proc/sys", "/m", "bind", "ro"), `uname -r | cmp - /m/kernel/osrelease; flags /m`, "/m ro,relatime master proc proc"},
		{bind("/sys", "/m", "rbind", "ro"), `flags /m; ls /m/kernel/mm | grep -c huge`, "/m ro,relatime master sysfs sysfs\n2"},
		{tmpfs("/m", "ro", "mode=0700", "size=8k", "uid=3", "noexec", "sync", "dirsync", "nodev", "defaults"), `stat -c '%a %u' /m; df -k /m | tail -1 | awk '{print $2}'; flags /m`, "700 3\n8\n/m ro,nodev,noexec,relatime tmpfs t"},
		{tmpfs("/m/new"), `stat -c %a /m/new`, "1777"},
		{tmpfs("/home"), `stat -c %a /home`, "755"},
		{tmpfs("m/rel", "silent", "lazytime"), `flags /m/rel; grep -c ' /m/rel .*lazytime' /proc/self/mountinfo`, "/m/rel rw,relatime tmpfs t\n1"},
		{specs.Mount{Destination: "/m", Type: "ramfs", Source: "r", Options: []string{"mode=711"}}, `stat -c %a /m; flags /m`, "711\n/m rw,relatime ramfs r"},
		{specs.Mount{Destination: "/m", Type: "proc", Source: "p", Options: []string{"subset=pid", "hidepid=2"}}, `ls -d /m/1 /m/cpuinfo; grep -o ' /m .*' /proc/self/mountinfo`, "ls: /m/cpuinfo: No such file or directory\n/m/1\n /m rw,relatime - proc p rw,hidepid=invisible,subset=pid"},
		{specs.Mount{Destination: "/m", Type: "devpts", Source: "d", Options: []string{"newinstance", "ptmxmode=0600", "mode=0620"}}, `ls /m; stat -c %a /m/ptmx`, "ptmx\n600"},
		{specs.Mount{Destination: "/m", Type: "mqueue", Source: "q"}, `flags /m; ls /m`, "/m rw,relatime mqueue q"},
		{specs.Mount{Destination: "/m", Type: "hugetlbfs", Source: "h", Options: []string{"pagesize=2M"}}, `flags /m`, "/m rw,relatime hugetlbfs h"},
		{specs.Mount{Destination: "/m", Type: "securityfs", Source: "s"}, `flags /m; cat /m/lsm | wc -l`, "/m rw,relatime securityfs s\n0"},
		{specs.Mount{Destination: "/m", Type: "binfmt_misc", Source: "s"}, `ls /m`, "register\nstatus"},
		{specs.Mount{Destination: "/m", Type: "configfs", Source: "s"}, `flags /m`, "/m rw,relatime configfs s"},
		{specs.Mount{Destination: "/m", Type: "fusectl", Source: "s"}, `flags /m`, "/m rw,relatime fusectl s"},
		{specs.Mount{Destination: "/m", Type: "cgroup", Source: "c", Options: []string{"ro"}}, `flags /m; cat /m/cgroup.type; mkdir /m/x`, "/m ro,relatime cgroup2 c\ndomain\nmkdir: can't create directory '/m/x': Read-only file system"},
	} {
		t.Run(strings.ReplaceAll(strings.Join(append([]string{itoa(i), tt.mount.Type}, tt.mount.Options...), " "), "/", ""), func(t *testing.T) {
			r.In(t)
			b := r.NewBundle(harness.Shell("exec 2>&1; "+flags+tt.script), withMounts(tt.mount))
			got := r.Run("run", "--bundle", b.Dir, r.NewID())
			if diff := cmp.Diff(tt.want, strings.TrimSuffix(got.Stdout, "\n")); diff != "" {
				t.Errorf("-want +got:\n%s%s", diff, got.Stderr)
			}
		})
	}
}

// TestMountOrder: mounts that build on earlier ones, and what they cover.
func TestMountOrder(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Shell(flags+`flags /m; flags /t; df -k /t | tail -1 | awk '{print $2}'; cat /up/x/f; flags /up
		ls /new/deep/er; cat /etc/l; stat -c %F /away/under; ls /etc/passwd.d`), withMounts(
		tmpfs("/m"),
		specs.Mount{Destination: "/m", Type: "bind", Source: "/anything", Options: []string{"bind", "remount", "ro", "nosuid"}},
		tmpfs("/t", "size=4k"),
		specs.Mount{Destination: "/t", Type: "tmpfs", Source: "t", Options: []string{"remount", "size=16k"}},
		tmpfs("/up", "tmpcopyup", "ro"),
		tmpfs("/new/deep/er"),
		bind("/etc/hostname", "/etc/l", "bind"),
		tmpfs("/dangling"), tmpfs("/hostile/under"),
	))
	makeTree(t, b.Rootfs, map[string]string{
		"up/x/f": "copied", "dangling": "->away", "hostile": "->../../../../away", "etc/l": "->../etc/passwd.d/l",
	})
	host, err := os.ReadFile("/etc/hostname")
	if err != nil {
		t.Skip("no /etc/hostname to bind")
	}
	got := r.Run("run", "--bundle", b.Dir, r.NewID())
	want := "/m ro,nosuid,relatime tmpfs t\n/t rw,relatime tmpfs t\n16\ncopied/up ro,relatime tmpfs t\n" + string(host) + "directory\nl\n"
	if got.Stdout != want || got.Status != 0 {
		t.Errorf("got %q, %q, want %q", got.Stdout, got.Stderr, want)
	}
	if _, err := os.Stat(filepath.Join(b.Rootfs, "away")); err != nil {
		t.Errorf("the mount point is not where the link leads inside of the rootfs: %v", err)
	}
}

// TestMountsRefused: what cannot be mounted is refused in runc's words, and
// nothing of the container is left.
func TestMountsRefused(t *testing.T) {
	r := newRuntime(t)
	for _, tt := range []struct {
		name  string
		mount specs.Mount
		want  string
	}{
		{"option", tmpfs("/m", "foo=1", "nodev"), `error mounting "t" to rootfs at "/m": mount src=t, dst=/m, flags=MS_NODEV, data=mode=0755,mode=1777,foo=1: invalid argument`},
		{"type", specs.Mount{Destination: "/m", Type: "nosuchfs", Source: "x", Options: []string{"ro"}}, `error mounting "x" to rootfs at "/m": the host's kernel has no file system "nosuchfs": mount src=x, dst=/m, flags=MS_RDONLY: no such device`},
		{"in proc", bind("/etc", "/proc/sys", "bind"), `"/proc/sys" cannot be mounted because it is inside /proc`},
		{"on proc", tmpfs("/proc"), `"/proc" cannot be mounted because it is not of type proc`},
		{"proc by a link", tmpfs("/p/sys"), `"/proc/sys" cannot be mounted because it is inside /proc`},
		{"remount of nothing", tmpfs("/m", "remount", "size=4k"), "flags=MS_REMOUNT, data=size=4k: invalid argument"},
		{"directory over a file", tmpfs("/etc/passwd"), "not a directory"},
		{"file over a directory", bind("/etc/passwd", "/etc", "bind"), "mount src=/etc/passwd, dst=/etc, flags=MS_BIND: not a directory"},
		{"file over the root", bind("/etc/passwd", "/", "bind"), "mount src=/etc/passwd, dst=/, flags=MS_BIND: not a directory"},
		{"device of the host", bind("/dev/kvm", "/m", "bind"), "the guest has no char device 10:232, and that of the host is not passed through"},
		{"namespace", bind("/proc/self/ns/uts", "/m", "bind"), "a namespace of the host cannot be shared with the guest"},
		{"overlay of nothing", specs.Mount{Destination: "/m", Type: "overlay", Source: "o", Options: []string{"lowerdir=/no/such"}}, "dst=/m, data=lowerdir=/no/such: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.In(t)
			if isBindOf(tt.mount, "/dev/kvm") {
				if _, err := os.Stat("/dev/kvm"); err != nil {
					t.Skip("no /dev/kvm")
				}
			}
			b := r.NewBundle(withMounts(tt.mount))
			makeTree(t, b.Rootfs, map[string]string{"p": "->proc"})
			got := r.Run("run", "--bundle", b.Dir, r.NewID())
			if got.Status != 1 || !strings.Contains(strings.ReplaceAll(got.Stderr, `\"`, `"`), tt.want) {
				t.Errorf("status %d, %s, want %q", got.Status, got.Stderr, tt.want)
			}
		})
	}
}

func isBindOf(m specs.Mount, source string) bool { return m.Source == source }

// TestHostMounts: file systems whose content is the host's are mounted there.
func TestHostMounts(t *testing.T) {
	r := newRuntime(t)
	dir := filepath.Join(r.Dir, "o")
	makeTree(t, dir, map[string]string{"lower/f": "below", "lower/gone": "x", "upper/x": "", "work/x": ""})
	if err := os.Remove(dir + "/work/x"); err != nil {
		t.Fatal(err)
	}
	o := []string{"lowerdir=" + dir + "/lower", "upperdir=" + dir + "/upper", "workdir=" + dir + "/work", "nosuid"}
	b := r.NewBundle(harness.Shell(flags+`flags /m; cat /m/f; echo new >/m/n; rm /m/gone; ls /m`),
		withMounts(specs.Mount{Destination: "/m", Type: "overlay", Source: "overlay", Options: o}))
	got := r.Run("run", "--bundle", b.Dir, r.NewID())
	if want := "/m rw,nosuid,relatime virtiofs runv\nbelowf\nn\nx\n"; got.Stdout != want {
		t.Errorf("got %q, %q, want %q", got.Stdout, got.Stderr, want)
	}
	if text, err := os.ReadFile(dir + "/upper/n"); err != nil || string(text) != "new\n" {
		t.Errorf("in the upper directory: %q, %v", text, err)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("mounted on the host, too: %v", err)
	}
}

// sharedDir makes a directory a shared mount of its own, as most hosts have them,
// until the end of the test.
func sharedDir(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("cannot mount here: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) }) //nolint:errcheck // the test is over
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
}

// mountOnHost mounts a tmpfs with one file.
func mountOnHost(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount("t", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) }) //nolint:errcheck // the test is over
	if err := os.WriteFile(dir+"/new", nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestSlaveSeesHostMounts: what the host mounts below the source of a slave shows
// up in the container.
func TestSlaveSeesHostMounts(t *testing.T) {
	r := newRuntime(t)
	src := filepath.Join(r.Dir, "src")
	makeTree(t, src, map[string]string{"sub/x": ""})
	sharedDir(t, src)
	b := r.NewBundle(harness.Args("sleep", "1000"), withMounts(bind(src, "/slave", "rbind", "rslave"), bind(src, "/private", "rbind", "rprivate")))
	c := r.Create(b).Start()
	defer c.End()
	mountOnHost(t, src+"/sub")
	harness.Within(t, harness.Limit, "the mount is seen", func() bool { return c.Exec("ls /slave/sub").Stdout == "new\n" })
	if got := c.Output("ls /private/sub"); got != "x" {
		t.Errorf("private: %q", got)
	}
	root := "/proc/" + itoa(c.PID) + "/root"
	if _, err := os.Stat(root + "/slave/sub/new"); err != nil {
		t.Errorf("in the view: %v", err)
	}
}

// TestSlaveRootfsSeesHostMounts: the same below the rootfs.
func TestSlaveRootfsSeesHostMounts(t *testing.T) {
	r := newRuntime(t)
	for propagation, seen := range map[string]bool{"rslave": true, "shared": true, "private": false, "": false} {
		t.Run(propagation, func(t *testing.T) {
			r.In(t)
			b := r.NewBundle(harness.Args("sleep", "1000"), withMounts(tmpfs("/covered")), func(s *specs.Spec) { s.Linux.RootfsPropagation = propagation })
			makeTree(t, b.Rootfs, map[string]string{"sub/x": ""})
			sharedDir(t, b.Rootfs)
			c := r.Create(b).Start()
			defer c.End()
			mountOnHost(t, b.Rootfs+"/sub")
			root := "/proc/" + itoa(c.PID) + "/root"
			if seen {
				harness.Within(t, harness.Limit, "the mount is seen", func() bool { return c.Exec("ls /sub").Stdout == "new\n" })
				if _, err := os.Stat(root + "/sub/new"); err != nil {
					t.Errorf("in the view: %v", err)
				}
			} else if got := c.Output("ls /sub"); got != "x" {
				t.Errorf("got %q", got)
			}
			// What the view mounts for itself is not served.
			if got := c.Output("umount /covered; ls -d /covered; umount -l /proc; ls /proc"); got != "/covered" {
				t.Errorf("below the guest's own mounts: %q", got)
			}
			if out, err := exec.Command("nsenter", "-t", itoa(c.PID), "-m", "ls", "/bin/busybox", "/proc/1/comm").CombinedOutput(); err != nil {
				t.Errorf("in the monitor's mount namespace: %v, %s", err, out)
			}
		})
	}
}

// TestRootfsPropagation: what it is, and what it does.
func TestRootfsPropagation(t *testing.T) {
	r := newRuntime(t)
	for propagation, want := range map[string]string{
		"shared":      "/ rw,relatime shared virtiofs runv\n/proc rw,relatime proc proc\n/b shared\n0\n",
		"rshared":     "/ rw,relatime shared virtiofs runv\n/proc rw,relatime shared proc proc\n/b shared\n0\n",
		"slave":       "/ rw,relatime virtiofs runv\n/proc rw,relatime proc proc\n0\n",
		"rslave":      "/ rw,relatime virtiofs runv\n/proc rw,relatime proc proc\n0\n",
		"private":     "/ rw,relatime virtiofs runv\n/proc rw,relatime proc proc\n0\n",
		"rprivate":    "/ rw,relatime virtiofs runv\n/proc rw,relatime proc proc\n0\n",
		"unbindable":  "/ rw,relatime unbindable virtiofs runv\n/proc rw,relatime proc proc\nmount: mounting / on /b failed: Invalid argument\n255\n",
		"runbindable": "/ rw,relatime unbindable virtiofs runv\n/proc rw,relatime unbindable proc proc\nmount: mounting / on /b failed: Invalid argument\n255\n",
	} {
		t.Run(propagation, func(t *testing.T) {
			r.In(t)
			b := r.NewBundle(harness.Shell(`exec 2>&1; mkdir -p /b; `+flags+`flags / | sort; flags /proc; mount --bind / /b; s=$?
				awk '$5 == "/b" && /shared/ {print "/b shared"}' /proc/self/mountinfo; echo $s`), withMounts(), func(s *specs.Spec) {
				s.Linux.RootfsPropagation = propagation
				s.Linux.ReadonlyPaths, s.Linux.MaskedPaths = nil, nil // they are binds
			})
			if got := r.Run("run", "--bundle", b.Dir, r.NewID()); got.Stdout != want {
				t.Errorf("got %q, %q, want %q", got.Stdout, got.Stderr, want)
			}
		})
	}
}

// mountProbe prints what a process sees of the mounts that a test added, of the
// file systems that are made in both cases with their own options. runc 1.1 gives
// a tmpfs the mode of the directory below it after mounting it, later ones and we
// as an option.
const mountProbe = `exec 2>&1
	awk '$5 ~ "^/(m|dev|home|etc|proc/fs)" && $5 !~ "mqueue|^/dev/(pts|shm)$" {o = $6; for (i = 7; $i != "-"; i++) {sub(":.*", "", $i); if ($i != "master") o = o " " $i}
		t = $(i+1); d = $(i+3); gsub(",?(inode64|huge=[a-z]*|seclabel|mode=755)", "", d); if (t !~ "tmpfs|proc|sysfs|devpts|mqueue|ramfs") t = d = ""; print $5, o, t, d}' /proc/self/mountinfo
	ls -lnd /m /m/* /home | awk '{print $1, $3, $4, $NF}'; touch /m/x && echo wrote && rm /m/x; find /m | sort | head -20; `

// TestMountsSameAsRunc runs bundles under both and compares what is seen, but for
// the file system of what the host shares.
func TestMountsSameAsRunc(t *testing.T) {
	r := newRuntime(t)
	data := filepath.Join(r.Dir, "data")
	mount := func(typ, source string, options ...string) harness.Change {
		return func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/m", Type: typ, Source: source, Options: options})
		}
	}
	at := func(dest string, options ...string) harness.Change {
		return func(s *specs.Spec) { s.Mounts = append(s.Mounts, tmpfs(dest, options...)) }
	}
	readonly := func(s *specs.Spec) { s.Root.Readonly = true }
	for name, changes := range map[string][]harness.Change{
		"bind":                 {mount("bind", data, "bind")},
		"rbind ro":             {mount("bind", data, "rbind", "ro")},
		"bind flags":           {mount("none", data, "bind", "nosuid", "nodev", "noexec")},
		"bind noatime":         {mount("", data, "bind", "noatime")},
		"bind nodiratime":      {mount("bind", data, "bind", "nodiratime")},
		"bind ro rw":           {mount("bind", data, "bind", "ro", "rw")},
		"bind nosuid suid":     {mount("bind", data, "bind", "nosuid", "suid", "noexec")},
		"bind rprivate":        {mount("bind", data, "rbind", "rprivate")},
		"bind rshared":         {mount("bind", data, "rbind", "rshared")},
		"bind shared slave":    {mount("bind", data, "rbind", "shared", "rslave")},
		"bind unbindable":      {mount("bind", data, "bind", "unbindable")},
		"bind strictatime":     {mount("bind", data, "bind", "strictatime")},
		"bind rro":             {mount("bind", data, "rbind", "rro")},
		"bind recursive":       {mount("bind", data, "rbind", "rnosuid", "rnoexec", "rnodev")},
		"bind recursive atime": {mount("bind", data, "rbind", "rnoatime", "rnodiratime")},
		"bind ro rrw":          {mount("bind", data, "rbind", "ro", "rrw")},
		"bind of a file":       {mount("bind", data+"/f", "bind", "ro")},
		"bind over a bind":     {mount("bind", data, "bind"), mount("bind", data+"/sub", "bind", "ro")},
		"bind remounted":       {mount("bind", data, "bind"), mount("bind", data, "bind", "remount", "ro", "nodev")},
		"over the root":        {mount("tmpfs", "t"), func(s *specs.Spec) { s.Mounts = append([]specs.Mount{bind("rootfs", "/", "rbind")}, s.Mounts...) }},
		"relative source":      {mount("bind", "rootfs/etc", "bind", "ro")},
		"tmpfs":                {mount("tmpfs", "t")},
		"tmpfs options":        {mount("tmpfs", "t", "size=64k", "mode=1750", "uid=5", "gid=6", "nr_inodes=20", "noexec")},
		"tmpfs ro":             {mount("tmpfs", "t", "ro", "nosuid")},
		"tmpfs over a tree":    {mount("bind", data, "bind"), at("/m/sub", "ro")},
		"tmpfs copyup":         {at("/home", "tmpcopyup"), at("/m/new/deep", "tmpcopyup")},
		"tmpfs remounted":      {mount("tmpfs", "t", "size=64k"), mount("tmpfs", "t", "remount", "size=128k", "ro")},
		"tmpfs shared":         {mount("tmpfs", "t", "shared"), mount("tmpfs", "t", "private")},
		"tmpfs on a file":      {at("/etc/passwd")},
		"tmpfs by a link":      {at("/linked"), mount("tmpfs", "t")},
		"tmpfs by a climb":     {at("/m/../m/./a//b/../c")},
		"tmpfs relative":       {at("m/rel")},
		"tmpfs bad option":     {mount("tmpfs", "t", "nonsense")},
		"ramfs":                {mount("ramfs", "r", "mode=700")},
		"devpts again":         {mount("devpts", "d", "newinstance", "ptmxmode=0640", "mode=600")},
		"mqueue again":         {mount("mqueue", "q", "noexec")},
		"no such type":         {mount("nosuchfs", "q")},
		"read-only root":       {readonly, mount("bind", data, "bind"), at("/home")},
		"read-only root, ro":   {readonly, mount("tmpfs", "t", "ro")},
		"dev read-only":        {func(s *specs.Spec) { s.Mounts[1].Options = append(s.Mounts[1].Options, "ro") }, mount("tmpfs", "t")},
		"masked and read-only": {mount("bind", data, "bind"), func(s *specs.Spec) {
			s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = []string{"/m/f", "/home", "/none"}, []string{"/m/sub", "/none", "/etc"}
		}},
		"without masks":         {mount("tmpfs", "t"), func(s *specs.Spec) { s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil }},
		"cwd in a mount":        {mount("bind", data, "bind"), func(s *specs.Spec) { s.Process.Cwd = "/m/made/here" }},
		"mount points are kept": {at("/m/kept/a"), mount("bind", data, "bind"), at("/m/kept/b")},
	} {
		t.Run(name, func(t *testing.T) {
			r.In(t)
			var seen [2]string
			for i := range seen {
				// Each has a tree and a rootfs of its own, as nobody was there before.
				if err := os.RemoveAll(data); err != nil {
					t.Fatal(err)
				}
				makeTree(t, data, map[string]string{"f": "x", "sub/g": "y"})
				b := r.NewBundle(append([]harness.Change{harness.Shell(mountProbe), func(s *specs.Spec) { s.Process.Rlimits = nil }}, changes...)...)
				makeTree(t, b.Rootfs, map[string]string{"home/u/file": "copied", "linked": "->../../m/target"})
				if i == 0 {
					got := r.Finish(exec.Command("runc", "--root", filepath.Join(r.Dir, "runc"), "run", "--bundle", b.Dir, r.NewID()))
					seen[i] = got.Stdout
					if strings.Contains(got.Stderr, "runc run failed") {
						seen[i] = "refused: " + lastOf(got.Stderr)
					}
					continue
				}
				got := r.Run("run", "--bundle", b.Dir, r.NewID())
				seen[i] = got.Stdout
				if strings.Contains(got.Stderr, "runv run failed") {
					seen[i] = "refused: " + lastOf(got.Stderr)
				}
			}
			if diff := cmp.Diff(strings.Split(seen[0], "\n"), strings.Split(seen[1], "\n")); diff != "" {
				t.Errorf("-runc +runv:\n%s", diff)
			}
		})
	}
}

// lastOf is the cause of an error: what is behind its last colon.
func lastOf(text string) string {
	text = strings.Trim(text, "\"\n")
	return strings.TrimSpace(text[strings.LastIndex(text, ": ")+1:])
}

// TestCgroupMount: the container's cgroup, with a namespace in the config and without
// one: paths of /proc/self/cgroup are below the mount either way.
func TestCgroupMount(t *testing.T) {
	r := newRuntime(t)
	for name, tt := range map[string]struct {
		changes []harness.Change
		options []string
		want    string
	}{
		"without a namespace":  {nil, nil, "/m rw,relatime cgroup2 c\n0::/\nours\nmade\n"},
		"read-only":            {nil, []string{"ro", "nosuid"}, "/m ro,nosuid,relatime cgroup2 c\n0::/\nours\n"},
		"in a namespace":       {[]harness.Change{cgroupNamespace}, nil, "/m rw,relatime cgroup2 c\n0::/\nours\nmade\n"},
		"in one, read-only":    {[]harness.Change{cgroupNamespace}, []string{"ro", "noexec"}, "/m ro,noexec,relatime cgroup2 c\n0::/\nours\n"},
		"in a user namespace":  {[]harness.Change{userNamespace([]specs.LinuxIDMapping{mapping(0, 0, 1000)}, []specs.LinuxIDMapping{mapping(0, 0, 1000)})}, nil, "/m rw,relatime cgroup2 c\n0::/\nours\nmade\n"},
		"in both":              {[]harness.Change{cgroupNamespace, userNamespace([]specs.LinuxIDMapping{mapping(0, 0, 1000)}, []specs.LinuxIDMapping{mapping(0, 0, 1000)})}, nil, "/m rw,relatime cgroup2 c\n0::/\nours\nmade\n"},
		"of version 2 by name": {[]harness.Change{cgroupNamespace, func(s *specs.Spec) { s.Mounts[len(s.Mounts)-1].Type = "cgroup2" }}, nil, "/m rw,relatime cgroup2 c\n0::/\nours\nmade\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r.In(t)
			m := withMounts(specs.Mount{Destination: "/m", Type: "cgroup", Source: "c", Options: tt.options})
			b := r.NewBundle(append([]harness.Change{m, harness.Shell(flags + `flags /m; cat /proc/self/cgroup; grep -q "^$$\$" /m/cgroup.procs && echo ours; mkdir /m/sub 2>/dev/null && rmdir /m/sub && echo made`), func(s *specs.Spec) {
				s.Linux.CgroupsPath = "/the/group"
			}}, tt.changes...)...)
			if got := r.Run("run", "--bundle", b.Dir, r.NewID()); got.Stdout != tt.want {
				t.Errorf("got %q, %q, want %q", got.Stdout, got.Stderr, tt.want)
			}
		})
	}
}

func cgroupNamespace(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
}

// TestMountsInTheView: engines that enter the monitor's mount namespace see the
// binds at their destinations, as read-only as the container does, and can open
// no device there.
func TestMountsInTheView(t *testing.T) {
	r := newRuntime(t)
	data := filepath.Join(r.Dir, "data")
	makeTree(t, data, map[string]string{"f": "x"})
	b := r.NewBundle(harness.Args("sleep", "1000"), withMounts(
		bind(data, "/rw", "bind"), bind(data, "/ro", "bind", "ro"), bind(data, "/rro", "rbind", "rro"),
		bind(data, "/back", "rbind", "ro", "rrw"), bind("/dev/zero", "/zero", "bind"), tmpfs("/later"), bind(data, "/later", "bind"),
		specs.Mount{Destination: "/later", Type: "bind", Source: data, Options: []string{"bind", "remount", "ro"}},
	))
	c := r.Create(b).Start()
	defer c.End()
	root := "/proc/" + itoa(c.PID) + "/root"
	for name, readOnly := range map[string]bool{"rw": false, "ro": true, "rro": true, "back": false, "later": true} {
		err := os.WriteFile(root+"/"+name+"/new", nil, 0o644)
		if (err != nil) != readOnly {
			t.Errorf("%s: write: %v, want read-only: %v", name, err, readOnly)
		}
		if text, err := os.ReadFile(root + "/" + name + "/f"); err != nil || string(text) != "x" {
			t.Errorf("%s: read %q, %v", name, text, err)
		}
	}
	if f, err := os.Open(root + "/zero"); err == nil {
		f.Close() //nolint:errcheck // only opened
		t.Error("a device of the host can be opened in the view")
	}
}

// makeTree makes files below a directory; a content that begins with -> is the
// target of a symbolic link.
func makeTree(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(content, "->"); ok {
			os.Remove(path) //nolint:errcheck // it need not be there
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
