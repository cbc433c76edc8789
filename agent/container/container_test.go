package container

import (
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestRunSaysWhatTheProcessSays(t *testing.T) {
	e := newEnv(t)
	out, errs, x := e.run(t, baseSpec("sh", "-c", "echo out; echo err >&2; exit 7"))
	if out != "out\n" || errs != "err\n" || x.Status != 7 {
		t.Errorf("stdout %q stderr %q status %d, want out, err, 7", out, errs, x.Status)
	}
	if x.Stdout != 4 || x.Stderr != 4 {
		t.Errorf("counted %d and %d bytes, want 4 and 4", x.Stdout, x.Stderr)
	}
}

func TestStdinComesBackEqual(t *testing.T) {
	e := newEnv(t)
	j, err := e.create(t, baseSpec("cat"))
	if err != nil {
		t.Fatal(err)
	}
	if err := j.c.Start(); err != nil {
		t.Fatal(err)
	}
	var seed [32]byte
	src := io.LimitReader(rand.NewChaCha8(seed), 5<<20)
	in, out := sha256.New(), sha256.New()
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.MultiWriter(j.stdin, in), src)
		done <- errors.Join(err, j.stdin.CloseWrite())
	}()
	n, err := io.Copy(out, j.stdout)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	if n != 5<<20 || string(in.Sum(nil)) != string(out.Sum(nil)) {
		t.Errorf("%d bytes came back, not the same", n)
	}
	if x := j.wait(t, ""); x.Status != 0 {
		t.Errorf("status %d", x.Status)
	}
}

// The view that a container has of itself.
func TestInside(t *testing.T) {
	e := newEnv(t)
	tests := []struct {
		name, script, want string
		change             func(*specs.Spec)
	}{
		{"pid 1", "echo $$", "1", nil},
		{"hostname", "hostname", "box", nil},
		{"session", "cut -d' ' -f1,5,6 /proc/self/stat; exit 0", "", nil},
		{"cgroup root", "cat /proc/self/cgroup | grep ^0", "0::/", nil},
		{"no descriptors", "ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3", nil}, // 3 is ls's own
		{"capabilities", "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2 | tr '\\n' ' '",
			"0000000000000000 00000000000000e3 00000000000000e3 00000000000000e3 0000000000000000", nil},
		{"signals", "grep -E 'Sig(Blk|Ign)' /proc/self/status | cut -f2 | tr '\\n' ' '", "0000000000000000 " + inheritedIgnores(t), nil},
		{"home of root", "echo $HOME", "/root", nil},
		{"home of user", "echo $HOME", "/home/u", func(s *specs.Spec) { s.Process.User.UID = 1000 }},
		{"user", "id -u; id -g; id -G", "5\n6\n6 7 8", func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 5, GID: 6, AdditionalGids: []uint32{7, 8}}
		}},
		{"user has no capabilities", "grep CapEff /proc/self/status | cut -f2", "0000000000000000",
			func(s *specs.Spec) { s.Process.User.UID = 1000 }},
		{"ambient", "grep CapEff /proc/self/status | cut -f2", "0000000000000001", func(s *specs.Spec) {
			s.Process.User.UID = 1000
			s.Process.Capabilities.Inheritable = []string{"CAP_CHOWN"}
			s.Process.Capabilities.Ambient = []string{"CAP_CHOWN"}
		}},
		{"umask", "umask", "0027", func(s *specs.Spec) { u := uint32(0o027); s.Process.User.Umask = &u }},
		{"default umask", "umask", "0022", nil},
		{"cwd is made", "pwd", "/new/dir", func(s *specs.Spec) { s.Process.Cwd = "/new/dir" }},
		{"no new privileges", "grep NoNewPrivs /proc/self/status | cut -f2", "1",
			func(s *specs.Spec) { s.Process.NoNewPrivileges = true }},
		{"rlimit", "ulimit -n; ulimit -Hn", "100\n200", func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
		}},
		{"default nofile", "ulimit -n", "1024", nil},
		{"devices", "stat -c '%A %t %T' /dev/null /dev/tty; for l in ptmx fd stdin; do readlink /dev/$l; done",
			"crw-rw-rw- 1 3\ncrw-rw-rw- 5 0\npts/ptmx\n/proc/self/fd\n/proc/self/fd/0", nil},
		{"own device", "stat -c '%F %A %u %t %T' /dev/my /dev/pipe", "block special file brw-r----- 9 7 8\nfifo prw-rw-rw- 0 0 0",
			func(s *specs.Spec) {
				mode, uid := os.FileMode(0o640), uint32(9)
				s.Linux.Devices = []specs.LinuxDevice{
					{Path: "/dev/my", Type: "b", Major: 7, Minor: 8, FileMode: &mode, UID: &uid},
					{Path: "/dev/pipe", Type: "p"},
				}
			}},
		{"read-only root", "touch /x 2>&1; touch /dev/shm/x && echo ok", "touch: /x: Read-only file system\nok",
			func(s *specs.Spec) { s.Root.Readonly = true }},
		{"masked", "cat /proc/kcore | wc -c; ls /proc/sys | wc -l", "0\n0",
			func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"/proc/kcore", "/proc/sys", "/nosuch"} }},
		{"read-only path", "touch /etc/x 2>&1", "touch: /etc/x: Read-only file system",
			func(s *specs.Spec) { s.Linux.ReadonlyPaths = []string{"/etc", "/nosuch"} }},
		{"sysctl", "cat /proc/sys/kernel/msgmax", "4242",
			func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.msgmax": "4242"} }},
		{"domainname", "cat /proc/sys/kernel/domainname", "example", func(s *specs.Spec) { s.Domainname = "example" }},
		{"environment", "", "PATH=/bin\nTERM=xterm\nA=2\nHOME=/root", func(s *specs.Spec) {
			s.Process.Args = []string{"env"}
			s.Process.Env = append(s.Process.Env, "A=1", "A=2")
		}},
		{"stdout can be opened again", "echo x > /dev/stdout", "x", func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 1000, GID: 1000}
			s.Process.Capabilities = nil
		}},
		{"personality", "uname -m", "i686", func(s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
			s.Process.Args[0] = "/bin/busybox"
			s.Process.Args = append([]string{"/bin/busybox", "uname", "-m"}, nil...)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := baseSpec("sh", "-c", tt.script)
			if tt.change != nil {
				tt.change(s)
			}
			out, errs, x := e.run(t, s)
			if tt.want != "" && strings.TrimSpace(out) != tt.want {
				t.Errorf("%s:\ngot  %q (stderr %q, status %d)\nwant %q", tt.script, out, errs, x.Status, tt.want)
			}
		})
	}
}

