package mem

import (
	"os"

	"golang.org/x/sys/unix"
)

// NewFile makes a file in memory for size bytes of a guest's RAM, all zero, which
// keeps that size: whoever has mapped a memory that shrank is killed by SIGBUS.
// Pages cost nothing until they are touched.
func NewFile(size uint64) (*os.File, error) {
	fd, err := unix.MemfdCreate("runv-ram", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "runv-ram")
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		f.Close() //nolint:errcheck // nothing is in it
		return nil, os.NewSyscallError("ftruncate", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		f.Close() //nolint:errcheck // nothing is in it
		return nil, os.NewSyscallError("fcntl", err)
	}
	return f, nil
}
