package hostfs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/mountopt"
)

// kernelTypes are the file systems, by their magic number of statfs(2), that show
// what a kernel has: a container sees its kernel's, which is the guest's.
var kernelTypes = []int64{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC,
	unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.SELINUX_MAGIC, unix.PSTOREFS_MAGIC,
	unix.EFIVARFS_MAGIC, unix.BINFMTFS_MAGIC, configfsMagic,
}

const configfsMagic = 0x62656570 // fs/configfs/mount.c

// bind finds out what the source is, shares it and shows it.
func (v *View) bind(i int, m *specs.Mount, o *mountopt.Options) error {
	src := m.Source
	if !filepath.IsAbs(src) {
		src = filepath.Join(v.bundle, src)
	}
	var st unix.Stat_t
	if err := unix.Stat(src, &st); err != nil {
		return &os.PathError{Op: "stat", Path: src, Err: err}
	}
	var sfs unix.Statfs_t
	if err := unix.Statfs(src, &sfs); err != nil {
		return &os.PathError{Op: "statfs", Path: src, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	switch {
	case kind != unix.S_IFDIR && kind != unix.S_IFREG && idMappings(m, o) != nil,
		ofKernel(src, &sfs) && idMappings(m, o) != nil:
		// As mount_setattr(2) refuses it.
		return fmt.Errorf("failed to set MOUNT_ATTR_IDMAP on %s: %w (only directories and files of the host can be id-mapped)", src, unix.EINVAL)
	case kind == unix.S_IFCHR || kind == unix.S_IFBLK:
		return v.bindNode(i, m, src, &st)
	case sfs.Type == unix.NSFS_MAGIC:
		return fmt.Errorf("bind of %q: a namespace of the host cannot be shared with the guest", src)
	case kind != unix.S_IFDIR && kind != unix.S_IFREG && kind != unix.S_IFSOCK:
		return fmt.Errorf("bind of %q: only directories, regular files, sockets and devices can be shared with the guest", src)
	case ofKernel(src, &sfs):
		return v.bindKernel(i, m, src, kind == unix.S_IFDIR, sfs.Type == unix.PROC_SUPER_MAGIC)
	}
	return v.bindTree(i, m, o, src, kind != unix.S_IFDIR)
}

// ofKernel says whether a path is in a file system that shows what a kernel has. A
// tmpfs below /sys is one on which others are mounted: cgroups of version 1.
func ofKernel(path string, sfs *unix.Statfs_t) bool {
	if slices.Contains(kernelTypes, sfs.Type) {
		return true
	}
	path, err := filepath.EvalSymlinks(path)
	return err == nil && sfs.Type == unix.TMPFS_MAGIC && strings.HasPrefix(path, "/sys/")
}

// bindKernel has the guest bind the same of its own kernel's.
func (v *View) bindKernel(i int, m *specs.Mount, src string, dir, proc bool) error {
	path, err := filepath.EvalSymlinks(src)
	if err != nil {
		return err
	}
	v.Trees = append(v.Trees, Tree{Mount: i, Guest: path})
	if dir {
		return v.cover(m.Destination, proc && path == "/proc")
	}
	dest, err := v.destination(m.Destination, true)
	if err != nil {
		return err
	}
	return dest.Close()
}

// bindNode has the guest make a node of the same device. In the view the host's
// node is shown, which cannot be opened there.
func (v *View) bindNode(i int, m *specs.Mount, src string, st *unix.Stat_t) error {
	v.Trees = append(v.Trees, Tree{Mount: i, Name: treeName(src), Node: &Node{
		Mode: st.Mode, UID: st.Uid, GID: st.Gid, Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev),
	}})
	shown, err := openTree(src, false)
	if err != nil {
		return err
	}
	defer shown.Close() //nolint:errcheck // attached by then
	if err := harden(shown); err != nil {
		return err
	}
	return v.show(shown, m.Destination, true)
}

// bindTree clones the source twice, to be served and to be shown. A read-only
// bind is read-only in both, whatever the guest does.
func (v *View) bindTree(i int, m *specs.Mount, o *mountopt.Options, src string, file bool) error {
	readOnly, recursive := readOnly(o)
	rec := o.Flags&unix.MS_REC != 0
	served, err := openTree(src, rec)
	if err != nil {
		return err
	}
	v.Trees = append(v.Trees, Tree{Mount: i, Name: treeName(src), Root: served, ReadOnly: readOnly, IDs: idMappings(m, o)})
	if err := harden(served); err != nil {
		return err
	}
	shown, err := openTree(src, rec)
	if err != nil {
		return err
	}
	defer shown.Close() //nolint:errcheck // attached by then
	if err := setAttr(shown, true, unix.MOUNT_ATTR_NODEV); err != nil {
		return err
	}
	for _, f := range []*os.File{served, shown} {
		if !readOnly {
			break
		}
		if err := setAttr(f, recursive, unix.MOUNT_ATTR_RDONLY); err != nil {
			return err
		}
	}
	if follows(o) || v.attach {
		// Only a mount that is attached gets what the host mounts below its
		// source. Under the shown one nothing of the view is mounted on it.
		if err := v.keepFrom(served, follows(o)); err != nil {
			return err
		}
		if err := v.show(served, m.Destination, file); err != nil {
			return err
		}
	}
	return v.show(shown, m.Destination, file)
}

// idMappings returns those of an id-mapped mount, or nil.
func idMappings(m *specs.Mount, o *mountopt.Options) *IDMappings {
	if len(m.UIDMappings) == 0 && len(m.GIDMappings) == 0 {
		return nil
	}
	return &IDMappings{UID: m.UIDMappings, GID: m.GIDMappings, Recursive: o.RecIDMap}
}

// readOnly says whether a bind is read-only, and whether its submounts are, too.
func readOnly(o *mountopt.Options) (top, recursive bool) {
	recursive = o.Rec != nil && o.Rec.Attr_set&unix.MOUNT_ATTR_RDONLY != 0
	return recursive || o.Flags&unix.MS_RDONLY != 0 && (o.Rec == nil || o.Rec.Attr_clr&unix.MOUNT_ATTR_RDONLY == 0), recursive
}

// follows says whether the guest is to see what the host mounts below the source
// of a bind later on.
func follows(o *mountopt.Options) bool {
	return slices.ContainsFunc(o.Propagation, func(p uintptr) bool { return p&(unix.MS_SLAVE|unix.MS_SHARED) != 0 })
}

// show mounts a detached mount at its destination in the view.
func (v *View) show(f *os.File, path string, file bool) error {
	dest, err := v.destination(path, file)
	if err != nil {
		return err
	}
	defer dest.Close() //nolint:errcheck // O_PATH
	var st unix.Stat_t
	if err := unix.Fstat(int(dest.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if dir := st.Mode&unix.S_IFMT == unix.S_IFDIR; dir == file {
		return mountopt.Error(f.Name(), path, unix.MS_BIND, "", unix.ENOTDIR)
	}
	if err := unix.MoveMount(int(f.Fd()), "", int(dest.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("show %q: %w", f.Name(), os.NewSyscallError("move_mount", err))
	}
	return nil
}