// What Create, and only Start, must refuse, in runc's words.
func TestWordsOfMissingExecutables(t *testing.T) {
	e := newEnv(t)
	tests := []struct {
		arg, create, start string
	}{
		{"nosuch", `exec: "nosuch": executable file not found in $PATH`, ""},
		{"/nosuch", `exec: "/nosuch": stat /nosuch: no such file or directory`, ""},
		{"/bin/notexec", `exec: "/bin/notexec": permission denied`, ""},
		{"/bin", `exec: "/bin": is a directory`, ""},
		{"/bin/badformat", "", "exec /bin/badformat: exec format error"},
	}
	for _, tt := range tests {
		t.Run(tt.arg, func(t *testing.T) {
			j, err := e.create(t, baseSpec(tt.arg))
			if tt.create != "" {
				want := "unable to start container process: " + tt.create
				if err == nil || err.Error() != want {
					t.Fatalf("create: %v, want %s", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := j.c.Start(); err == nil || err.Error() != tt.start {
				t.Errorf("start: %v, want %s", err, tt.start)
			}
		})
	}
}

func TestKilledIs137(t *testing.T) {
	e := newEnv(t)
	j, err := e.create(t, baseSpec("sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	if err := j.c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := j.c.Signal("", unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	if x := j.wait(t, ""); x.Status != 137 {
		t.Errorf("status %d, want 137", x.Status)
	}
	if err := j.c.Signal("", unix.SIGTERM, false); !errors.Is(err, ErrNotRunning) {
		t.Errorf("signal after the end: %v", err)
	}
}

func TestBinds(t *testing.T) {
	e := newEnv(t)
	host := filepath.Join(e.m.Trees, "v", "data")
	if err := os.MkdirAll(host, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(e.m.Trees, "f", "hosts")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("1.2.3.4 x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	rootfs := filepath.Join(e.m.Trees, "k/rootfs")
	// A dangling symlink leads to a place that is made; an absolute one and
	// one that climbs stay inside.
	for link, target := range map[string]string{"etc/hosts": "../run/x/hosts", "evil": "/../../../tmp"} {
		if err := os.Symlink(target, filepath.Join(rootfs, link)); err != nil {
			t.Fatal(err)
		}
	}
	s := baseSpec("sh", "-c", "cat /etc/hosts /run/x/hosts; echo hi > /data/new/../file; touch /ro/x 2>&1; ls /tmp/deep")
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/etc/hosts", Type: "bind", Options: []string{"rbind", "rprivate"}},
		specs.Mount{Destination: "/data", Options: []string{"bind"}},
		specs.Mount{Destination: "/ro", Type: "bind", Options: []string{"rbind", "ro"}},
		specs.Mount{Destination: "/evil/deep", Type: "bind", Options: []string{"rbind", "rro"}})
	if err := os.Mkdir(filepath.Join(host, "new"), 0o755); err != nil {
		t.Fatal(err)
	}
	n := len(s.Mounts)
	out, _, _ := e.run(t, s, Tree{Mount: n - 4, Path: "f/hosts"}, Tree{Mount: n - 3, Path: "v/data"}, Tree{Mount: n - 2, Path: "v/data"}, Tree{Mount: n - 1, Path: "v/data"})
	want := "1.2.3.4 x\n1.2.3.4 x\ntouch: /ro/x: Read-only file system\nfile\nnew\n"
	if out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	if b, err := os.ReadFile(filepath.Join(host, "file")); err != nil || string(b) != "hi\n" {
		t.Errorf("file on the host: %q, %v", b, err)
	}
}

func TestTmpfsTakesModeAndContent(t *testing.T) {
	e := newEnv(t)
	dir := filepath.Join(e.m.Trees, "k/rootfs/var")
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sub/file"), []byte("content"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o1711); err != nil || unix.Chmod(dir, 0o1711) != nil {
		t.Fatal(err)
	}
	s := baseSpec("sh", "-c", "stat -c %a /var; cat /var/sub/file; stat -c %a /var/sub/file; touch /var/x 2>&1")
	s.Mounts = append(s.Mounts, specs.Mount{
		Destination: "/var", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "ro", "size=1m"},
	})
	out, errs, _ := e.run(t, s)
	if want := "1711\ncontent640\ntouch: /var/x: Read-only file system\n"; out != want {
		t.Errorf("got %q %q, want %q", out, errs, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Error("written through to the directory below")
	}
}

func TestUserNamespace(t *testing.T) {
	e := newEnv(t)
	root := filepath.Join(e.m.Trees, "k/rootfs")
	for _, d := range []string{".", "tmp", "etc", "dev", "root"} {
		if err := os.Chown(filepath.Join(root, d), 100000, 100000); err != nil {
			t.Fatal(err)
		}
	}
	s := baseSpec("sh", "-c", "id -u; cat /proc/self/uid_map; echo x > /tmp/f; stat -c '%t %T %u' /dev/null; sleep 1000")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = m, m
	j, err := e.create(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.c.Start(); err != nil {
		t.Fatal(err)
	}
	want := "0\n         0     100000      65536\n1 3 0\n"
	b := make([]byte, len(want))
	if _, err := io.ReadFull(j.stdout, b); err != nil || string(b) != want {
		t.Fatalf("got %q (%v), want %q", b, err, want)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(root, "tmp/f"), &st); err != nil || st.Uid != 100000 {
		t.Errorf("owner %d, %v", st.Uid, err)
	}
	out, errs, x := j.exec(t, "a", &specs.Process{
		Args: []string{"sh", "-c", "id -u; cat /proc/self/uid_map; echo y > /tmp/g; echo $$ > /dev/null"}, Cwd: "/", Env: []string{"PATH=/bin"},
	})
	if want := "0\n         0     100000      65536\n"; out != want || x.Status != 0 {
		t.Errorf("exec: %q %q %d", out, errs, x.Status)
	}
	if err := unix.Stat(filepath.Join(root, "tmp/g"), &st); err != nil || st.Uid != 100000 {
		t.Errorf("exec's file has owner %d, %v", st.Uid, err)
	}
}
