package integration

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/tests/harness"
)

// onTerminal starts a command whose controlling terminal is a new one.
func onTerminal(t *testing.T, cmd *exec.Cmd, rows, cols uint16) *harness.Pty {
	t.Helper()
	p := harness.NewPty(t)
	p.Resize(rows, cols)
	slave := p.Slave()
	defer slave.Close() //nolint:errcheck // the command has its own
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// plainShell is a shell with a prompt that no other output looks like.
func plainShell(s *specs.Spec) {
	s.Process.Terminal = true
	s.Process.Args = []string{"sh"}
	s.Process.Env = []string{"PATH=/bin", "PS1=<$?>", "TERM=vt100"}
}

// use goes through what somebody at a terminal does.
func use(t *testing.T, p *harness.Pty) {
	t.Helper()
	p.Expect("<0>")
	p.Type("tty; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo is''tty\n")
	p.Expect("istty")
	p.Expect("<0>")
	p.Type("stty size\n")
	p.Expect("30 100")
	p.Resize(41, 77)
	// The shell may draw its line anew at any place for the new size.
	p.Type("until stty size | grep '41'' 77'; do sleep 0.05; done\n")
	p.Expect("41 77")
	p.Expect("<0>")
	// Ctrl-C ends the foreground job and not the shell.
	p.Type("sh -c 'echo go\"\"ing; exec sleep 1000'\n")
	p.Expect("going")
	p.Type("\x03")
	p.Expect("<130>")
	// Job control: Ctrl-Z stops a job, fg goes on with it.
	p.Type("sh -c 'echo go\"\"ing; exec cat >/tmp/cat'\n")
	p.Expect("going")
	p.Type("\x1a")
	p.Expect("Stopped")
	p.Expect("cat >/tmp/cat")
	p.Expect("<148>")
	p.Type("fg\n")
	p.Expect("cat >/tmp/cat")
	p.Type("typed\n\x04")
	p.Expect("<0>")
	p.Type("cat /tmp/cat | tr a-z A-Z\n")
	p.Expect("TYPED")
	p.Expect("<0>")
	p.Type("vi /tmp/te''xt\n")
	p.Expect("/tmp/text 1/1 100%")
	// Key by key, as a person: it takes what comes with an escape for one key.
	p.Type("i")
	p.Expect("I /tmp/text")
	p.Type("hello from vi")
	p.Expect("hello from vi")
	p.Type("\x1b")
	p.Expect("- /tmp/text [Modified]")
	p.Type(":wq\n")
	p.Expect("<0>")
	p.Type("cat /tmp/text\n")
	p.Expect("hello from vi")
	p.Expect("<0>")
}

func TestTerminal(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(plainShell)
	cmd := r.Command("run", "--bundle", b.Dir, r.NewID())
	p := onTerminal(t, cmd, 30, 100)
	use(t, p)
	if got, err := os.ReadFile(b.Rootfs + "/tmp/text"); err != nil || string(got) != "hello from vi\n" {
		t.Errorf("the file on the host: %q, %v", got, err)
	}
	p.Type("exit 12\n")
	if got := r.Wait(cmd); got != 12 {
		t.Errorf("status: got %d, want 12", got)
	}
}

func TestTerminalOfExec(t *testing.T) {
	c := sleeper(t)
	defer c.End()
	cmd := c.Runtime.Command("exec", "--tty", "--env", `PS1=<$?>`, "--env", "TERM=vt100", c.ID, "sh")
	p := onTerminal(t, cmd, 30, 100)
	use(t, p)
	p.Type("exit 13\n")
	if got := c.Runtime.Wait(cmd); got != 13 {
		t.Errorf("status: got %d, want 13", got)
	}
}

// TestTerminalOutput: with runc's terminals a line ends in one newline.
func TestTerminalOutput(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Terminal, harness.Shell("echo one; echo two; stty -a | tr ' ' '\\n' | grep -e onlcr -e opost"))
	sock := r.NewConsoleSocket()
	c := r.CreateWith(b, []string{"--console-socket", sock.Path})
	p := sock.Receive()
	p.Resize(24, 80)
	c.Start()
	if got, want := p.All(), "one\ntwo\nopost\n-onlcr\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := c.Wait(); got != 0 {
		t.Errorf("status: got %d, want 0", got)
	}
	c.Delete()
}

