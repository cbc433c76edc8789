package monitor

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"runv/libvm/apparmor"
	"runv/libvm/vm"
)

// kept are the capabilities that the file server needs to act for every user of
// the guest, and the one that it takes to redirect interfaces which come while the
// container runs. It is good for the container's network namespace, and no other:
// none can be entered any more.
const kept = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH |
	1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID | 1<<unix.CAP_SETFCAP | 1<<unix.CAP_MKNOD |
	1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | // files are made with their owner's ids
	1<<unix.CAP_NET_ADMIN

// forConfine are those with which the VM is locked up once its guest runs: to
// enter its mount namespace and to change that.
const forConfine = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_CHROOT

// onlineCPUs is how many vCPUs can run at the same time.
func onlineCPUs() int { return runtime.NumCPU() }

// errCgo says why a monitor of this build cannot run.
var errCgo = errors.New("this runv was built with cgo, in which Go cannot change the privileges of all threads: build it with make, or CGO_ENABLED=0")

// dropCapabilities cuts the capabilities of all threads down to some, for good.
// It takes milliseconds, in which the guest boots.
func dropCapabilities(some uint64) error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if kept>>c&1 != 0 {
			continue
		}
		// EINVAL: a capability that this kernel does not have.
		if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0); errno == unix.ENOTSUP {
			return errCgo
		} else if errno != 0 && errno != unix.EINVAL {
			return os.NewSyscallError("prctl", errno)
		}
	}
	if err := limitCapabilities(some); err != nil {
		return err
	}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); errno != 0 {
		return os.NewSyscallError("prctl", errno)
	}
	return nil
}

// limitCapabilities takes from all threads the capabilities that are not in some.
func limitCapabilities(some uint64) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&hdr, &have[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	var data [2]unix.CapUserData
	for i := range data {
		allowed := uint32(some >> (32 * i))
		data[i].Permitted = have[i].Permitted & allowed
		data[i].Effective = have[i].Permitted & allowed
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0)
	runtime.KeepAlive(&data)
	if errno != 0 {
		return os.NewSyscallError("capset", errno)
	}
	return nil
}

// confine locks up the VM, whose guest has run nothing but our agent so far, and
// gives away the last privileges that this took.
func (m *monitor) confine() error {
	if c, ok := m.machine.vm.(vm.Confiner); ok {
		if err := c.Confine(); err != nil {
			return err
		}
	}
	// A profile of a container forbids to mount, which all before this does.
	change, err := apparmor.NewChange(m.profile())
	if err != nil {
		return err
	}
	defer change.Close()
	if err := limitCapabilities(kept); err != nil {
		return err
	}
	// Behind the change of capabilities, for which Go sends signals to its threads.
	if err := change.Apply(); err != nil {
		return err
	}
	return installFilter()
}
