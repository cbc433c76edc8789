package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func sh(script string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}}
}

func state() *specs.State {
	return &specs.State{Version: specs.Version, ID: "c", Status: specs.StateCreating, Pid: 7, Bundle: "/b", Annotations: map[string]string{"k": "v"}}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	// Without an interpreter that has words of its own about argv[0].
	argv0 := specs.Hook{Path: "/bin/sh", Args: []string{"another-name", "-c", "echo $0 > argv0"}}
	all := []specs.Hook{
		sh("cat > state"),
		{Path: "/usr/bin/env", Args: []string{"env", "sh", "-c", "env > env1"}, Env: []string{"PATH=/usr/bin:/bin", "A=1"}},
		{Path: "/usr/bin/env", Args: []string{"env", "sh", "-c", "env > env2"}},
		argv0,
	}
	if err := Run(t.Context(), Prestart, all, state(), Options{Dir: dir, Env: []string{"PATH=/usr/bin:/bin", "B=2"}}); err != nil {
		t.Fatal(err)
	}
	var got specs.State
	if b := read(t, dir, "state"); json.Unmarshal([]byte(b), &got) != nil || !cmp.Equal(&got, state()) {
		t.Errorf("stdin: got %s", b)
	}
	for name, want := range map[string]string{"env1": "A=1\n", "env2": "B=2\n"} {
		if got := read(t, dir, name); !strings.Contains(got, want) || strings.Contains(got, "HOME=") {
			t.Errorf("%s: got %q, want %q and nothing of ours", name, got, want)
		}
	}
	if got := read(t, dir, "argv0"); got != "another-name\n" {
		t.Errorf("argv[0]: got %q", got)
	}
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFailures(t *testing.T) {
	one := 1
	tests := []struct {
		name string
		hook specs.Hook
		want string
	}{
		{"status", sh("echo out; echo words >&2; exit 3"), "unable to start container process: error during container init: error running prestart hook #1: exit status 3, stdout: out\n, stderr: words\n"},
		{"signal", sh("kill -9 $$"), "unable to start container process: error during container init: error running prestart hook #1: signal: killed, stdout: , stderr: "},
		{"missing", specs.Hook{Path: "/nonexistent"}, "unable to start container process: error during container init: error running prestart hook #1: fork/exec /nonexistent: no such file or directory"},
		{"timeout", specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 100 & sleep 100"}, Timeout: &one}, "unable to start container process: error during container init: error running prestart hook #1: hook ran past specified timeout of 1.0s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			list := []specs.Hook{sh("true"), tt.hook, sh("echo > late")}
			err := Run(t.Context(), Prestart, list, state(), Options{Dir: dir})
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if _, err := os.Stat(filepath.Join(dir, "late")); err == nil {
				t.Error("the hook behind the one that failed was run")
			}
			if errs := RunAll(t.Context(), Prestart, list, state(), Options{Dir: dir}); len(errs) != 1 || errs[0].Error() != tt.want {
				t.Errorf("RunAll: got %v", errs)
			}
			read(t, dir, "late")
		})
	}
}

// The whole group goes with a hook that is interrupted.
func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("no more")
	go func() {
		for {
			if b, err := os.ReadFile(filepath.Join(dir, "pid")); err == nil && strings.HasSuffix(string(b), "\n") {
				cancel(why)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	err := Run(ctx, Poststart, []specs.Hook{sh("sleep 1000 & echo $! > pid; wait")}, state(), Options{Dir: dir})
	if !errors.Is(err, why) {
		t.Errorf("got %v, want %v", err, why)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(read(t, dir, "pid")))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); alive(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a process of the hook is left")
		}
	}
}

// alive is whether a process exists that is not a zombie.
func alive(pid int) bool {
	if unix.Kill(pid, 0) != nil {
		return false
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// A daemon that a hook leaves behind does not keep the container waiting.
func TestDaemon(t *testing.T) {
	dir := t.TempDir()
	begin := time.Now()
	if err := Run(t.Context(), CreateRuntime, []specs.Hook{sh("sleep 30 & echo $! > pid")}, state(), Options{Dir: dir}); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(read(t, dir, "pid")))
	if err != nil || !alive(pid) {
		t.Errorf("the daemon (%d, %v) was ended", pid, err)
	}
	unix.Kill(pid, unix.SIGKILL) //nolint:errcheck // it ends by itself otherwise
}

func TestOutputIsBounded(t *testing.T) {
	err := Run(t.Context(), Prestart, []specs.Hook{sh("head -c 1000000 /dev/zero | tr '\\0' x; exit 1")}, state(), Options{})
	if n := strings.Count(err.Error(), "x"); n < maxOutput || n > maxOutput+10 {
		t.Errorf("%d bytes of output in the error", n)
	}
}
