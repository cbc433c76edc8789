package monitor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/selinux/go-selinux"
	"golang.org/x/sys/unix"

	"runv/libvm/apparmor"
	"runv/libvm/thread"
)

// Namespaces are those of the host into which a monitor is put, as the config
// asks for the container's: engines look at /proc/<pid>/ns. New mount and pid
// namespaces it gets in any case: they are its jail, and end the VM with it. What
// it cannot be in a stand-in is in (standin.go).
type Namespaces struct {
	New     []specs.LinuxNamespaceType // beside mount and pid
	Join    []Namespace                // of a joined mount namespace it gets a copy
	StandIn *StandIn                   // nil if the monitor itself is as the config asks
}

// Namespace is an existing namespace.
type Namespace struct {
	Type specs.LinuxNamespaceType
	Path string
}

// NamespacesOf reads the namespaces out of a checked config.
func NamespacesOf(spec *specs.Spec) Namespaces {
	var n Namespaces
	var list []specs.LinuxNamespace
	if spec.Linux != nil {
		list = spec.Linux.Namespaces
	}
	for _, ns := range list {
		switch {
		case ns.Path != "" && ns.Type != specs.PIDNamespace:
			n.Join = append(n.Join, Namespace{Type: ns.Type, Path: ns.Path})
		case slices.Contains([]specs.LinuxNamespaceType{specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.CgroupNamespace}, ns.Type):
			n.New = append(n.New, ns.Type)
		}
	}
	// The stand-in must be in the right ones before others can be looked up there.
	slices.SortStableFunc(n.Join, func(a, b Namespace) int { return order(a) - order(b) })
	n.StandIn = standInOf(spec.Linux, list)
	return n
}

// order puts the mount namespace last: paths of others are of the caller's.
func order(n Namespace) int {
	if n.Type == specs.MountNamespace {
		return 1
	}
	return 0
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
	case specs.MountNamespace:
		return unix.CLONE_NEWNS
	case specs.PIDNamespace:
		return unix.CLONE_NEWPID
	case specs.UserNamespace:
		return unix.CLONE_NEWUSER
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
// child began. label is the child's of SELinux, if it is not empty.
func (n Namespaces) start(cmd *exec.Cmd, label string) (noFile unix.Rlimit, err error) {
	err = thread.Own(func() error {
		if err := enter(n.Join); err != nil {
			return err
		}
		if err := labelChild(label); err != nil {
			return err
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

// labelChild gives what the calling thread executes a label of SELinux, unless it is
// empty. A child inherits that for its exec.
func labelChild(label string) error {
	if label == "" {
		return nil
	}
	if err := selinux.SetExecLabel(label); err != nil {
		return fmt.Errorf("process.selinuxLabel %q: %w", label, err)
	}
	return nil
}

// underProfile adds to an error the profile of AppArmor that may be its cause.
func underProfile(err error, profile string) error {
	if err == nil || apparmor.None(profile) {
		return err
	}
	return fmt.Errorf("%w (the AppArmor profile %s may forbid what a VM needs; unconfined does not)", err, profile)
}

// executable is what a child executes in a mount namespace of its own, if it is not
// plain: if it gets a label, or a profile. /proc/self/exe is on a mount of ours, which is
// nosuid to it (mnt_may_suid of the kernel's fs/namespace.c), so that most policies of
// SELinux forbid that label to come with it, and has no path there for AppArmor.
func executable(plain, join bool) (string, error) {
	if plain || join {
		return "/proc/self/exe", nil
	}
	return os.Executable()
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

// enter puts the calling thread into namespaces, or, of pid namespaces, its
// children.
func enter(list []Namespace) error {
	for _, ns := range list {
		f, err := os.Open(ns.Path)
		if err != nil {
			return fmt.Errorf("join %s namespace: %w", ns.Type, err)
		}
		if ns.Type == specs.MountNamespace {
			// A thread that shares its root with others may not.
			err = os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_FS))
		}
		if err == nil {
			err = os.NewSyscallError("setns", unix.Setns(int(f.Fd()), int(cloneFlag(ns.Type))))
		}
		f.Close() //nolint:errcheck // only read from
		if err != nil {
			return fmt.Errorf("join %s namespace %q: %w", ns.Type, ns.Path, err)
		}
	}
	return nil
}

// newNamespace says whether the config asks for a new namespace of a type.
func newNamespace(spec *specs.Spec, t specs.LinuxNamespaceType) bool {
	return spec.Linux != nil && slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t && n.Path == "" })
}

// nameHost gives the container's UTS namespace on the host its names, also a
// joined one, as runc does.
func (m *monitor) nameHost(context.Context) error {
	if m.spec.Hostname != "" {
		if err := unix.Sethostname([]byte(m.spec.Hostname)); err != nil {
			return os.NewSyscallError("sethostname", err)
		}
	}
	if m.spec.Domainname != "" {
		if err := unix.Setdomainname([]byte(m.spec.Domainname)); err != nil {
			return os.NewSyscallError("setdomainname", err)
		}
	}
	return nil
}
