package integration

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

// socketPair returns a socket to pass on, and its peer.
func socketPair(t *testing.T) (*os.File, *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[1]), "peer")
	c, err := net.FileConn(f)
	f.Close() //nolint:errcheck // FileConn made a duplicate
	if err != nil {
		t.Fatal(err)
	}
	ours := os.NewFile(uintptr(fds[0]), "socket")
	t.Cleanup(func() {
		c.Close()    //nolint:errcheck // it may be closed
		ours.Close() //nolint:errcheck // as above
	})
	c.SetDeadline(time.Now().Add(harness.Limit)) //nolint:errcheck // the test tells
	return ours, c.(*net.UnixConn)
}

// fed returns a pipe out of which text comes.
func fed(t *testing.T, text string) *os.File {
	t.Helper()
	o := newOutput(t)
	if _, err := o.w.WriteString(text); err != nil {
		t.Fatal(err)
	}
	o.w.Close() //nolint:errcheck // the end
	return o.r
}

// preserved runs a prepared command with a pipe to read as descriptor 3, one to
// write as 4, a socket as 5, a file to read as 6, one to append to as 7, and
// /dev/null as 8. It returns all that came out.
func preserved(t *testing.T, cmd *exec.Cmd, dir string) string {
	t.Helper()
	read, appended := filepath.Join(dir, "read"), filepath.Join(dir, "appended")
	for _, name := range []string{read, appended} {
		if err := os.WriteFile(name, []byte("file\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openFile := func(name string, flags int) *os.File {
		f, err := os.OpenFile(name, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() }) //nolint:errcheck // the process has its own
		return f
	}
	out := newOutput(t)
	socket, peer := socketPair(t)
	cmd.ExtraFiles = []*os.File{
		fed(t, "pipe\n"), out.w, socket, openFile(read, os.O_RDONLY),
		openFile(appended, os.O_WRONLY|os.O_APPEND), openFile(os.DevNull, os.O_RDWR),
	}
	stdout, stderr := newOutput(t), newOutput(t)
	cmd.Stdout, cmd.Stderr = stdout.w, stderr.w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{out.w, socket, stdout.w, stderr.w} {
		f.Close() //nolint:errcheck // the process has its own
	}
	fmt.Fprintln(peer, "question") //nolint:errcheck // the answer tells
	peer.CloseWrite()              //nolint:errcheck // as above
	var all strings.Builder
	for _, from := range []io.Reader{peer, out.r, stdout.r, stderr.r} {
		got, err := io.ReadAll(from)
		fmt.Fprintf(&all, "%s--- %v\n", got, err)
	}
	err := cmd.Wait()
	file, _ := os.ReadFile(appended)
	fmt.Fprintf(&all, "%s%v\n", file, err)
	// What is a file to runc is a pipe in a guest.
	return strings.NewReplacer(read, "pipe", appended, "pipe").Replace(all.String())
}

const preservedScript = `
for fd in 3 4 5 6 7 8; do readlink /proc/self/fd/$fd | sed 's/:.*//'; done
cat <&3; echo written >&4
cat <&5; echo answer >&5
cat <&6; echo line >&7; cat <&8; echo lost >&8
echo $LISTEN_FDS $LISTEN_PID; exit 5`

// TestPreserveFDs: what comes through is what comes through with runc, also by
// LISTEN_FDS.
func TestPreserveFDs(t *testing.T) {
	for _, tt := range []struct {
		name     string
		preserve string
		listen   string
	}{
		{"preserve-fds", "6", ""},
		{"both", "4", "2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRuntime(t)
			b := r.NewBundle(harness.Shell(preservedScript), func(s *specs.Spec) { s.Process.Rlimits = nil })
			run := func(runtime ...string) string {
				args := append(runtime, "run", "--bundle", b.Dir, "--preserve-fds", tt.preserve, r.NewID())
				cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh"}, args...)...)
				cmd.Env = append(append(os.Environ(), r.Env...), "LISTEN_FDS="+tt.listen)
				return preserved(t, cmd, t.TempDir())
			}
			ours := run(r.Setup.Runv, "--root", r.Root)
			want := "answer\n--- <nil>\nwritten\n--- <nil>\npipe\npipe\nsocket\npipe\npipe\n/dev/null\npipe\nquestion\nfile\n" +
				strings.TrimSpace(tt.listen+map[bool]string{true: " 1"}[tt.listen != ""]) + "\n--- <nil>\n--- <nil>\nfile\nline\nexit status 5\n"
			if diff := cmp.Diff(want, ours); diff != "" {
				t.Errorf("-want +runv:\n%s", diff)
			}
			theirs := run("runc", "--root", filepath.Join(r.Dir, "runc"))
			if strings.Contains(theirs, "runc run failed") {
				t.Skipf("runc does not run here: %s", theirs)
			}
			if diff := cmp.Diff(theirs, ours); diff != "" {
				t.Errorf("-runc +runv:\n%s", diff)
			}
		})
	}
}

