package setup

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"runv/agent/sysctl"
)

// readonlyPath makes a path of the container read-only, if it exists.
func readonlyPath(path string) error {
	if err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return fmt.Errorf("make path %s read-only: %w", path, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_REC)
	for _, f := range statfsFlags {
		if uintptr(st.Flags)&f.st != 0 {
			flags |= f.ms
		}
	}
	if err := unix.Mount(path, path, "", flags, ""); err != nil {
		return fmt.Errorf("make path %s read-only: %w", path, err)
	}
	return nil
}

// maskPath hides a path of the container, if it exists: a file by the null
// device, a directory by an empty one.
func maskPath(path string) error {
	err := unix.Mount("/dev/null", path, "", unix.MS_BIND, "")
	if errors.Is(err, unix.ENOTDIR) {
		err = unix.Mount("tmpfs", path, "tmpfs", unix.MS_RDONLY, "")
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("mask path %s: %w", path, err)
	}
	return nil
}

// WriteSysctl sets a kernel parameter for the namespaces of the caller.
func WriteSysctl(key, value string) error {
	file, err := sysctl.File(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		return fmt.Errorf("sysctl %q: %w", key, err)
	}
	return nil
}
