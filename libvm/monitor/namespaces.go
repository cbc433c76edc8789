package monitor

import (
	"fmt"
	"os"
	"os/exec"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/thread"
)

// Namespaces are those of the host into which a monitor is put, as the config
// asks for the container's: engines look at /proc/<pid>/ns of the monitor. New
// mount and pid namespaces it gets in any case.
type Namespaces struct {
	New  []specs.LinuxNamespaceType // beside mount and pid
	Join []Namespace
}

// Namespace is an existing namespace.
type Namespace struct {
	Type specs.LinuxNamespaceType
	Path string
}

// NamespacesOf reads the namespaces out of a checked config. A user namespace is
// made in the guest only: on the host the monitor serves files of all owners.
func NamespacesOf(spec *specs.Spec) Namespaces {
	var n Namespaces
	if spec.Linux == nil {
		return n
	}
	for _, ns := range spec.Linux.Namespaces {
		switch {
		case ns.Type == specs.MountNamespace || ns.Type == specs.PIDNamespace || ns.Type == specs.UserNamespace:
		case ns.Path != "":
			n.Join = append(n.Join, Namespace{Type: ns.Type, Path: ns.Path})
		default:
			n.New = append(n.New, ns.Type)
		}
	}
	return n
}

// cloneFlag returns the CLONE_NEW* bit of a type.
func cloneFlag(t specs.LinuxNamespaceType) uintptr {
	switch t {
	case specs.NetworkNamespace:
		return unix.CLONE_NEWNET
	case specs.IPCNamespace:
		return unix.CLONE_NEWIPC
	case specs.UTSNamespace:
		return unix.CLONE_NEWUTS
	case specs.CgroupNamespace:
		return unix.CLONE_NEWCGROUP
	}
	return 0
}

func (n Namespaces) cloneFlags() uintptr {
	var flags uintptr
	for _, t := range n.New {
		flags |= cloneFlag(t)
	}
	return flags
}

// start starts cmd from a thread that is in the namespaces to join, from where
// the child inherits them. It returns the limit of open files with which the
// child began.
func (n Namespaces) start(cmd *exec.Cmd) (noFile unix.Rlimit, err error) {
	err = thread.Own(func() error {
		for _, ns := range n.Join {
			if err := enter(ns); err != nil {
				return err
			}
		}
		cmd.SysProcAttr.Ptrace = true // stops at its exec
		if err := cmd.Start(); err != nil {
			return err
		}
		noFile, err = limitAtExec(cmd.Process.Pid)
		return err
	})
	return noFile, err
}

// limitAtExec reads the limit of open files of a traced child that is about to
// stop at its exec, and lets it go. Package syscall raises the soft limit of each
// Go program when it starts, and gives children the original one; nobody can ask
// it for that, but it can be seen in a child before that has run.
func limitAtExec(pid int) (unix.Rlimit, error) {
	var limit unix.Rlimit
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(pid, &ws, 0, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return limit, os.NewSyscallError("wait4", err)
		case !ws.Stopped():
			return limit, fmt.Errorf("ended before it began (wait status %#x)", uint32(ws))
		}
		break
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		return limit, os.NewSyscallError("prlimit", err)
	}
	return limit, os.NewSyscallError("ptrace", unix.PtraceDetach(pid))
}

// enter puts the calling thread into ns.
func enter(ns Namespace) error {
	f, err := os.Open(ns.Path)
	if err != nil {
		return fmt.Errorf("join %s namespace: %w", ns.Type, err)
	}
	defer f.Close() //nolint:errcheck // only read from
	if err := unix.Setns(int(f.Fd()), int(cloneFlag(ns.Type))); err != nil {
		return fmt.Errorf("join %s namespace %q: %w", ns.Type, ns.Path, os.NewSyscallError("setns", err))
	}
	return nil
}
