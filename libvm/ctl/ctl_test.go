package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/libvm/state"
)

func TestCalls(t *testing.T) {
	f, dir := serve(t)
	ctx := testContext(t)
	c := dial(t, dir)
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(ctx); !errors.Is(err, state.ErrRunning) {
		t.Errorf("second start: got %v", err)
	}
	if err := c.Signal(ctx, 15, true); err != nil {
		t.Error(err)
	}
	if err := c.Signal(ctx, 99, false); err == nil || err.Error() != "odd signal" {
		t.Errorf("got %v", err)
	}
	if err := c.Pause(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Resume(ctx); !errors.Is(err, state.ErrNotPaused) {
		t.Errorf("resume: got %v", err)
	}
	limit := int64(7)
	if err := c.Update(ctx, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}); err != nil {
		t.Error(err)
	}
	if err := c.Update(ctx, &specs.LinuxResources{}); !errors.Is(err, state.ErrNotRunning) {
		t.Errorf("update: got %v", err)
	}
	if err := c.Update(ctx, nil); err == nil {
		t.Error("an update without resources is one")
	}
	if m, err := c.Metrics(ctx); err != nil || m["cpu.stat"] != "usage_usec 1" {
		t.Errorf("metrics: got %q, %v", m, err)
	}
	if killed, ended, err := c.AwaitOOM(ctx, 3); err != nil || killed != 5 || !ended {
		t.Errorf("oom: got %d, %v, %v", killed, ended, err)
	}
	if place, err := c.Place(ctx); err != nil || place.Path != "/x" || len(place.Made) != 1 {
		t.Errorf("place: got %+v, %v", place, err)
	}
	ps, err := c.Processes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Process{{PID: 300, ContainerPID: 1, UID: 5, Comm: "sh", Args: "sh -c x"}}, ps); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"signal 15 true", "signal 99 false", "pause", "update 7"}, f.calls); diff != "" {
		t.Error(diff)
	}
	if pid, err := c.MonitorPID(); err != nil || pid != os.Getpid() {
		t.Errorf("MonitorPID: got %d, %v", pid, err)
	}
}

