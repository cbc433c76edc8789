package libvm

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/libvmtest"
	"runv/libvm/state"
)

func TestLifecycle(t *testing.T) {
	r, ctx := testRuntime(t), testContext(t)
	pidFile := filepath.Join(t.TempDir(), "pid")
	b := bundleOf(t, nil, "sleep", "1000")
	if err := r.Create(ctx, CreateOptions{ID: "c", Bundle: b, PidFile: pidFile}); err != nil {
		t.Fatal(err)
	}
	s, err := r.State("c")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := os.ReadFile(pidFile)
	if err != nil || string(pid) != strconv.Itoa(s.PID) || s.Status != state.Created || s.Bundle != b {
		t.Errorf("got pid file %q (%v), state %+v", pid, err, s)
	}
	if err := r.Create(ctx, CreateOptions{ID: "c", Bundle: b}); !errors.Is(err, state.ErrExists) {
		t.Errorf("second create: %v", err)
	}
	if err := r.StartContainer(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	if err := r.StartContainer(ctx, "c"); !errors.Is(err, state.ErrRunning) {
		t.Errorf("second start: %v", err)
	}
	if err := r.Delete(ctx, "c", false); err == nil || err.Error() != "cannot delete container c that is not stopped: running" {
		t.Errorf("delete of a running one: %v", err)
	}
	if err := r.Kill(ctx, "c", 99, false); !errors.Is(err, unix.EINVAL) {
		t.Errorf("signal 99: %v", err)
	}
	if err := r.Kill(ctx, "c", 15, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "stopped", func() bool { return status(t, r, "c") == state.Stopped })
	for _, tt := range []struct {
		name      string
		got, want error
	}{
		{"start", r.StartContainer(ctx, "c"), state.ErrStopped},
		{"kill", r.Kill(ctx, "c", 15, false), state.ErrNotRunning},
		{"kill --all", r.Kill(ctx, "c", 9, true), nil},
		{"delete", r.Delete(ctx, "c", false), nil},
		{"second delete", r.Delete(ctx, "c", false), state.ErrNotExist},
		{"delete --force", r.Delete(ctx, "c", true), nil},
		{"kill of none", r.Kill(ctx, "c", 15, true), state.ErrNotExist},
	} {
		if !errors.Is(tt.got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, tt.got, tt.want)
		}
	}
	_, err = r.Exec(ctx, ExecOptions{ID: "c"})
	if !errors.Is(err, state.ErrNotExist) {
		t.Errorf("exec: %v", err)
	}
}

func TestDeleteCreated(t *testing.T) {
	r, ctx := testRuntime(t), testContext(t)
	created(t, r, "c", "sleep", "1000")
	if err := r.Delete(ctx, "c", false); err != nil {
		t.Fatal(err)
	}
}

// The state after kill -9 of the monitor is "stopped", and delete cleans up.
func TestMonitorKilled(t *testing.T) {
	r, ctx := testRuntime(t), testContext(t)
	started(t, r, "c", "sleep", "1000")
	s, err := r.State("c")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(s.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "stopped", func() bool { return status(t, r, "c") == state.Stopped })
	if err := r.Kill(ctx, "c", 9, false); !errors.Is(err, state.ErrNotRunning) {
		t.Errorf("kill: %v", err)
	}
	if err := r.Delete(ctx, "c", false); err != nil {
		t.Error(err)
	}
}

// A guest that does not answer is killed with its monitor.
func TestDeafGuest(t *testing.T) {
	r, ctx := testRuntime(t), testContext(t)
	for _, end := range []struct {
		name string
		do   func() error
	}{
		{"kill", func() error { return r.Kill(ctx, "kill", 9, false) }},
		{"delete", func() error { return r.Delete(ctx, "delete", true) }},
	} {
		b := bundleOf(t, annotate(libvmtest.Deaf, "yes"), "sleep", "1000")
		if _, err := r.Run(ctx, RunOptions{CreateOptions: CreateOptions{ID: end.name, Bundle: b}, Detach: true}); err != nil {
			t.Fatal(err)
		}
		if err := end.do(); err != nil {
			t.Errorf("%s: %v", end.name, err)
		}
	}
	eventually(t, "stopped", func() bool { return status(t, r, "kill") == state.Stopped })
	if err := r.Delete(ctx, "kill", false); err != nil {
		t.Error(err)
	}
}

