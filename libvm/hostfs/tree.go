package hostfs

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// openTree clones the mount at path, with what is mounted below it if recursive,
// into a detached mount (open_tree(2), Linux 5.2), which lives as long as the
// returned O_PATH descriptor or a mount made of it.
func openTree(path string, recursive bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// cloneTree is openTree of the mount that f is the root of, without submounts.
func cloneTree(f *os.File) (*os.File, error) {
	fd, err := unix.OpenTree(int(f.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: f.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// setAttr sets MOUNT_ATTR_* bits on the mount that f is the root of
// (mount_setattr(2), Linux 5.12).
func setAttr(f *os.File, recursive bool, attr uint64) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	err := unix.MountSetattr(int(f.Fd()), "", flags, &unix.MountAttr{Attr_set: attr})
	return os.NewSyscallError("mount_setattr", err)
}

// keepFrom has a tree that is about to be attached get nothing of what the host
// mounts later on, unless it is to follow that.
func (v *View) keepFrom(f *os.File, follow bool) error {
	if follow {
		return nil
	}
	err := unix.MountSetattr(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
	return os.NewSyscallError("mount_setattr", err)
}

// harden makes the host's kernel refuse to open a device of a served tree: a
// guest can make the node of any, and nothing but our file server's own checks
// would be between it and the disks of the host.
func harden(f *os.File) error {
	if err := setAttr(f, true, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID); err != nil {
		return fmt.Errorf("share %q: %w", f.Name(), err)
	}
	return nil
}

// treeName is the name under which a source appears to the guest.
func treeName(src string) string {
	if base := filepath.Base(src); base != "/" && base != "." {
		return base
	}
	return "root"
}
