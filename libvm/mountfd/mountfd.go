// Package mountfd makes file systems that are mounted nowhere.
package mountfd

import (
	"os"

	"golang.org/x/sys/unix"
)

// New returns the root of a new file system of a type (fsmount(2), Linux 5.2),
// which lives as long as the descriptor, or a mount made of it. attributes are
// those of the mount (MOUNT_ATTR_*).
func New(fsType string, attributes int) (int, error) {
	fs, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs) //nolint:errcheck // the mount is what counts
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes)
	return fd, os.NewSyscallError("fsmount", err)
}
