package libvm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stdio replaces the standard streams for a call.
func stdio(t *testing.T, in string, call func()) (out string) {
	t.Helper()
	inR, inW, _ := os.Pipe()
	outR, outW, _ := os.Pipe()
	saved := []*os.File{os.Stdin, os.Stdout}
	dup0, _ := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 3)
	dup1, _ := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 3)
	os.Stdin, os.Stdout = inR, outW
	defer func() {
		os.Stdin, os.Stdout = saved[0], saved[1]
		_ = unix.Dup3(dup0, 0, 0) // exec replaces them by /dev/null
		_ = unix.Dup3(dup1, 1, 0)
		_, _ = unix.Close(dup0), unix.Close(dup1)
	}()
	if _, err := inW.WriteString(in); err != nil {
		t.Fatal(err)
	}
	_ = inW.Close()
	var b bytes.Buffer
	read := make(chan error, 1)
	go func() {
		_, err := io.Copy(&b, outR)
		read <- err
	}()
	call()
	_, _ = inR.Close(), outW.Close()
	if err := <-read; err != nil {
		t.Error(err)
	}
	return b.String()
}

func TestExecForeground(t *testing.T) {
	r, ctx := testRuntime(t), testContext(t)
	started(t, r, "c", "sleep", "1000")
	pidFile := filepath.Join(t.TempDir(), "pid")
	out := stdio(t, "hello", func() {
		o := ExecOptions{ID: "c", PidFile: pidFile}
		o.Process.Args = []string{"sh", "-c", "cat; echo $X; exit 5"}
		o.Process.Env = []string{"X=a,b"}
		status, err := r.Exec(ctx, o)
		if err != nil || status != 5 {
			t.Errorf("got %d, %v", status, err)
		}
	})
	if out != "helloa,b\n" {
		t.Errorf("got %q", out)
	}
	if b, err := os.ReadFile(pidFile); err != nil || string(b) != strconv.Itoa(os.Getpid()) {
		t.Errorf("pid file: got %q, %v", b, err)
	}
	o := ExecOptions{ID: "c"}
	o.Process.Args = []string{"nosuch"}
	if _, err := r.Exec(ctx, o); err == nil || !strings.Contains(err.Error(), `exec: "nosuch": executable file not found in $PATH`) {
		t.Errorf("got %v", err)
	}
}

// reap waits for an orphan that came to us, as the shim of an engine does.
func reap(t *testing.T, pid int) unix.WaitStatus {
	t.Helper()
	var ws unix.WaitStatus
	eventually(t, "end of "+strconv.Itoa(pid), func() bool {
		got, err := unix.Wait4(pid, &ws, unix.WNOHANG, nil)
		if err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		return got == pid
	})
	return ws
}

func execDetachedPid(t *testing.T, r *Runtime, args ...string) int {
	t.Helper()
	pidFile := filepath.Join(t.TempDir(), "pid")
	o := ExecOptions{ID: "c", Detach: true, PidFile: pidFile}
	o.Process.Args = args
	if status, err := r.Exec(testContext(t), o); err != nil || status != 0 {
		t.Fatalf("got %d, %v", status, err)
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestExecDetached(t *testing.T) {
	r := testRuntime(t)
	started(t, r, "c", "sleep", "1000")
	pid := execDetachedPid(t, r, "sh", "-c", "exit 9")
	if ws := reap(t, pid); ws.ExitStatus() != 9 {
		t.Errorf("got %v", ws)
	}

	// The stand-in passes signals on, and keeps no file of the caller.
	pid = execDetachedPid(t, r, "sleep", "1000")
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(files) < 4 {
		t.Fatalf("got %q, %v", files, err)
	}
	for _, f := range files[:3] {
		if target, err := os.Readlink(f); err != nil || target != "/dev/null" {
			t.Errorf("%s is %s (%v)", f, target, err)
		}
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if ws := reap(t, pid); ws.ExitStatus() != 143 {
		t.Errorf("got %v", ws)
	}

	// Its death is that of the process.
	dead := filepath.Join(t.TempDir(), "alive")
	pid = execDetachedPid(t, r, "sh", "-c", "while :; do touch "+dead+"; sleep 0.01; done")
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	reap(t, pid)
	eventually(t, "the process is gone", func() bool {
		_ = os.Remove(dead)
		time.Sleep(100 * time.Millisecond) // ten times the process's own period
		_, err := os.Stat(dead)
		return err != nil
	})

	// The container's end is its end.
	pid = execDetachedPid(t, r, "sleep", "1000")
	if err := r.Delete(testContext(t), "c", true); err != nil {
		t.Fatal(err)
	}
	if ws := reap(t, pid); ws.ExitStatus() != 137 {
		t.Errorf("got %v", ws)
	}
}

func TestExecTerminalRules(t *testing.T) {
	r, ctx := testRuntime(t), testContext(t)
	started(t, r, "c", "sleep", "1000")
	o := ExecOptions{ID: "c", Detach: true}
	o.Process.Args, o.Process.TTY = []string{"true"}, true
	if _, err := r.Exec(ctx, o); !errors.Is(err, errNoConsoleSocket) {
		t.Errorf("got %v", err)
	}
	o.Process.TTY, o.ConsoleSocket = false, "/s"
	if _, err := r.Exec(ctx, o); !errors.Is(err, errBadConsoleSocket) {
		t.Errorf("got %v", err)
	}
}