func TestCreateFailures(t *testing.T) {
	r, ctx := testRuntime(t), testContext(t)
	good := bundleOf(t, nil, "true")
	terminal := bundleOf(t, func(s *specs.Spec) { s.Process.Terminal = true }, "true")
	tests := []struct {
		name string
		o    CreateOptions
		want string
	}{
		{"monitor", CreateOptions{Bundle: bundleOf(t, annotate(libvmtest.Fail, "no luck"), "true")}, "no luck"},
		{"executable", CreateOptions{Bundle: bundleOf(t, nil, "nosuch")}, `exec: "nosuch": executable file not found in $PATH`},
		{"pid file", CreateOptions{Bundle: good, PidFile: "/nonexistent/pid"}, "no such file or directory"},
		{"no console socket", CreateOptions{Bundle: terminal}, "cannot allocate tty if runv will detach without setting console socket"},
		{"console socket", CreateOptions{Bundle: good, ConsoleSocket: "/s"}, "cannot use console socket if runv will not detach or allocate tty"},
		{"dead console socket", CreateOptions{Bundle: terminal, ConsoleSocket: "/nonexistent/s"}, "no such file or directory"},
		{"preserve-fds", CreateOptions{Bundle: good, PreserveFDs: 1}, "unable to stat preserved-fd 0 (of 1): stat /proc/self/fd/3: no such file or directory"},
		{"pidfd socket", CreateOptions{Bundle: good, PidfdSocket: "/nonexistent/s"}, `pidfd socket "/nonexistent/s": dial unix /nonexistent/s: connect: no such file or directory`},
		{"no bundle", CreateOptions{Bundle: "/nonexistent"}, "no such file or directory"},
		{"id", CreateOptions{ID: "../x", Bundle: good}, "invalid container ID format"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.o.ID == "" {
				tt.o.ID = "c"
			}
			err := r.Create(ctx, tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %s in one line", err, tt.want)
			}
			if ids, _ := state.List(r.Root); len(ids) != 0 {
				t.Errorf("left: %q", ids)
			}
		})
	}
}

func TestNoKernel(t *testing.T) {
	r, ctx := testRuntime(t), testContext(t)
	r.Kernel = "/nonexistent/vmlinux"
	err := r.Create(ctx, CreateOptions{ID: "c", Bundle: bundleOf(t, nil, "true")})
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/vmlinux") {
		t.Errorf("got %v", err)
	}
}

// Signals end a create that hangs, and nothing is left, not even the monitor.
func TestCreateInterrupted(t *testing.T) {
	r, ctx := testRuntime(t), testContext(t)
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		hung := filepath.Join(t.TempDir(), "hung")
		done := make(chan error, 1)
		b := bundleOf(t, annotate(libvmtest.Hang, hung), "true")
		go func() { done <- r.Create(ctx, CreateOptions{ID: "c", Bundle: b}) }()
		eventually(t, "the monitor hangs", func() bool { _, err := os.Stat(hung); return err == nil })
		if s := status(t, r, "c"); s != state.Creating {
			t.Errorf("got %q", s)
		}
		if err := r.Delete(ctx, "c", false); err == nil {
			t.Error("delete of one that is being created: no error")
		}
		if err := unix.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		var i *Interrupted
		if err := <-done; !errors.As(err, &i) || i.Signal != sig {
			t.Errorf("%v: got %v", sig, err)
		}
		if ids, _ := state.List(r.Root); len(ids) != 0 {
			t.Errorf("%v: left %q", sig, ids)
		}
	}
}

// What a create left that was killed with SIGKILL at its worst moments.
func TestHalfWritten(t *testing.T) {
	r, ctx := testRuntime(t), testContext(t)
	mkdir := func(id, content string) {
		if err := os.MkdirAll(filepath.Join(r.Root, id), 0o700); err != nil {
			t.Fatal(err)
		}
		if content != "" {
			if err := os.WriteFile(filepath.Join(r.Root, id, "state.json"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	mkdir("empty", "")
	mkdir("empty2", "")
	mkdir("broken", "{")
	mkdir("dead", `{"id":"dead","status":"creating","pid":4194303}`)
	_, broken, err := r.List()
	if err != nil || len(broken) != 3 {
		t.Errorf("list: got %v, %v", broken, err)
	}
	if err := r.Delete(ctx, "empty", false); !errors.Is(err, state.ErrNotExist) {
		t.Errorf("empty: %v", err)
	}
	if err := r.Delete(ctx, "empty2", true); err != nil {
		t.Errorf("empty2: %v", err)
	}
	if err := r.Delete(ctx, "broken", false); err == nil {
		t.Error("broken: no error")
	}
	if err := r.Delete(ctx, "broken", true); err != nil {
		t.Errorf("broken: %v", err)
	}
	if err := r.Delete(ctx, "dead", false); err != nil {
		t.Errorf("dead: %v", err)
	}
}

// With its state file lost, a running monitor is found by its socket.
func TestDeleteWithoutStateFile(t *testing.T) {
	r, ctx := testRuntime(t), testContext(t)
	started(t, r, "c", "sleep", "1000")
	s, err := r.State("c")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.Root, "c", "state.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(ctx, "c", true); err != nil {
		t.Fatal(err)
	}
	if state.Alive(s.PID, s.StartTime) {
		t.Error("the monitor lives")
	}
}

func TestConcurrentDeletes(t *testing.T) {
	r, ctx := testRuntime(t), testContext(t)
	started(t, r, "c", "sleep", "1000")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := r.Delete(ctx, "c", true); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
