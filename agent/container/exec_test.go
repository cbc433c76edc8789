package container

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/wire"
)

// startExec starts a further process; its streams are read by the caller.
func (j *job) startExec(t *testing.T, id string, p *specs.Process) (in, out, errs io.ReadWriteCloser, err error) {
	t.Helper()
	b := wire.MarshalProcess(p)
	s := Stdio{Stdin: j.e.token("i" + id)}
	if !p.Terminal {
		s.Stdout, s.Stderr = j.e.token("o"+id), j.e.token("e"+id)
	}
	if _, err := j.c.Exec(&ExecRequest{ExecID: id, Process: b, Stdio: s}); err != nil {
		return nil, nil, nil, err
	}
	in = j.e.host(t, s.Stdin)
	if !p.Terminal {
		out, errs = j.e.host(t, s.Stdout), j.e.host(t, s.Stderr)
	}
	return in, out, errs, nil
}

func (j *job) exec(t *testing.T, id string, p *specs.Process) (string, string, Exit) {
	t.Helper()
	in, out, errs, err := j.startExec(t, id, p)
	if err != nil {
		t.Fatalf("exec %s: %v", id, err)
	}
	in.Close()
	o, e := readAll(out), readAll(errs)
	return <-o, <-e, j.wait(t, id)
}

func (e *env) sleeper(t *testing.T, change func(*specs.Spec)) *job {
	t.Helper()
	s := baseSpec("sleep", "1000")
	if change != nil {
		change(s)
	}
	j, err := e.create(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.c.Start(); err != nil {
		t.Fatal(err)
	}
	return j
}

func proc(args ...string) *specs.Process {
	return &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}}
}

func TestExecJoins(t *testing.T) {
	e := newEnv(t)
	j := e.sleeper(t, nil)
	p := proc("sh", "-c", "hostname; readlink /proc/self/ns/pid; cat /proc/self/cgroup | grep ^0; ls /proc/self/fd | tr '\\n' ' '; id -u; echo $HOME; umask; ulimit -n; grep -E 'Sig(Blk|Ign)|CapEff|CapBnd' /proc/self/status | cut -f2 | tr '\\n' ' '; exit 3")
	p.User.UID = 1000
	out, errs, x := j.exec(t, "x", p)
	f := strings.Fields(out)
	if len(f) < 7 || x.Status != 3 {
		t.Fatalf("%q %q %d", out, errs, x.Status)
	}
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", j.c.Pid()))
	if f[0] != "box" || f[1] != ns || err != nil {
		t.Errorf("in %q, want the container's namespaces: box, %s %v", f[:2], ns, err)
	}
	if got, want := strings.Join(f[2:], " "), "0::/ 0 1 2 3 1000 /home/u 0022 1024 0000000000000000 "+inheritedIgnores(t)+" 0000000000000000 00000000000000e3"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if x.Stdout != uint64(len(out)) {
		t.Errorf("counted %d of %d bytes", x.Stdout, len(out))
	}
}

func TestExecWords(t *testing.T) {
	e := newEnv(t)
	j := e.sleeper(t, nil)
	nobody := proc("/root/x")
	nobody.User.UID, nobody.Capabilities = 1000, &specs.LinuxCapabilities{}
	if err := os.MkdirAll(e.m.Trees+"/k/rootfs/root", 0o700); err != nil || os.Chmod(e.m.Trees+"/k/rootfs/root", 0o700) != nil {
		t.Fatal(err)
	}
	nowhere := proc("true")
	nowhere.Cwd = "/nowhere"
	tests := []struct {
		name string
		p    *specs.Process
		want string
	}{
		{"not found", proc("nosuch"), `exec: "nosuch": executable file not found in $PATH`},
		{"no file", proc("/nosuch"), `exec: "/nosuch": stat /nosuch: no such file or directory`},
		{"no permission", proc("/bin/notexec"), `exec: "/bin/notexec": permission denied`},
		{"directory", proc("/bin"), `exec: "/bin": is a directory`},
		{"hidden", nobody, `exec: "/root/x": stat /root/x: permission denied`},
		{"format", proc("/bin/badformat"), "exec /bin/badformat: exec format error"},
		{"cwd", nowhere, `chdir to cwd ("/nowhere") set in config.json failed: no such file or directory`},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, _, err := j.startExec(t, fmt.Sprint("w", i), tt.p)
			if want := "unable to start container process: " + tt.want; err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

func TestManyExecs(t *testing.T) {
	e := newEnv(t)
	j := e.sleeper(t, nil)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			want := fmt.Sprint("n", i)
			out, errs, x := j.exec(t, want, proc("sh", "-c", fmt.Sprintf("echo %s; exit %d", want, i)))
			if out != want+"\n" || x.Status != i {
				t.Errorf("exec %d: %q %q %d", i, out, errs, x.Status)
			}
		})
	}
	wg.Wait()
}

// A process that leaves another one behind with its stdout has ended all the
// same, and its own output is all there.
func TestExecEndsBeforeItsBackgroundChild(t *testing.T) {
	e := newEnv(t)
	j := e.sleeper(t, nil)
	_, out, _, err := j.startExec(t, "bg", proc("sh", "-c", "echo own; sleep 1000 & exit 4"))
	if err != nil {
		t.Fatal(err)
	}
	x := j.wait(t, "bg")
	if x.Status != 4 || x.Stdout != 4 {
		t.Fatalf("%+v", x)
	}
	b := make([]byte, x.Stdout)
	if _, err := io.ReadFull(out, b); err != nil || string(b) != "own\n" {
		t.Errorf("%q %v", b, err)
	}
}

