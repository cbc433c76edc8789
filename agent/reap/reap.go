// Package reap is the one place of the agent that waits for processes.
//
// PID 1 must reap every orphan of the guest, and must not take the status of a
// process that somebody waits for. Both hold because all is done under one lock:
// a process is forked and entered in the table while it is held, and every
// status is collected while it is held. So a status that wait4 returns belongs
// to a process in the table, or to one that nobody will ask for. Nothing else in
// the agent may call wait4, os.Process.Wait or os/exec.
package reap

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrFinished says that a process has ended.
var ErrFinished = errors.New("process already finished")

// Table knows the processes that somebody waits for.
type Table struct {
	mu    sync.Mutex
	procs map[int]*Process
}

// New returns an empty table.
func New() *Table { return &Table{procs: make(map[int]*Process)} }

// Process is a child of this process.
type Process struct {
	// Pid is the process id in the pid namespace of the agent.
	Pid int

	table  *Table
	done   chan struct{}
	status unix.WaitStatus // valid once done is closed
}

// Start calls fork, which returns the pid of a new child, and enters the child.
func (t *Table) Start(fork func() (int, error)) (*Process, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pid, err := fork()
	if err != nil {
		return nil, err
	}
	p := &Process{Pid: pid, table: t, done: make(chan struct{})}
	t.procs[pid] = p
	return p, nil
}

// Run collects children until ctx ends.
func (t *Table) Run(ctx context.Context) {
	// The kernel merges signals that are pending, so one stands for any
	// number of children; a capacity of one is enough.
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGCHLD)
	defer signal.Stop(c)
	for {
		t.Collect()
		select {
		case <-c:
		case <-ctx.Done():
			return
		}
	}
}

// Collect reaps all children that have ended.
func (t *Table) Collect() {
	for t.collectOne() {
	}
}

func (t *Table) collectOne() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ws unix.WaitStatus
	pid, err := unix.Wait4(-1, &ws, unix.WNOHANG|unix.WALL, nil)
	if errors.Is(err, unix.EINTR) {
		return true
	}
	if err != nil || pid <= 0 {
		return false
	}
	if p := t.procs[pid]; p != nil {
		delete(t.procs, pid)
		p.status = ws
		close(p.done)
	}
	return true
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Status returns the exit status, or 128 + signal. Done must be closed.
func (p *Process) Status() int {
	if p.status.Signaled() {
		return 128 + int(p.status.Signal())
	}
	return p.status.ExitStatus()
}

// Signal sends a signal. The process is not reaped meanwhile, so it cannot hit
// another one that was given the same pid.
func (p *Process) Signal(sig unix.Signal) error {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	select {
	case <-p.done:
		return ErrFinished
	default:
	}
	if err := unix.Kill(p.Pid, sig); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return ErrFinished
		}
		return os.NewSyscallError("kill", err)
	}
	return nil
}
