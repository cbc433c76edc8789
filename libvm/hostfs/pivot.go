package hostfs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Pivot makes the view the root of the calling process and lets go of the
// host's file systems: no path leads to them any more. Trees and descriptors
// that are open stay usable.
func (v *View) Pivot() error {
	// pivot_root(".", ".") stacks the old root on the new one, from where it is
	// unmounted; nothing has to be made in the rootfs for it (pivot_root(2)).
	old, err := os.Open("/")
	if err != nil {
		return fmt.Errorf("pivot: %w", err)
	}
	defer old.Close() //nolint:errcheck // a directory
	base := v.root
	if v.follows || v.attach {
		base = v.Trees[0].Root // under the view's root, with which it stays mounted
	}
	if err := unix.Fchdir(int(base.Fd())); err != nil {
		return fmt.Errorf("pivot: %w", os.NewSyscallError("fchdir", err))
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot into %q: %w", v.rootfs, os.NewSyscallError("pivot_root", err))
	}
	if err := unix.Fchdir(int(old.Fd())); err != nil {
		return fmt.Errorf("pivot: %w", os.NewSyscallError("fchdir", err))
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the host's root: %w", os.NewSyscallError("umount2", err))
	}
	if v.follows || v.attach {
		if err := v.enter(); err != nil {
			return err
		}
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("pivot: %w", os.NewSyscallError("chdir", err))
	}
	return nil
}

// enter makes the view's root the calling process's where it lies over the root of
// its mount namespace. Who enters that is led to the view's by the kernel.
func (v *View) enter() error {
	if err := unix.Fchdir(int(v.root.Fd())); err != nil {
		return fmt.Errorf("pivot: %w", os.NewSyscallError("fchdir", err))
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("pivot: %w", os.NewSyscallError("chroot", err))
	}
	return nil
}