func TestDialNobody(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := Dial(testContext(t), dir); !errors.Is(err, state.ErrNotRunning) {
		t.Errorf("no socket: got %v", err)
	}
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if _, err := Dial(testContext(t), dir); !errors.Is(err, state.ErrNotRunning) {
		t.Errorf("nobody listens: got %v", err)
	}
	l, err = Listen(dir) // over the stale socket
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

// pipes makes the stdio of an exec.
func pipes(t *testing.T) (in, out *os.File, r ExecRequest) {
	t.Helper()
	inR, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r = ExecRequest{Process: json.RawMessage(`"cat"`), Stdin: inR, Stdout: outW, Stderr: outW}
	t.Cleanup(func() { closeAll([]*os.File{inR, in, out, outW}) })
	return in, out, r
}

func TestExecPassesFiles(t *testing.T) {
	_, dir := serve(t)
	ctx := testContext(t)
	in, out, r := pipes(t)
	s, err := dial(t, dir).Exec(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	if s.PID() != 77 {
		t.Errorf("pid: got %d", s.PID())
	}
	if _, err := in.WriteString("through the guest"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("through the guest"))
	if _, err := io.ReadFull(out, got); err != nil || string(got) != "through the guest" {
		t.Errorf("got %q, %v", got, err)
	}
	_ = in.Close()
	if status, err := s.Wait(ctx); err != nil || status != 0 {
		t.Errorf("got %d, %v", status, err)
	}
}

func TestExecTerminal(t *testing.T) {
	f, dir := serve(t)
	ctx := testContext(t)
	_, out, r := pipes(t)
	s, err := dial(t, dir).Exec(ctx, ExecRequest{Process: json.RawMessage(`"tty"`), TTY: r.Stdout, Rows: 3, Cols: 4})
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Stdout.Close()
	if err := s.Resize(ctx, 24, 80); err != nil {
		t.Error(err)
	}
	if err := s.Signal(ctx, 15); err != nil {
		t.Error(err)
	}
	if status, err := s.Wait(ctx); err != nil || status != 143 {
		t.Errorf("got %d, %v", status, err)
	}
	if name := await(t, "close", f.closed); name != "tty" {
		t.Errorf("closed %q", name)
	}
	if diff := cmp.Diff([]string{"resize tty 24 80"}, f.calls); diff != "" {
		t.Error(diff)
	}
	// Nobody but the server had the other end by then.
	if b, err := io.ReadAll(out); err != nil || len(b) != 0 {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestExecError(t *testing.T) {
	_, dir := serve(t)
	_, _, r := pipes(t)
	r.Process = json.RawMessage(`"missing"`)
	_, err := dial(t, dir).Exec(testContext(t), r)
	if want := `exec: "missing": executable file not found in $PATH`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// A client that hangs up ends its process, wherever it is.
func TestHangUp(t *testing.T) {
	f, dir := serve(t)
	ctx := testContext(t)
	_, _, r := pipes(t)
	s, err := dial(t, dir).Exec(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	await(t, "close of a running process", f.closed)

	_, _, r = pipes(t)
	r.Process = json.RawMessage(`"slow"`)
	c := dial(t, dir)
	limited, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := c.Exec(limited, r); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	_ = c.Close()
	await(t, "end of an exec in progress", f.ended)

	c = dial(t, dir)
	if _, _, err := c.AwaitOOM(ctx, 1); err != nil {
		t.Errorf("a wait that ended: %v", err)
	}
	limited, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, _, err := c.AwaitOOM(limited, never); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	_ = c.Close()
	await(t, "end of a wait", f.ended)
}

// A session goes on in another holder of its connection; the first may close.
func TestResume(t *testing.T) {
	_, dir := serve(t)
	ctx := testContext(t)
	_, _, r := pipes(t)
	s, err := dial(t, dir).Exec(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	file, err := s.File()
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	s2, err := Resume(file, s.PID())
	if err != nil {
		t.Fatal(err)
	}
	defer s2.Close()
	if err := s2.Signal(ctx, 9); err != nil {
		t.Fatal(err)
	}
	if status, err := s2.Wait(ctx); err != nil || status != 137 {
		t.Errorf("got %d, %v", status, err)
	}
}

func TestServerEnds(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{closed: make(chan string, 1), ended: make(chan string, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, f) }()
	_, _, r := pipes(t)
	s, err := dial(t, dir).Exec(testContext(t), r)
	if err != nil {
		t.Fatal(err)
	}
	idle := dial(t, dir)
	cancel()
	if err := await(t, "Serve", done); err != nil {
		t.Error(err)
	}
	if _, err := s.Wait(testContext(t)); !errors.Is(err, ErrGone) {
		t.Errorf("Wait: got %v, want %v", err, ErrGone)
	}
	if err := idle.Start(testContext(t)); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want %v", err, ErrGone)
	}
	await(t, "close", f.closed)
}

// lastCall ends its server before it answers.
type lastCall struct {
	*fake
	end context.CancelFunc
}

func (l *lastCall) Start(ctx context.Context) error {
	l.end()
	return ctx.Err()
}

// A workload that ends at once ends its monitor; its start is answered still.
func TestLastWords(t *testing.T) {
	for range 50 {
		dir, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		l, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- Serve(ctx, l, &lastCall{&fake{}, cancel}) }()
		c := dial(t, dir)
		if err := c.Start(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if err := await(t, "Serve", done); err != nil {
			t.Fatal(err)
		}
		_, _ = c.Close(), dir.Close()
	}
}

func TestConcurrent(t *testing.T) {
	_, dir := serve(t)
	ctx := testContext(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			c, err := Dial(ctx, dir)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if i%2 == 0 {
				if _, err := c.Processes(ctx); err != nil {
					t.Error(err)
				}
			}
			in, _, r := pipes(t)
			s, err := c.Exec(ctx, r)
			if err != nil {
				t.Error(err)
				return
			}
			_ = in.Close()
			if status, err := s.Wait(ctx); err != nil || status != 0 {
				t.Errorf("got %d, %v", status, err)
			}
		})
	}
	wg.Wait()
}