func TestConsoleSocket(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(plainShell)
	sock := r.NewConsoleSocket()
	c := r.CreateWith(b, []string{"--console-socket", sock.Path})
	p := sock.Receive()
	p.Resize(30, 100) // before the start
	c.Start()
	use(t, p)

	execSock := r.NewConsoleSocket()
	pid := detached(t, c, nil, []string{"--tty", "--console-socket", execSock.Path, "--env", `PS1=<$?>`, "--env", "TERM=vt100"}, "sh")
	e := execSock.Receive()
	e.Resize(30, 100)
	e.Type("until stty size | grep '30'' 100'; do sleep 0.05; done\n")
	e.Expect("30 100")
	use(t, e)
	e.Type("exit 3\n")
	if got := harness.Reap(t, pid); got != 3 {
		t.Errorf("status of exec: got %d, want 3", got)
	}
	p.Type("exit 14\n")
	if got := c.Wait(); got != 14 {
		t.Errorf("status: got %d, want 14", got)
	}
	c.Delete()
}

func TestConsoleSize(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Terminal, harness.Shell("stty size"), func(s *specs.Spec) {
		s.Process.ConsoleSize = &specs.Box{Height: 11, Width: 22}
	})
	sock := r.NewConsoleSocket()
	c := r.CreateWith(b, []string{"--console-socket", sock.Path})
	p := sock.Receive()
	if rows, cols := p.Size(); rows != 11 || cols != 22 {
		t.Errorf("the terminal's size: got %d %d, want 11 22", rows, cols)
	}
	c.Start()
	p.Expect("11 22")
	c.Wait()
	c.Delete()
}

// TestHangUp: a terminal whose master is closed ends what has it as its own.
func TestHangUp(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(plainShell)
	sock := r.NewConsoleSocket()
	c := r.CreateWith(b, []string{"--console-socket", sock.Path})
	p := sock.Receive()
	c.Start()
	p.Expect("<0>")
	p.Close()
	if got := c.Wait(); got != 129 && got != 0 && got != 1 {
		t.Errorf("status: got %d, want the shell's after a hang-up", got)
	}
	c.Delete()
}

func TestTerminalWithoutOne(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Terminal, harness.Args("true"))
	sock := r.NewConsoleSocket()
	refused(t, r, "cannot allocate tty if runv will detach without setting console socket", 1, "create", "--bundle", b.Dir, r.NewID())
	refused(t, r, "cannot use console socket if runv will not detach or allocate tty", 1, "run", "--console-socket", sock.Path, "--bundle", b.Dir, r.NewID())
	refused(t, r, "no such file or directory", 1, "create", "--console-socket", "/no/such", "--bundle", b.Dir, r.NewID())
	b.Change(t, func(s *specs.Spec) { s.Process.Terminal = false })
	refused(t, r, "cannot use console socket if runv will not detach or allocate tty", 1, "create", "--console-socket", sock.Path, "--bundle", b.Dir, r.NewID())
	if entries, err := os.ReadDir(r.Root); err == nil && len(entries) > 0 {
		t.Errorf("left: %v", entries)
	}
}

// TestTerminalIsRestored: the caller gets its terminal back as it was.
func TestTerminalIsRestored(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Terminal, harness.Args("true"))
	// A shell that outlives runv on the same terminal tells.
	script := `before=$(stty -g); "$@"; [ "$before" = "$(stty -g)" ] && echo same || echo changed`
	runv := r.Command("run", "--bundle", b.Dir, r.NewID())
	cmd := exec.Command("sh", append([]string{"-c", script, "sh"}, runv.Args...)...)
	cmd.Args[4] = r.Setup.Runv
	cmd.Env, cmd.Dir = runv.Env, runv.Dir
	p := onTerminal(t, cmd, 24, 80)
	if got := p.All(); !strings.Contains(got, "same") {
		t.Errorf("got %q", got)
	}
	r.Wait(cmd)
}
