package task

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"run": 0o755, "data": 0o644, "d/run": 0o755} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name, file, path, want, err string
	}{
		{"in path", "run", "/nosuch:" + dir, dir + "/run", ""},
		{"absolute", dir + "/run", "", dir + "/run", ""},
		{"not executable in path", "data", dir, "", `exec: "data": executable file not found in $PATH`},
		{"not there", "x", dir, "", `exec: "x": executable file not found in $PATH`},
		{"no path", "run", "", "", `exec: "run": executable file not found in $PATH`},
		{"absolute, not there", "/nosuch", dir, "", `exec: "/nosuch": stat /nosuch: no such file or directory`},
		{"absolute, not executable", dir + "/data", dir, "", `exec: "` + dir + `/data": permission denied`},
		{"directory", dir + "/d", dir, "", `exec: "` + dir + `/d": is a directory`},
		{"directory in path", "d", dir, "", `exec: "d": executable file not found in $PATH`},
		{"below a file", dir + "/run/x", dir, "", `exec: "` + dir + `/run/x": stat ` + dir + `/run/x: not a directory`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := LookPath(tt.file, []string{"A=b", "PATH=" + tt.path})
			if got != tt.want || (err == nil) != (tt.err == "") || (err != nil && err.Error() != tt.err) {
				t.Errorf("got %q, %v; want %q, %s", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestCleanEnv(t *testing.T) {
	got, err := CleanEnv([]string{"A=1", "B=2", "A=3", "C="})
	if diff := cmp.Diff([]string{"A=3", "B=2", "C="}, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, bad := range []string{"A", "=x", "", "A=\x00"} {
		if _, err := CleanEnv([]string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestWithHome(t *testing.T) {
	tests := []struct{ in, want []string }{
		{[]string{"A=1"}, []string{"A=1", "HOME=/h"}},
		{[]string{"HOME=/x"}, []string{"HOME=/x"}},
		{[]string{"HOME=", "A=1"}, []string{"HOME=/h", "A=1"}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, WithHome(tt.in, "/h")); diff != "" {
			t.Error(diff)
		}
	}
}

func TestFindHome(t *testing.T) {
	const passwd = "# comment\n\nroot:x:0:0:root:/root:/bin/sh\nshort:x:7\nrel:x:5:5::home:\nbig:x:4294967296:0::/big:\nu:x:1000:1000::/home/u:/bin/sh\nu2:x:1000:1000::/second:\nempty:x:6:6:::\n"
	for uid, want := range map[uint32]string{0: "/root", 1000: "/home/u", 7: "/", 5: "/", 6: "/", 42: "/"} {
		if got := findHome(strings.NewReader(passwd), uid); got != want {
			t.Errorf("uid %d: %q, want %q", uid, got, want)
		}
	}
}

func FuzzFindHome(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/sh\n", uint32(0))
	f.Add("a:b:0:::/\x00:", uint32(0))
	f.Fuzz(func(t *testing.T, passwd string, uid uint32) {
		home := findHome(strings.NewReader(passwd), uid)
		if !strings.HasPrefix(home, "/") || strings.ContainsAny(home, "\x00\n:") {
			t.Errorf("home %q", home)
		}
	})
}

func FuzzCleanEnv(f *testing.F) {
	f.Add("A=1\nA=2\nB=")
	f.Fuzz(func(t *testing.T, text string) {
		env, err := CleanEnv(strings.Split(text, "\n"))
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, e := range env {
			k, _, ok := strings.Cut(e, "=")
			if !ok || k == "" || seen[k] {
				t.Errorf("%q of %q", e, env)
			}
			seen[k] = true
		}
		if _, err := cstrings(env); err != nil {
			t.Error(err)
		}
	})
}

func TestCapMask(t *testing.T) {
	tests := []struct {
		names []string
		last  uint
		want  uint64
	}{
		{[]string{"CAP_CHOWN", "cap_kill", "SETUID"}, 40, 1<<0 | 1<<5 | 1<<7},
		{[]string{"CAP_CHECKPOINT_RESTORE"}, 40, 1 << 40},
		{[]string{"CAP_CHECKPOINT_RESTORE"}, 39, 0}, // an older kernel
		{[]string{"CAP_NOSUCH", ""}, 40, 0},
	}
	for _, tt := range tests {
		if got := capMask(tt.names, tt.last); got != tt.want {
			t.Errorf("%q: %#x, want %#x", tt.names, got, tt.want)
		}
	}
}

// A script stops at the first error that it does not allow, and makes the second
// try of a call only if the first failed.
func TestScript(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fail := Call("close nothing", unix.SYS_CLOSE, 1<<20)
	ok := Call("getpid", unix.SYS_GETPID)
	if err := (Script{ok, fail.Allow(unix.EBADF), ok}).Run(); err != nil {
		t.Errorf("allowed: %v", err)
	}
	var e *Error
	if err := (Script{ok, fail, ok}).Run(); !errors.As(err, &e) || e.Op != "close nothing" || !errors.Is(err, unix.EBADF) {
		t.Errorf("%v", err)
	}
	first := fail.Allow(unix.EBADF)
	first.first = true
	again := fail
	again.retry = true
	if err := (Script{first, again}).Run(); !errors.Is(err, unix.EBADF) {
		t.Errorf("the second try was not made: %v", err)
	}
	fine := ok
	fine.first = true
	if err := (Script{fine, again}).Run(); err != nil {
		t.Errorf("a second try after success: %v", err)
	}
	short := ok
	short.min = ^uintptr(0)
	if err := (Script{short}).Run(); !errors.Is(err, unix.EPIPE) {
		t.Errorf("short result: %v", err)
	}
}

// forkTest runs a script in a child and returns what it wrote and its status.
func forkTest(t *testing.T, path string, args ...string) (string, int, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out, err := High(int(w.Fd()), 3)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPipes(3)
	if err != nil {
		t.Fatal(err)
	}
	settings := &Settings{Process: &specs.Process{Args: args}, Personality: -1}
	exec, err := settings.Exec(path, []string{"A=b"})
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c, err := Fork(p, 0, -1, append(p.Enter([]int{out, out, out}), exec...))
	unix.Close(out)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Open()
	b, rerr := io.ReadAll(r)
	if rerr != nil {
		t.Fatal(rerr)
	}
	var ws unix.WaitStatus
	if _, werr := unix.Wait4(c.Pid, &ws, 0, nil); werr != nil {
		t.Fatal(werr)
	}
	return string(b), ws.ExitStatus(), err
}

func TestFork(t *testing.T) {
	out, status, err := forkTest(t, "/bin/sh", "sh", "-c", "echo $A; ls /proc/self/fd | tr '\\n' ' '; exit 3")
	if out != "b\n0 1 2 3 " || status != 3 || err != nil {
		t.Errorf("%q %d %v", out, status, err)
	}
	_, status, err = forkTest(t, "/nosuch", "x")
	if status != 255 || err == nil || err.Error() != "exec /nosuch: no such file or directory" {
		t.Errorf("%d %v", status, err)
	}
}

// A child that is abandoned at its gate exits.
func TestAbandon(t *testing.T) {
	p, err := NewPipes(3)
	if err != nil {
		t.Fatal(err)
	}
	null, err := High(0, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c, err := Fork(p, 0, -1, append(p.Enter([]int{null, null, null}), Call("exit", unix.SYS_EXIT_GROUP, 0)))
	if err != nil {
		t.Fatal(err)
	}
	c.Abandon()
	var ws unix.WaitStatus
	// Nobody reads its report: it may die of that.
	if _, err := unix.Wait4(c.Pid, &ws, 0, nil); err != nil || ws.ExitStatus() == 0 {
		t.Errorf("%v %v", ws, err)
	}
}
