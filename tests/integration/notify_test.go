package integration

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

// systemd listens as the service manager would.
type systemd struct {
	conn *net.UnixConn
	got  chan string // of each datagram
}

func newSystemd(t *testing.T, r *harness.Runtime) *systemd {
	t.Helper()
	path := filepath.Join(r.Dir, "notify.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() }) //nolint:errcheck // at the end
	s := &systemd{conn, make(chan string, 100)}
	go func() { // ends with the connection
		b, oob := make([]byte, 4096), make([]byte, 4096)
		for {
			n, oobn, _, _, err := conn.ReadMsgUnix(b, oob)
			if err != nil {
				return
			}
			s.got <- string(b[:n])
			if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(msgs) > 0 {
				fds, _ := unix.ParseUnixRights(&msgs[0])
				for _, fd := range fds {
					_ = unix.Close(fd) // the barrier
				}
			}
		}
	}()
	r.Env = append(r.Env, "NOTIFY_SOCKET="+path)
	return s
}

func (s *systemd) expect(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-s.got:
			if got != w {
				t.Errorf("got %q, want %q", got, w)
			}
		case <-time.After(harness.Limit):
			t.Fatalf("nothing came, want %q", w)
		}
	}
}

// TestNotifySocket: start waits until the container has said that it is ready,
// and then says so itself, with the pid that is the container to the host.
func TestNotifySocket(t *testing.T) {
	r := newRuntime(t)
	s := newSystemd(t, r)
	// In the container it is as under runc.
	b := withProbe(t, r.NewBundle(harness.Shell(`echo $NOTIFY_SOCKET; stat -c '%F %a' $NOTIFY_SOCKET; touch /run/notify/x
		notify STATUS=starting "READY=0"; until test -e /go; do sleep 0.02; done
		notify "READY=1
STATUS=up" WATCHDOG=1 READY=1; echo said; exec sleep 1000`)), "notify")
	out := newOutput(t)
	c := r.Create(b, nil, out.w, out.w)
	start := r.Command("start", c.ID)
	if err := start.Start(); err != nil {
		t.Fatal(err)
	}
	out.expect("/run/notify/notify.sock\nsocket 777\ntouch: /run/notify/x: Read-only file system\n")
	if got := c.State().Status; got != "running" {
		t.Errorf("status: got %q", got)
	}
	select {
	case got := <-s.got:
		t.Errorf("before it is ready: got %q", got)
	default:
	}
	c.Output("touch /go")
	s.expect(t, "READY=1\n", fmt.Sprintf("MAINPID=%d\n", c.PID), "BARRIER=1")
	if got := r.Wait(start); got != 0 {
		t.Errorf("start: status %d", got)
	}
	out.expect("said\n")
	c.End()
}

func TestNotifySocketOfRun(t *testing.T) {
	r := newRuntime(t)
	s := newSystemd(t, r)
	t.Run("in the foreground", func(t *testing.T) {
		r.In(t)
		b := withProbe(t, r.NewBundle(harness.Shell("notify READY=1; exit 3")), "notify")
		if got := r.Run("run", "--pid-file", "pid", "--bundle", b.Dir, r.NewID()); got.Status != 3 || got.Stderr != "" {
			t.Errorf("got %+v", got)
		}
		s.expect(t, "READY=1\n", fmt.Sprintf("MAINPID=%d\n", harness.ReadPid(t, filepath.Join(r.Dir, "pid"))), "BARRIER=1")
	})
	t.Run("detached, and it ends without a word", func(t *testing.T) {
		r.In(t)
		b := r.NewBundle(harness.Args("sleep", "0.2"))
		cmd := r.Command("run", "--detach", "--pid-file", "pid2", "--bundle", b.Dir, "quiet")
		stderr := r.ErrorFile(cmd)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if got := r.Wait(cmd); got != 0 {
			t.Errorf("status %d, stderr %q", got, stderr())
		}
		harness.Reap(t, harness.ReadPid(t, filepath.Join(r.Dir, "pid2")))
		r.Must("delete", "quiet")
	})
	select {
	case got := <-s.got:
		t.Errorf("more: %q", got)
	default:
	}
}

// TestNotifySocketErrors: what cannot be relayed is said before anything runs.
func TestNotifySocketErrors(t *testing.T) {
	r := newRuntime(t)
	c := r.Create(r.NewBundle(harness.Args("sleep", "1000")))
	env := r.Env
	s := newSystemd(t, r)
	got := r.Run("start", c.ID)
	if got.Status != 1 || !strings.Contains(got.Stderr, "NOTIFY_SOCKET is set, but was not when the container was created") {
		t.Errorf("without a socket in the container: got %+v", got)
	}
	s.conn.Close()
	r.Env = append(env[:len(env):len(env)], "NOTIFY_SOCKET="+filepath.Join(r.Dir, "none"))
	if got := r.Run("start", c.ID); got.Status != 1 || !strings.Contains(got.Stderr, "NOTIFY_SOCKET: dial unixgram") {
		t.Errorf("without a listener: got %+v", got)
	}
	if got := c.State().Status; got != "created" {
		t.Errorf("status: got %q", got)
	}
	r.Env = env
	c.Start().End()
}
