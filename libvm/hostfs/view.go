// Package hostfs prepares what the host shares with one guest: for each shared
// tree a detached mount that the file server serves, and, in the monitor's own
// mount namespace, a view of the container's file systems. The view is what
// engines see of the container through the monitor's pid (podman cp, nsenter),
// and, once the monitor has pivoted into it, it is all that a guest which broke
// into the monitor could reach.
package hostfs

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// RootfsMount is the Mount of the tree that is the container's root.
const RootfsMount = -1

// Tree is one directory or file of the host that the guest sees.
type Tree struct {
	Mount    int      // index into the spec's mounts, or RootfsMount
	Name     string   // base name of the source, which mountinfo shows
	Root     *os.File // O_PATH of a detached mount; owned by whoever has the Tree
	ReadOnly bool
}

// View is the mount namespace that is being prepared.
type View struct {
	bundle string   // absolute; relative sources are below it
	rootfs string   // absolute
	root   *os.File // O_PATH of the view's root
	Trees  []Tree
}

// Prepare builds the view of spec, whose root file system is the directory
// rootfs and whose bundle is the directory bundle (both absolute), in the calling
// process's mount namespace, which must be its own. Mount points that are missing are made in the order of the mounts, as a
// container runtime does. On failure the caller exits, and the namespace with it.
func Prepare(bundle, rootfs string, spec *specs.Spec) (*View, error) {
	// Nothing that is mounted here may appear on the host; what is mounted on
	// the host may still appear here.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return nil, fmt.Errorf("make mounts slaves of the host's: %w", err)
	}
	v := &View{bundle: bundle, rootfs: rootfs}
	if err := v.attachRootfs(); err != nil {
		return nil, err
	}
	for i := range spec.Mounts {
		if err := v.mount(i, &spec.Mounts[i]); err != nil {
			return nil, fmt.Errorf("mounts[%d] (%s): %w", i, spec.Mounts[i].Destination, err)
		}
	}
	if spec.Root != nil && spec.Root.Readonly {
		if err := v.protectRootfs(); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// Close frees the trees and the view's descriptors.
func (v *View) Close() {
	for _, t := range v.Trees {
		t.Root.Close() //nolint:errcheck // O_PATH
	}
	if v.root != nil {
		v.root.Close() //nolint:errcheck // O_PATH
	}
}

// attachRootfs clones the rootfs twice: once to be served, once mounted over
// itself as the root of the view.
func (v *View) attachRootfs() error {
	served, err := openTree(v.rootfs, true)
	if err != nil {
		return fmt.Errorf("rootfs %q: %w", v.rootfs, err)
	}
	if err := harden(served); err != nil {
		served.Close() //nolint:errcheck // O_PATH
		return err
	}
	v.Trees = append(v.Trees, Tree{Mount: RootfsMount, Name: treeName(v.rootfs), Root: served})
	shown, err := openTree(v.rootfs, true)
	if err != nil {
		return fmt.Errorf("rootfs %q: %w", v.rootfs, err)
	}
	v.root = shown
	if err := unix.MoveMount(int(shown.Fd()), "", unix.AT_FDCWD, v.rootfs, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount rootfs %q: %w", v.rootfs, os.NewSyscallError("move_mount", err))
	}
	return nil
}

// protectRootfs makes the served rootfs and the view's read-only. Like runc it
// leaves what is mounted below the rootfs as it is.
func (v *View) protectRootfs() error {
	for _, f := range []*os.File{v.Trees[0].Root, v.root} {
		if err := setAttr(f, false, unix.MOUNT_ATTR_RDONLY); err != nil {
			return fmt.Errorf("rootfs read-only: %w", err)
		}
	}
	v.Trees[0].ReadOnly = true
	return nil
}

// mount shows one mount of the config in the view: binds and /proc as they are,
// everything else, which is mounted only in the guest, as an empty directory.
func (v *View) mount(i int, m *specs.Mount) error {
	if isBind(m) {
		return v.bind(i, m)
	}
	dest, err := v.destination(m.Destination, false)
	if err != nil {
		return err
	}
	defer dest.Close() //nolint:errcheck // O_PATH
	fsType, data := "tmpfs", "mode=755,size=4m,nr_inodes=4k"
	if m.Type == "proc" {
		fsType, data = "proc", ""
	}
	target := fmt.Sprintf("/proc/self/fd/%d", dest.Fd())
	if err := unix.Mount(fsType, target, fsType, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, data); err != nil {
		return fmt.Errorf("mount %s in the monitor's view: %w", fsType, err)
	}
	return nil
}

// bind clones the source twice, to be served and to be shown. A read-only bind
// is read-only in both, whatever the guest does.
func (v *View) bind(i int, m *specs.Mount) error {
	src := m.Source
	if !filepath.IsAbs(src) {
		src = filepath.Join(v.bundle, src)
	}
	var st unix.Stat_t
	if err := unix.Stat(src, &st); err != nil {
		return fmt.Errorf("bind source: %w", &os.PathError{Op: "stat", Path: src, Err: err})
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && kind != unix.S_IFREG {
		return fmt.Errorf("bind of %q: only directories and regular files can be shared with the guest", src)
	}
	o := bindOptions(m.Options)
	served, err := openTree(src, o.recursive)
	if err != nil {
		return err
	}
	if err := harden(served); err != nil {
		served.Close() //nolint:errcheck // O_PATH
		return err
	}
	v.Trees = append(v.Trees, Tree{Mount: i, Name: treeName(src), Root: served, ReadOnly: o.readOnly})
	shown, err := openTree(src, o.recursive)
	if err != nil {
		return err
	}
	defer shown.Close() //nolint:errcheck // attached by then
	for _, f := range []*os.File{served, shown} {
		if !o.readOnly {
			break
		}
		if err := setAttr(f, o.recursiveReadOnly, unix.MOUNT_ATTR_RDONLY); err != nil {
			return err
		}
	}
	dest, err := v.destination(m.Destination, kind == unix.S_IFREG)
	if err != nil {
		return err
	}
	defer dest.Close() //nolint:errcheck // O_PATH
	if err := unix.MoveMount(int(shown.Fd()), "", int(dest.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("show %q: %w", src, os.NewSyscallError("move_mount", err))
	}
	return nil
}
