package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/libvm/state"
)

// fake is a monitor whose processes copy stdin to stdout and end on SIGTERM
// (status 143), on the end of stdin (0), or when closed.
type fake struct {
	mu      sync.Mutex
	calls   []string
	started bool
	closed  chan string // one entry a session that was closed
	ended   chan string // one entry an Exec whose context ended
}

func (f *fake) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

func (f *fake) Start(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.started {
		return state.ErrRunning
	}
	f.started = true
	return nil
}

func (f *fake) Signal(_ context.Context, sig int, all bool) error {
	f.note("signal %d %v", sig, all)
	if sig == 99 {
		return errors.New("odd signal")
	}
	return nil
}

func (f *fake) Pause(context.Context) error {
	f.note("pause")
	return nil
}

func (f *fake) Resume(context.Context) error { return state.ErrNotPaused }

func (f *fake) Update(_ context.Context, r *specs.LinuxResources) error {
	if r.Pids == nil {
		return state.ErrNotRunning
	}
	f.note("update %d", *r.Pids.Limit)
	return nil
}

func (f *fake) Metrics(context.Context) (Metrics, error) {
	return Metrics{"cpu.stat": "usage_usec 1"}, nil
}

// never is a count of OOM kills that is not exceeded.
const never = 1 << 40

func (f *fake) AwaitOOM(ctx context.Context, seen uint64) (uint64, bool, error) {
	if seen == never {
		<-ctx.Done()
		f.ended <- "oom"
		return 0, false, ctx.Err()
	}
	return seen + 2, true, nil
}

func (f *fake) Place() state.Cgroup {
	return state.Cgroup{Path: "/x", Made: []string{"/sys/fs/cgroup/x"}}
}

func (f *fake) Ready(ctx context.Context) error {
	f.note("ready")
	<-ctx.Done()
	return state.ErrNotRunning
}

func (f *fake) Processes(context.Context) ([]Process, error) {
	return []Process{{PID: 300, ContainerPID: 1, UID: 5, Comm: "sh", Args: "sh -c x"}}, nil
}

func (f *fake) Exec(ctx context.Context, r ExecRequest) (ExecSession, error) {
	var name string
	if err := json.Unmarshal(r.Process, &name); err != nil {
		return nil, err
	}
	switch name {
	case "missing":
		closeAll([]*os.File{r.Stdin, r.Stdout, r.Stderr, r.TTY})
		return nil, errors.New(`exec: "missing": executable file not found in $PATH`)
	case "slow":
		<-ctx.Done()
		f.ended <- name
		return nil, context.Cause(ctx)
	}
	s := &fakeSession{fake: f, name: name, status: make(chan int, 8), request: r}
	if r.Stdin != nil {
		go func() {
			_, _ = io.Copy(r.Stdout, r.Stdin)
			s.status <- 0
		}()
	}
	return s, nil
}

type fakeSession struct {
	fake    *fake
	name    string
	request ExecRequest
	status  chan int
	once    sync.Once
}

func (s *fakeSession) PID() int { return 77 }

func (s *fakeSession) Signal(_ context.Context, sig int) error {
	s.status <- 128 + sig
	return nil
}

func (s *fakeSession) Resize(_ context.Context, rows, cols uint16) error {
	s.fake.note("resize %s %d %d", s.name, rows, cols)
	return nil
}

func (s *fakeSession) Wait(ctx context.Context) (int, error) {
	select {
	case n := <-s.status:
		return n, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (s *fakeSession) Close() error {
	s.once.Do(func() {
		closeAll([]*os.File{s.request.Stdin, s.request.Stdout, s.request.Stderr, s.request.TTY})
		s.status <- 137
		s.fake.closed <- s.name
	})
	return nil
}

// serve starts a server in a directory whose path no socket address can hold.
func serve(t *testing.T) (*fake, *os.File) {
	t.Helper()
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 150))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(long)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{closed: make(chan string, 100), ended: make(chan string, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, f) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Serve did not return")
		}
		_ = dir.Close()
	})
	return f, dir
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func dial(t *testing.T, dir *os.File) *Client {
	t.Helper()
	c, err := Dial(testContext(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// await reads one value, or fails.
func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: nothing came", what)
		panic("unreachable")
	}
}
