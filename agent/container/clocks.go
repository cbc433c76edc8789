package container

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"runv/agent/task"
)

// forkExec starts the first process, as attr says.
func (c *Container) forkExec(argv []string, attr *syscall.ProcAttr) (int, error) {
	if c.ns&unix.CLONE_NEWTIME == 0 {
		return syscall.ForkExec(c.m.Exe, argv, attr)
	}
	type forked struct {
		pid int
		err error
	}
	result := make(chan forked, 1)
	go func() {
		// The thread's children would all be in the time namespace: it is
		// never unlocked, so that it ends with this goroutine.
		runtime.LockOSThread()
		err := c.newClocks()
		pid := 0
		if err == nil {
			pid, err = task.ForkExec(c.m.Exe, argv, attr)
		}
		result <- forked{pid, err}
	}()
	f := <-result
	return f.pid, f.err
}

// newClocks makes a time namespace for the children of the calling thread
// (time_namespaces(7)).
func (c *Container) newClocks() error {
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return fmt.Errorf("make a time namespace: %w", err)
	}
	path := "/proc/" + strconv.Itoa(unix.Gettid()) + "/timens_offsets"
	for clock, offset := range c.spec.Linux.TimeOffsets {
		if err := os.WriteFile(path, []byte(clock+" "+offset), 0); err != nil {
			return fmt.Errorf("linux.timeOffsets.%s %s: %w", clock, offset, errors.Unwrap(err))
		}
	}
	return nil
}
