package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"runv/libvm/libvmtest"
	"runv/libvm/monitor"
	"runv/libvm/tty"
)

func TestMain(m *testing.M) {
	// A program with the race detector waits a second at its end otherwise.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	// A shell starts what runs in the background with these ignored, and so would
	// be all that the tests start. With a handler they are not, and here they go on
	// doing nothing.
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGHUP} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	testscript.Main(m, map[string]func(){"runv": runvCommand})
}

// runvCommand is runv with a monitor that has no VM.
func runvCommand() {
	if len(os.Args) > 1 && os.Args[1] == monitor.Command {
		os.Exit(libvmtest.Monitor())
	}
	main()
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("tests", "cli"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", os.Getenv("GORACE"))
			e.Setenv("RUNV_KERNEL", filepath.Join(e.WorkDir, "vmlinux"))
			return errors.Join(os.WriteFile(filepath.Join(e.WorkDir, "vmlinux"), nil, 0o600), ownCgroups(e.WorkDir))
		},
		Condition: func(cond string) (bool, error) { return cond == "root" && os.Geteuid() == 0, nil },
	})
}

// ownCgroups gives the bundles in dir a cgroup of their own: the ids in scripts are
// those of other tests, too.
func ownCgroups(dir string) error {
	configs, err := filepath.Glob(filepath.Join(dir, "*", "config.json"))
	for _, path := range configs {
		data, readErr := os.ReadFile(path)
		own := `"linux":{"cgroupsPath":"/runv-` + strings.ReplaceAll(dir[1:], "/", "-") + `",`
		err = errors.Join(err, readErr, os.WriteFile(path, []byte(strings.Replace(string(data), `"linux":{`, own, 1)), 0o600))
	}
	return err
}

func TestParseSignal(t *testing.T) {
	for s, want := range map[string]int{"9": 9, "KILL": 9, "SIGKILL": 9, "sigTerm": 15, "winch": 28, "0": 0, "99": 99, "-1": -1} {
		if got, err := parseSignal(s); err != nil || got != want {
			t.Errorf("parseSignal(%q): got %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "FOO", "SIG", "SIGSIGKILL", "9 ", "1e3"} {
		if got, err := parseSignal(s); err == nil {
			t.Errorf("parseSignal(%q): got %d", s, got)
		}
	}
}

// Statuses are runc's.
func TestExitStatus(t *testing.T) {
	for args, want := range map[string]int{
		"": 0, "--help": 0, "help": 0, "help run": 0, "run --help": 0, "delete x --help": 0, "help nosuch": statusNoCommand, "nosuch": statusNoCommand,
		"exec nosuch true": statusExecFailed, "state nosuch": statusError, "state": statusError, "--nosuch": statusError, "--root / list": statusError,
	} {
		cmd := exec.Command("/proc/self/exe", strings.Fields(args)...)
		cmd.Args[0] = "runv"
		_ = cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%q: got %d, want %d", args, got, want)
		}
	}
}

func TestDefaultRoot(t *testing.T) {
	for _, tt := range []struct {
		dir, user string
		euid      int
		userns    bool
		want      string
	}{
		{"", "", 0, false, "/run/runv"}, {"/run/user/0", "", 0, false, "/run/runv"}, {"", "", 1000, false, "/run/runv"},
		{"/run/user/1000", "", 1000, false, "/run/user/1000/runv"},
		{"/run/user/1000", "me", 0, true, "/run/user/1000/runv"}, {"/run/user/0", "root", 0, true, "/run/runv"}, {"", "me", 0, true, "/run/runv"},
	} {
		env := map[string]string{"XDG_RUNTIME_DIR": tt.dir, "USER": tt.user}
		if got, _ := defaultRoot(func(k string) string { return env[k] }, tt.euid, tt.userns); got != tt.want {
			t.Errorf("%+v: got %s", tt, got)
		}
	}
}

// onTerminal runs runv under a terminal of 24 rows and 80 columns, feeds it, and
// returns what it showed, its status, and whether it restored the modes.
func onTerminal(t *testing.T, feed func(master *os.File, c *exec.Cmd), args ...string) (string, int) {
	t.Helper()
	master, slave, err := tty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	// A shell's terminal: cooked, as runv must leave it.
	modes, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	modes.Lflag |= unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, modes); err != nil {
		t.Fatal(err)
	}
	if err := tty.SetSize(master, 24, 80); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("/proc/self/exe", args...)
	c.Args[0] = "runv"
	c.Env = append(os.Environ(), "RUNV_KERNEL=/proc/self/exe")
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(30*time.Second, func() { _ = c.Process.Kill() })
	defer timer.Stop()
	shown := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(master) // EIO at the end
		shown <- string(b)
	}()
	feed(master, c)
	_ = c.Wait()
	after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if *after != *modes {
		t.Errorf("the terminal's modes were not restored: got %+v, want %+v", after, modes)
	}
	_ = slave.Close()
	return <-shown, c.ProcessState.ExitCode()
}

