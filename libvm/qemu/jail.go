package qemu

import (
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"runv/libvm/apparmor"
	"runv/libvm/mountfd"
	"runv/libvm/thread"
)

// A guest that breaks out of its virtual machine is in QEMU next. There it finds
// a root user without capabilities who cannot get any, in namespaces of its own,
// under QEMU's own system call filter, and, from Confine on, an empty read-only
// file system. What it has are the descriptors that QEMU was given.

// jailNamespaces are new for QEMU. The network is the monitor's, which is the
// container's own: the guest may use that anyway, and to make another takes up
// to 40 ms of the boot on a busy host.
const jailNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// sandbox is QEMU's filter: no obsolete system calls, no ids or capabilities,
// no fork and exec, no scheduling of others.
const sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

// startJailed starts cmd without capabilities, and under a profile of AppArmor,
// if there is to be one. For a root user execve(2) computes
// them from the inheritable and the bounding set of the thread that forks; in the
// forking itself that thread still has its own (capabilities(7)).
func startJailed(cmd *exec.Cmd, profile string) error {
	return thread.Own(func() error {
		if err := apparmor.OnExec(profile); err != nil {
			return err
		}
		for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
			// EINVAL: a capability that this kernel does not have.
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL {
				return os.NewSyscallError("prctl", err)
			}
		}
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var sets [2]unix.CapUserData
		if err := unix.Capget(&hdr, &sets[0]); err != nil {
			return os.NewSyscallError("capget", err)
		}
		sets[0].Inheritable, sets[1].Inheritable = 0, 0 // and with it the ambient set
		if err := unix.Capset(&hdr, &sets[0]); err != nil {
			return os.NewSyscallError("capset", err)
		}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl", err)
		}
		return cmd.Start()
	})
}

// Confine takes the file systems of the host from a QEMU that runs a guest: it
// has opened by then what it needs. It also lets go of them: a mount that the
// host unmounts would be kept busy by a copy in QEMU's mount namespace.
func (m *machine) Confine() error {
	pid := m.cmd.Process.Pid
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("confine qemu: %w", os.NewSyscallError("pidfd_open", err))
	}
	defer unix.Close(pidfd) //nolint:errcheck // not written to
	if err := m.trim(); err != nil {
		return fmt.Errorf("confine qemu: %w", err)
	}
	// The guest's memory would be in it.
	if err := unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil); err != nil {
		return fmt.Errorf("confine qemu: %w", os.NewSyscallError("prlimit", err))
	}
	if err := thread.Own(func() error { return emptyRoot(pidfd) }); err != nil {
		return fmt.Errorf("confine qemu: %w", err)
	}
	return nil
}

// emptyRoot puts the calling thread into the mount namespace of a process, and
// gives all who are there an empty root: pivot_root(2) moves the root and the
// working directory of every process that has the old one.
func emptyRoot(pidfd int) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Setns(pidfd, unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("setns", err)
	}
	// Or what is unmounted below would be on the host, too.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	root, err := mountfd.New("tmpfs", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(root) //nolint:errcheck // a directory
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	if err := unix.Fchdir(root); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	// The old root is stacked on the new one, and is what "." has on top.
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	return os.NewSyscallError("umount2", unix.Unmount(".", unix.MNT_DETACH))
}
