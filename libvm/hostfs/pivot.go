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
	if err := unix.Fchdir(int(v.root.Fd())); err != nil {
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
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("pivot: %w", os.NewSyscallError("chdir", err))
	}
	return nil
}
