package integration

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

// pidfdSocket receives a pidfd, as runc's own tests do.
type pidfdSocket struct {
	path string
	got  chan pidfd
}

type pidfd struct {
	fd      int
	message string
	err     error
}

func newPidfdSocket(t *testing.T) *pidfdSocket {
	t.Helper()
	s := &pidfdSocket{filepath.Join(t.TempDir(), "s"), make(chan pidfd, 1)}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) //nolint:errcheck // a socket
	go func() {
		c, err := l.AcceptUnix()
		if err != nil {
			s.got <- pidfd{err: err}
			return
		}
		defer c.Close() //nolint:errcheck // read from
		name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
		n, oobn, _, _, err := c.ReadMsgUnix(name, oob)
		p := pidfd{message: string(name[:n]), err: err}
		if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(msgs) == 1 {
			if fds, err := unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) == 1 {
				p.fd = fds[0]
			}
		}
		s.got <- p
	}()
	return s
}

// kill checks whose pidfd it is, and kills that.
func (s *pidfdSocket) kill(t *testing.T, message string, pid int) {
	t.Helper()
	p := <-s.got
	if p.err != nil || p.fd == 0 || p.message != message {
		t.Fatalf("got %+v, want a descriptor with %q", p, message)
	}
	defer unix.Close(p.fd) //nolint:errcheck // a pidfd
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", p.fd))
	if err != nil || !strings.Contains(string(info), fmt.Sprintf("\nPid:\t%d\n", pid)) {
		t.Errorf("not of %d: %s %v", pid, info, err)
	}
	if err := unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0); err != nil {
		t.Error(err)
	}
}

// TestPidfdSocket: the pidfd is that of the process in the pid file.
func TestPidfdSocket(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("sleep", "100000"))
	s := newPidfdSocket(t)
	c := r.CreateWith(b, []string{"--pidfd-socket", s.path}).Start()
	e := newPidfdSocket(t)
	pid := detached(t, c, nil, []string{"--pidfd-socket", e.path}, "sleep", "1000")
	e.kill(t, "setns", pid)
	if got := harness.Reap(t, pid); got != 137 {
		t.Errorf("status of exec: got %d, want 137", got)
	}
	s.kill(t, "standard", c.PID)
	if got := c.Wait(); got != 137 {
		t.Errorf("status: got %d, want 137", got)
	}
	c.Delete()
	// That of a run is of the monitor that it waits for.
	s = newPidfdSocket(t)
	b.Change(t, harness.Shell("echo up; sleep 100000 & wait"))
	pidFile := filepath.Join(r.Dir, "run.pid")
	cmd := r.Command("run", "--bundle", b.Dir, "--pid-file", pidFile, "--pidfd-socket", s.path, r.NewID())
	out := newOutput(t)
	cmd.Stdout = out.w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.expect("up\n")
	s.kill(t, "standard", harness.ReadPid(t, pidFile))
	if got := r.Wait(cmd); got != 137 {
		t.Errorf("status of run: got %d, want 137", got)
	}
}
