package reap

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const patience = 30 * time.Second

func start(t *testing.T, table *Table, script string) *Process {
	t.Helper()
	p, err := table.Start(func() (int, error) {
		return syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *Process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.Done():
		return p.Status()
	case <-time.After(patience):
		t.Fatal("the process is not reaped")
		return -1
	}
}

// Every status reaches its owner, however fast the child is, and orphans that
// become ours are reaped meanwhile.
func TestStatuses(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	table := New()
	ctx, cancel := context.WithCancel(t.Context())
	var run, starts sync.WaitGroup
	run.Go(func() { table.Run(ctx) })
	for i := range 50 {
		starts.Go(func() {
			script := "exit 7"
			if i%2 == 0 {
				script = "(exit 1 &) ; exit 7"
			}
			if got := start(t, table, script).wait(t); got != 7 {
				t.Errorf("status %d, want 7", got)
			}
		})
	}
	starts.Wait()
	killed := start(t, table, "kill -9 $$")
	if got := killed.wait(t); got != 137 {
		t.Errorf("status %d, want 137", got)
	}
	if err := killed.Signal(unix.SIGTERM); !errors.Is(err, ErrFinished) {
		t.Errorf("signal after the end: %v", err)
	}
	// All orphans are gone: there is no child left to wait for.
	deadline := time.Now().Add(patience)
	for {
		table.Collect()
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if errors.Is(err, unix.ECHILD) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("orphans are left")
		}
	}
	cancel()
	run.Wait()
}

func TestSignal(t *testing.T) {
	table := New()
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { table.Run(ctx) })
	p := start(t, table, "exec sleep 1000")
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := p.wait(t); got != 143 {
		t.Errorf("status %d, want 143", got)
	}
	cancel()
	run.Wait()
}

func TestStartFails(t *testing.T) {
	table := New()
	want := errors.New("no")
	if _, err := table.Start(func() (int, error) { return 0, want }); !errors.Is(err, want) {
		t.Errorf("%v", err)
	}
	if len(table.procs) != 0 {
		t.Error("a process that is none is in the table")
	}
}
