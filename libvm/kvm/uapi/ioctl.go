package uapi

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ioctl does an ioctl whose argument is a number, and returns its result.
func Ioctl(fd int, req, arg uintptr, name string) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, arg)
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR: // Go's own signals; KVM_RUN has its own call
			continue
		}
		return int(r), os.NewSyscallError(name, errno)
	}
}

// IoctlPtr does an ioctl whose argument is a struct that the kernel reads or
// fills during the call. The struct stays where it is meanwhile: that is what
// unsafe.Pointer's rule for system calls promises.
func IoctlPtr[T any](fd int, req uintptr, arg *T, name string) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(arg)))
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR:
			continue
		}
		return int(r), os.NewSyscallError(name, errno)
	}
}

// RunVCPU is KVM_RUN. It returns unix.EINTR, unwrapped, when a signal or
// immediate_exit ended it, and unix.EAGAIN when it is to be called again.
func RunVCPU(fd int) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), KVM_RUN, 0)
	switch errno {
	case 0:
		return nil
	case unix.EINTR, unix.EAGAIN:
		return errno
	}
	return os.NewSyscallError("KVM_RUN", errno)
}

// CheckExtension returns the value of a capability, 0 if it is not there.
func CheckExtension(fd int, capability uintptr) (int, error) {
	return Ioctl(fd, KVM_CHECK_EXTENSION, capability, "KVM_CHECK_EXTENSION")
}

// IsRetry reports whether err from RunVCPU only means that the guest did not
// exit.
func IsRetry(err error) bool {
	return errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN)
}
