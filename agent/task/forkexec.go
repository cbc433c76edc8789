package task

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ForkExec is syscall.ForkExec, but for sharing memory with the child until that
// execs, which is not possible across time namespaces (clone(2), CLONE_NEWTIME).
// Of attr it knows Dir, Env and Files, and Setsid, Cloneflags, the cgroup, the
// mappings and Credential (of which only that it is set: the child becomes root in
// its user namespace). The calling thread is locked, or in the namespaces that it
// was in.
func ForkExec(path string, argv []string, attr *syscall.ProcAttr) (int, error) {
	files := make([]int, len(attr.Files))
	for i, f := range attr.Files {
		fd, err := High(int(f), len(attr.Files))
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		files[i] = fd
	}
	exec, err := (&Settings{Process: &specs.Process{Args: argv}}).Exec(path, attr.Env)
	if err != nil {
		return 0, err
	}
	dir, err := cstring(attr.Dir)
	if err != nil {
		return 0, err
	}
	pipes, err := NewPipes(len(files))
	if err != nil {
		return 0, err
	}
	s, group := pipes.Enter(files), -1
	if attr.Sys.Setsid {
		s = append(s, Session(false)...)
	}
	if attr.Dir != "" {
		s = append(s, Call("chdir", unix.SYS_CHDIR).pointer(0, unsafe.Pointer(dir)))
	}
	if c := attr.Sys.Credential; c != nil {
		if !c.NoSetGroups {
			s = append(s, Call("setgroups", unix.SYS_SETGROUPS, 0, 0))
		}
		s = append(s, Call("setgid", unix.SYS_SETGID, 0), Call("setuid", unix.SYS_SETUID, 0))
	}
	if attr.Sys.UseCgroupFD {
		group = attr.Sys.CgroupFD
	}
	child, err := Fork(pipes, attr.Sys.Cloneflags, group, append(s, exec...))
	if err != nil {
		return 0, err
	}
	if err := writeMaps(child.Pid, attr.Sys); err != nil {
		child.Abandon() // it exits, and is to be reaped
		return child.Pid, err
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
