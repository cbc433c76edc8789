package container

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"runv/agent/reap"
)

// Signal sends a signal to a process, or to all of the container.
func (c *Container) Signal(execID string, sig unix.Signal, all bool) error {
	if all {
		return c.signalAll(sig)
	}
	p, err := c.lookup(execID)
	if err != nil {
		return err
	}
	if p.proc == nil {
		return ErrNotRunning
	}
	if p == c.init {
		c.awaitStart(sig)
	}
	if err := p.proc.Signal(sig); err != nil {
		if errors.Is(err, reap.ErrFinished) {
			return ErrNotRunning
		}
		return err
	}
	return nil
}

func (c *Container) signalAll(sig unix.Signal) error {
	if sig == unix.SIGKILL {
		return c.group.Kill()
	}
	pids, err := c.group.Procs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return os.NewSyscallError("kill", err)
		}
	}
	return nil
}

// A workload that was just exec'd may not have come to setting its handlers, or to
// the loop that they are for; a signal that PID 1 of a namespace has no handler
// for the kernel drops (pid_namespaces(7)). On hardware that is a matter of
// milliseconds, in which no engine's next command arrives; in an emulated guest it
// takes longer than that.
const (
	youth       = 2 * time.Second       // how long after its exec a workload may be starting
	settled     = 60 * time.Millisecond // what has slept for so long has started
	settledPoll = 5 * time.Millisecond
)

// harmless are the signals that change nothing without a handler.
var harmless = []unix.Signal{unix.SIGCHLD, unix.SIGCONT, unix.SIGURG, unix.SIGWINCH}

// awaitStart gives a workload that is starting the time to become ready for a
// signal: until it has settled down to sleep, or is no longer young.
func (c *Container) awaitStart(sig unix.Signal) {
	began := c.startedAt.Load()
	if began == 0 || sig == 0 || sig == unix.SIGKILL || slices.Contains(harmless, sig) {
		return
	}
	file := "/proc/" + strconv.Itoa(c.init.proc.Pid) + "/status"
	var before sleep
	asleep := time.Now()
	for time.Since(time.Unix(0, began)) < youth {
		status, err := os.ReadFile(file)
		if err != nil {
			return // it has ended
		}
		now := sleepOf(string(status))
		if !now.sleeping || now != before {
			before, asleep = now, time.Now()
		}
		if time.Since(asleep) > settled {
			return
		}
		time.Sleep(settledPoll)
	}
}

// sleep tells one sleep of a process from another one.
type sleep struct {
	sleeping bool
	switches string // how often it was switched from
}

// sleepOf reads /proc/<pid>/status. What waits for a file of the host sleeps, too,
// but not for long.
func sleepOf(status string) sleep {
	var s sleep
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch key {
		case "State":
			s.sleeping = !strings.HasPrefix(strings.TrimSpace(value), "R")
		case "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches":
			s.switches += value
		}
	}
	return s
}