// waitFor polls for a file, which a workload makes.
func waitFor(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no %s", path)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func terminalBundle(t *testing.T, script string) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("monitors need new namespaces (try: sudo go test)")
	}
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := `{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"terminal":true,"cwd":"/","args":["sh","-c","` +
		strings.ReplaceAll(script, `"`, `\"`) + `"],"env":["PATH=/usr/bin:/bin"]},"linux":{"namespaces":[{"type":"mount"},{"type":"pid"},
		{"type":"ipc"},{"type":"uts"},{"type":"network"}]}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRunOnTerminal(t *testing.T) {
	root := t.TempDir()
	ready := filepath.Join(t.TempDir(), "ready")
	// The fake's workload has the pty's slave itself, which is raw: Ctrl-C is
	// a byte to it, and Enter a carriage return.
	b := terminalBundle(t, `trap "stty size; touch `+ready+`2" WINCH; stty size; touch `+ready+`; head -c 3 | od -c; sleep 0.1; stty size; exit 6`)
	shown, status := onTerminal(t, func(master *os.File, _ *exec.Cmd) {
		waitFor(t, ready)
		if err := tty.SetSize(master, 30, 100); err != nil {
			t.Error(err)
		}
		if _, err := master.WriteString("a\x03\r"); err != nil {
			t.Error(err)
		}
	}, "--root", root, "run", "-b", b, "c")
	if status != 6 || !strings.Contains(shown, "24 80") || !strings.Contains(shown, "30 100") || !strings.Contains(shown, `a 003  \r`) {
		t.Errorf("got status %d, %q", status, shown)
	}
	if left, _ := filepath.Glob(filepath.Join(root, "*")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// A signal that ends run, or the workload, gives the terminal back.
func TestTerminalIsRestored(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGKILL} {
		root := t.TempDir()
		ready := filepath.Join(t.TempDir(), "ready")
		b := terminalBundle(t, `touch `+ready+`; exec sleep 1000`)
		_, status := onTerminal(t, func(_ *os.File, c *exec.Cmd) {
			waitFor(t, ready)
			if sig == unix.SIGKILL { // nobody can restore after its own kill -9
				kill := exec.Command("/proc/self/exe", "--root", root, "kill", "c", "KILL")
				kill.Args[0] = "runv"
				if out, err := kill.CombinedOutput(); err != nil {
					t.Errorf("kill: %v: %s", err, out)
				}
				return
			}
			if err := c.Process.Signal(sig); err != nil {
				t.Error(err)
			}
		}, "--root", root, "run", "-b", b, "c")
		if status != 128+int(sig) {
			t.Errorf("%v: got status %d", sig, status)
		}
	}
}

func TestExecOnTerminal(t *testing.T) {
	root := t.TempDir()
	b := terminalBundle(t, `exec sleep 1000`)
	socket := filepath.Join(t.TempDir(), "s")
	dir, err := os.Open(filepath.Dir(socket))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	r, err := tty.Listen(dir, "s")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	runv := func(args ...string) {
		t.Helper()
		c := exec.Command("/proc/self/exe", append([]string{"--root", root}, args...)...)
		c.Args[0] = "runv"
		c.Env = append(os.Environ(), "RUNV_KERNEL=/proc/self/exe")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
	}
	runv("run", "-d", "-b", b, "--console-socket", socket, "c")
	defer runv("delete", "-f", "c")
	master, err := r.Receive()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()

	ready := filepath.Join(t.TempDir(), "ready")
	shown, status := onTerminal(t, func(host *os.File, _ *exec.Cmd) {
		waitFor(t, ready)
		if _, err := host.WriteString("k"); err != nil {
			t.Error(err)
		}
	}, "--root", root, "exec", "-t", "c", "sh", "-c", "stty size; touch "+ready+"; head -c 1; exit 8")
	if status != 8 || !strings.Contains(shown, "24 80") || !strings.HasSuffix(shown, "k") {
		t.Errorf("got status %d, %q", status, shown)
	}

	// Detached: the stand-in passes a size that is set on the master on.
	runv("exec", "-d", "-t", "--console-socket", socket, "c", "sh", "-c",
		"echo up; while test \"$(stty size)\" != '40 120'; do sleep 0.01; done; echo resized")
	pty, err := r.Receive()
	if err != nil {
		t.Fatal(err)
	}
	defer pty.Close()
	if err := tty.SetSize(pty, 40, 120); err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(pty) // EIO once the stand-in, too, has gone
	if string(got) != "up\nresized\n" {
		t.Errorf("got %q", got)
	}
}