// TestPreserveFDsWhole: all that was written is there before the exit is told,
// however slow it is read, through a pipe and through a socket, and the writer
// waits for the reader.
func TestPreserveFDsWhole(t *testing.T) {
	const total = 16 << 20
	r := newRuntime(t)
	b := r.NewBundle(harness.Shell("cat /data >&3 & cat /data >&4; wait; exit 3"))
	data := make([]byte, total)
	rand.Read(data) //nolint:errcheck // never fails
	if err := os.WriteFile(b.Rootfs+"/data", data, 0o600); err != nil {
		t.Fatal(err)
	}
	out := newOutput(t)
	socket, peer := socketPair(t)
	cmd := r.Command("run", "--bundle", b.Dir, "--preserve-fds", "2", r.NewID())
	cmd.ExtraFiles = []*os.File{out.w, socket}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.w.Close()  //nolint:errcheck // the container has its own
	socket.Close() //nolint:errcheck // as above
	type result struct {
		name string
		got  []byte
		err  error
	}
	results := make(chan result, 2)
	for name, from := range map[string]io.Reader{"pipe": out.r, "socket": peer} {
		go func() {
			var b bytes.Buffer
			for {
				n, err := io.CopyN(&b, from, 1<<20)
				if err == nil && n > 0 {
					time.Sleep(10 * time.Millisecond) // a reader with other things to do
					continue
				}
				if errors.Is(err, io.EOF) {
					err = nil
				}
				results <- result{name, b.Bytes(), err}
				return
			}
		}()
	}
	for range 2 {
		if res := <-results; res.err != nil || !bytes.Equal(res.got, data) {
			t.Errorf("%s: %d bytes of %d, %v", res.name, len(res.got), total, res.err)
		}
	}
	if got := r.Wait(cmd); got != 3 {
		t.Errorf("status: got %d, want 3", got)
	}
}

// TestPreserveFDsReaderGoes: the writer gets SIGPIPE.
func TestPreserveFDsReaderGoes(t *testing.T) {
	r := newRuntime(t)
	out := newOutput(t)
	socket, peer := socketPair(t)
	b := r.NewBundle(harness.Shell("yes >&3; echo $?; yes >&4; echo $?"))
	stdout := newOutput(t)
	cmd := r.Command("run", "--bundle", b.Dir, "--preserve-fds", "2", r.NewID())
	cmd.ExtraFiles, cmd.Stdout = []*os.File{out.w, socket}, stdout.w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.w.Close()  //nolint:errcheck // the container has its own
	socket.Close() //nolint:errcheck // as above
	out.expect("y\n")
	out.r.Close() //nolint:errcheck // nobody reads from now on
	if n, err := peer.Read(make([]byte, 10)); err != nil || n == 0 {
		t.Errorf("socket: %d, %v", n, err)
	}
	peer.Close() //nolint:errcheck // as above
	// The applet's own write fails with EPIPE if the signal is ignored.
	first, second := stdout.expect("\n"), stdout.expect("\n")
	for _, got := range []string{first, second} {
		if got != "141\n" && got != "1\n" {
			t.Errorf("status of the writer: got %q, want 141", got)
		}
	}
	if got := r.Wait(cmd); got != 0 {
		t.Errorf("status: got %d, want 0", got)
	}
}

// TestPreserveFDsMany: more than there can be connections without a token.
func TestPreserveFDsMany(t *testing.T) {
	const n = 150
	r := newRuntime(t)
	b := r.NewBundle(harness.Shell("i=3; while [ $i -lt " + strconv.Itoa(3+n) + " ]; do eval \"echo $i >&$i\"; i=$((i+1)); done; ls /proc/self/fd | wc -l"))
	cmd := r.Command("run", "--bundle", b.Dir, "--preserve-fds", strconv.Itoa(n), r.NewID())
	outs := make([]*output, n)
	for i := range outs {
		outs[i] = newOutput(t)
		cmd.ExtraFiles = append(cmd.ExtraFiles, outs[i].w)
	}
	res := r.Finish(cmd)
	if res.Status != 0 || res.Stdout != strconv.Itoa(3+n+1)+"\n" {
		t.Fatalf("got %+v", res)
	}
	for i, o := range outs {
		o.w.Close() //nolint:errcheck // the container has its own
		if got, err := io.ReadAll(o.r); err != nil || string(got) != strconv.Itoa(3+i)+"\n" {
			t.Errorf("descriptor %d: got %q, %v", 3+i, got, err)
		}
	}
}

