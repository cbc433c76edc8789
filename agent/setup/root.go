package setup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"runv/agent/mountopt"
)

// makeRoot makes the container's file system view and enters it.
func makeRoot(c *Config) error {
	if err := bindRoot(c); err != nil {
		return err
	}
	root, err := openRoot(c.Base)
	if err != nil {
		return err
	}
	defer root.close()
	if err := mountAll(root, c); err != nil {
		return err
	}
	if ownsDev(c) {
		if err := makeDevices(root, c); err != nil {
			return err
		}
	}
	if err := pivot(c.Base); err != nil {
		return err
	}
	if err := propagateRoot(c); err != nil {
		return err
	}
	if cwd := c.Process.Cwd; cwd != "" {
		if err := os.MkdirAll(cwd, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// propagateRoot sets linux.rootfsPropagation, after the pivot: pivot_root(2) takes
// no shared root. A recursive one is not for the mounts that have their own.
func propagateRoot(c *Config) error {
	flag, _ := mountopt.Propagation(c.Propagation)
	if flag == 0 {
		return nil
	}
	if err := unix.Mount("", "/", "", flag, ""); err != nil {
		return fmt.Errorf("rootfsPropagation %s: %w", c.Propagation, err)
	}
	if flag&unix.MS_REC == 0 {
		return nil
	}
	for i := range c.Mounts {
		m := &c.Mounts[i]
		o := mountopt.Parse(m.Options)
		for _, p := range o.Propagation {
			if err := unix.Mount("", m.Destination, "", p, ""); err != nil {
				return fmt.Errorf("change mount propagation: %w", mountopt.Error("", m.Destination, p, "", err))
			}
		}
	}
	return nil
}

// bindRoot puts the root file system on its place.
func bindRoot(c *Config) error {
	if _, ok := mountopt.Propagation(c.Propagation); !ok && c.Propagation != "" {
		return fmt.Errorf("rootfsPropagation=%s is not supported", c.Propagation)
	}
	// Whatever the config says of its root, the guest's own mounts are none of
	// the container's.
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("set the propagation of /: %w", err)
	}
	// What holds the new root must be private: the bind would appear in the
	// guest, and pivot_root refuses a shared parent.
	if err := privateParent(c.Base); err != nil {
		return err
	}
	fd, err := unix.Open(c.Rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open rootfs", Path: c.Rootfs, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Mount(fdPath(fd), c.Base, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind the rootfs: %w", err)
	}
	return nil
}

// privateParent makes the mount that holds a directory private. mount(2) refuses
// a directory that is no mount point with EINVAL.
func privateParent(dir string) error {
	for {
		err := unix.Mount("", dir, "", unix.MS_PRIVATE, "")
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINVAL) || dir == "/" {
			return fmt.Errorf("make the mount of the rootfs's parent private: %w", err)
		}
		dir = filepath.Dir(dir)
	}
}

// pivot makes a mount the root, and detaches what was the root before, which
// pivot_root(".", ".") puts on top of it.
func pivot(root string) error {
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/", Err: err}
	}
	defer unix.Close(old)
	if err := unix.Chdir(root); err != nil {
		return &os.PathError{Op: "chdir", Path: root, Err: err}
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Fchdir(old); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	// A slave, so that the unmounts do not reach the guest.
	if err := unix.Mount("", ".", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return &os.PathError{Op: "chdir", Path: "/", Err: err}
	}
	return nil
}

// readonlyRoot remounts / read-only, and keeps the flags that it has.
func readonlyRoot() error {
	flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY)
	if err := unix.Mount("", "/", "", flags, ""); err == nil {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		return &os.PathError{Op: "statfs", Path: "/", Err: err}
	}
	for _, f := range statfsFlags {
		if uintptr(st.Flags)&f.st != 0 {
			flags |= f.ms
		}
	}
	if err := unix.Mount("", "/", "", flags, ""); err != nil {
		return fmt.Errorf("remount the rootfs read-only: %w", err)
	}
	return nil
}
