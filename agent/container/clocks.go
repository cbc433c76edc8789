package container

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/task"
)

// forkExec starts the first process, as attr says, which has a working directory
// that is / and a cgroup.
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
			pid, err = c.forkInTime(argv, attr)
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

// forkInTime does what syscall.ForkExec does, but for sharing memory with the
// child, which is not possible across time namespaces (clone(2)).
func (c *Container) forkInTime(argv []string, attr *syscall.ProcAttr) (int, error) {
	files := make([]int, len(attr.Files))
	for i, f := range attr.Files {
		// Above all that the script gives away.
		fd, err := task.High(int(f), len(attr.Files))
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		files[i] = fd
	}
	exec, err := (&task.Settings{Process: &specs.Process{Args: argv}}).Exec(c.m.Exe, attr.Env)
	if err != nil {
		return 0, err
	}
	pipes, err := task.NewPipes(len(files))
	if err != nil {
		return 0, err
	}
	script := pipes.Enter(files)
	if attr.Sys.Credential != nil {
		script = append(script, task.Call("setgroups", unix.SYS_SETGROUPS, 0, 0),
			task.Call("setgid", unix.SYS_SETGID, 0), task.Call("setuid", unix.SYS_SETUID, 0))
	}
	child, err := task.Fork(pipes, attr.Sys.Cloneflags, attr.Sys.CgroupFD, append(script, exec...))
	if err != nil {
		return 0, err
	}
	if err := writeMaps(child.Pid, attr.Sys); err != nil {
		child.Abandon() // it exits, and the reaper sees to the rest
		return 0, err
	}
	return child.Pid, child.Open()
}

// writeMaps maps the ids of a process in a user namespace of its own.
func writeMaps(pid int, attr *syscall.SysProcAttr) error {
	for name, m := range map[string][]syscall.SysProcIDMap{"uid_map": attr.UidMappings, "gid_map": attr.GidMappings} {
		if len(m) == 0 {
			continue
		}
		var lines strings.Builder
		for _, e := range m {
			fmt.Fprintln(&lines, e.ContainerID, e.HostID, e.Size)
		}
		if err := os.WriteFile("/proc/"+strconv.Itoa(pid)+"/"+name, []byte(lines.String()), 0); err != nil {
			return err
		}
	}
	return nil
}