func TestTerminal(t *testing.T) {
	e := newEnv(t)
	s := baseSpec("sh", "-c", "tty; stty size; stat -c %F /dev/console; printf 'a\\nb'; read x; stty size; exit 5")
	s.Process.Terminal = true
	s.Process.ConsoleSize = &specs.Box{Height: 10, Width: 20}
	j, err := e.create(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.c.Resize("", 33, 44); err != nil { // before the start
		t.Fatal(err)
	}
	if err := j.c.Start(); err != nil {
		t.Fatal(err)
	}
	want := "/dev/pts/0\n33 44\ncharacter special file\na\nb"
	b := make([]byte, len(want))
	if _, err := io.ReadFull(j.stdin, b); err != nil || string(b) != want {
		t.Fatalf("%q %v, want %q", b, err, want)
	}
	if err := j.c.Resize("", 5, 6); err != nil {
		t.Fatal(err)
	}
	if _, err := j.stdin.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	rest := <-readAll(j.stdin)
	if rest != "\n5 6\n" { // the echo has no CR either
		t.Errorf("%q", rest)
	}
	x := j.wait(t, "")
	if x.Status != 5 || x.Stdout != uint64(len(want)+len(rest)) {
		t.Errorf("%+v", x)
	}
}

func TestExecTerminal(t *testing.T) {
	e := newEnv(t)
	j := e.sleeper(t, nil)
	p := proc("sh", "-c", "read x; echo got $x; tty; sleep 1000 & exit 6")
	p.Terminal = true
	tty, _, _, err := j.startExec(t, "t", p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tty.Write([]byte("word\n")); err != nil {
		t.Fatal(err)
	}
	x := j.wait(t, "t")
	want := "word\ngot word\n/dev/pts/0\n"
	if x.Status != 6 || x.Stdout != uint64(len(want)) {
		t.Errorf("%+v", x)
	}
	b := make([]byte, len(want))
	if _, err := io.ReadFull(tty, b); err != nil || string(b) != want {
		t.Errorf("%q %v", b, err)
	}
}

// Closing the connection hangs the terminal up.
func TestHangUp(t *testing.T) {
	e := newEnv(t)
	s := baseSpec("sh", "-c", "echo ready; read x; sleep 1000")
	s.Process.Terminal = true
	j, err := e.create(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.c.Start(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 6)
	if _, err := io.ReadFull(j.stdin, b); err != nil {
		t.Fatal(err)
	}
	j.stdin.Close()
	if err := j.c.Signal("", unix.Signal(0), false); err != nil {
		t.Logf("already gone: %v", err)
	}
	// The shell is pid 1: it has no handler for SIGHUP, but its read ends.
	_ = j.c.Signal("", unix.SIGKILL, false)
	if x := j.wait(t, ""); x.Status != 137 && x.Status != 129 {
		t.Errorf("%+v", x)
	}
}

// The reader on the host goes away: the process gets SIGPIPE, as from a pipe.
func TestReaderGone(t *testing.T) {
	e := newEnv(t)
	j := e.sleeper(t, nil)
	_, out, _, err := j.startExec(t, "y", proc("yes"))
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if _, err := io.ReadFull(out, b); err != nil {
		t.Fatal(err)
	}
	out.Close()
	if x := j.wait(t, "y"); x.Status != 128+int(unix.SIGPIPE) {
		t.Errorf("%+v", x)
	}
}

// A process that closes stdout gives EOF to the host at once.
func TestEarlyEOF(t *testing.T) {
	e := newEnv(t)
	j := e.sleeper(t, nil)
	_, out, _, err := j.startExec(t, "c", proc("sh", "-c", "echo x; exec >&-; sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	if got := <-readAll(out); got != "x\n" {
		t.Errorf("%q", got)
	}
	if err := j.c.Signal("c", unix.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if x := j.wait(t, "c"); x.Status != 143 {
		t.Errorf("%+v", x)
	}
}

func TestProcesses(t *testing.T) {
	e := newEnv(t)
	j := e.sleeper(t, nil)
	if _, _, _, err := j.startExec(t, "p", proc("sleep", "2000")); err != nil {
		t.Fatal(err)
	}
	list, err := j.c.Processes()
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v %v", list, err)
	}
	if p := list[0]; p.ContainerPid != 1 || p.Args != "sleep 1000" || p.Comm != "sleep" || p.PPid != os.Getpid() {
		t.Errorf("%+v", p)
	}
	if p := list[1]; p.ContainerPid == 1 || p.ContainerPid == p.Pid || p.Args != "sleep 2000" {
		t.Errorf("%+v", p)
	}
}

// Containers come and go without leaving anything.
func TestNothingIsLeft(t *testing.T) {
	e := newEnv(t)
	before := count(t, "/proc/self/fd")
	for range 10 {
		s := baseSpec("true")
		s.Linux.CgroupsPath = "/runv-left/a/b"
		j, err := e.create(t, s)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, x := j.finish(t); x.Status != 0 {
			t.Fatal(x)
		}
		if err := e.m.Delete(t.Context(), j.c.id); err != nil {
			t.Fatal(err)
		}
		j.stdin.Close()
		j.stdout.Close()
		j.stderr.Close()
		if _, err := e.create(t, baseSpec("nosuch")); err == nil {
			t.Fatal("created without an executable")
		}
	}
	if _, err := os.Stat(e.m.CgroupRoot + "/runv-left"); err == nil {
		t.Error("a cgroup is left")
	}
	if after := count(t, "/proc/self/fd"); after > before+2 {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func count(t *testing.T, dir string) int {
	t.Helper()
	e, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}