// TestExecPreserveFDs: the files are those of exec, and nobody but the process
// and its children keeps them.
func TestExecPreserveFDs(t *testing.T) {
	c := sleeper(t)
	defer c.End()
	r := c.Runtime
	t.Run("foreground", func(t *testing.T) {
		r.In(t)
		cmd := r.Command("exec", "--preserve-fds", "6", c.ID, "sh", "-c", preservedScript)
		got := preserved(t, cmd, t.TempDir())
		want := "answer\n--- <nil>\nwritten\n--- <nil>\npipe\npipe\nsocket\npipe\npipe\n/dev/null\npipe\nquestion\nfile\n\n--- <nil>\n--- <nil>\nfile\nline\nexit status 5\n"
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
	t.Run("a child keeps them", func(t *testing.T) {
		r.In(t)
		in, out := newOutput(t), newOutput(t)
		socket, peer := socketPair(t)
		cmd := r.Command("exec", "--preserve-fds", "3", c.ID, "sh", "-c",
			"echo first >&4; (read x <&3; echo $x >&4; read y <&5; echo $y >&5) >/dev/null 2>&1 & exit 7")
		cmd.ExtraFiles = []*os.File{in.r, out.w, socket}
		if got := r.Finish(cmd); got.Status != 7 {
			t.Fatalf("got %+v", got)
		}
		for _, f := range []*os.File{in.r, out.w, socket} {
			f.Close() //nolint:errcheck // the process has its own
		}
		out.expect("first\n")
		in.w.WriteString("second\n") //nolint:errcheck // the next tells
		out.expect("second\n")
		fmt.Fprintln(peer, "third") //nolint:errcheck // the next tells
		if got, err := io.ReadAll(peer); err != nil || string(got) != "third\n" {
			t.Errorf("socket: got %q, %v", got, err)
		}
		if got, err := io.ReadAll(out.r); err != nil || len(got) != 0 {
			t.Errorf("behind the end: %q, %v", got, err)
		}
		// Nobody is left to read.
		harness.Within(t, harness.Limit, "the pipe breaks", func() bool {
			_, err := in.w.WriteString("x")
			return err != nil
		})
	})
	t.Run("detached", func(t *testing.T) {
		r.In(t)
		out := newOutput(t)
		pidFile := filepath.Join(r.Dir, "exec-"+r.NewID())
		cmd := r.Command("exec", "--detach", "--pid-file", pidFile, "--preserve-fds", "3", c.ID, "sh", "-c", "echo here >&5; exec 5>&-; sleep 1000")
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close() //nolint:errcheck // read only
		cmd.ExtraFiles = []*os.File{null, null, out.w}
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		out.w.Close() //nolint:errcheck // the process has its own
		// The stand-in lives, and does not hold it.
		if got, err := io.ReadAll(out.r); err != nil || string(got) != "here\n" {
			t.Errorf("got %q, %v", got, err)
		}
		pid := harness.ReadPid(t, pidFile)
		unix.Kill(pid, unix.SIGKILL) //nolint:errcheck // the status tells
		if got := harness.Reap(t, pid); got != 137 {
			t.Errorf("status: got %d, want 137", got)
		}
	})
	t.Run("terminal", func(t *testing.T) {
		r.In(t)
		s := r.NewConsoleSocket()
		out := newOutput(t)
		pidFile := filepath.Join(r.Dir, "exec-"+r.NewID())
		cmd := r.Command("exec", "--detach", "--tty", "--console-socket", s.Path, "--pid-file", pidFile, "--preserve-fds", "2", c.ID,
			"sh", "-c", "read x <&3; echo $x; test -t 0 && echo tty >&4; exit 9")
		cmd.ExtraFiles = []*os.File{fed(t, "by pipe\n"), out.w}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		out.w.Close() //nolint:errcheck // the process has its own
		pty := s.Receive()
		pty.Expect("by pipe")
		out.expect("tty\n")
		if got := r.Wait(cmd); got != 0 {
			t.Errorf("status: got %d, want 0", got)
		}
		if got := harness.Reap(t, harness.ReadPid(t, pidFile)); got != 9 {
			t.Errorf("status: got %d, want 9", got)
		}
	})
}
