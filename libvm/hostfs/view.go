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
	"slices"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"
	"golang.org/x/sys/unix"

	"runv/agent/mountopt"
	"runv/libvm/apparmor"
)

// RootfsMount is the Mount of the tree that is the container's root.
const RootfsMount = -1

// Tree is what the guest mounts for one of the config's mounts, if that is not of
// the guest's alone: Root, or Guest, or Node.
type Tree struct {
	Mount    int      // index into the spec's mounts, or RootfsMount
	Name     string   // base name of the source, which mountinfo shows
	Root     *os.File // a file or directory of the host: O_PATH of a mount; owned by whoever has the Tree
	ReadOnly bool
	IDs      *IDMappings // other owners of Root's files; nil: those that they have
	Guest    string      // absolute path in the guest: a part of one of its kernel's file systems
	Node     *Node       // a device node
}

// IDMappings are those of an id-mapped mount: a file whose owner is ContainerID on
// disk is HostID's to the guest's kernel.
type IDMappings struct {
	UID, GID  []specs.LinuxIDMapping
	Recursive bool // of what is mounted below, too
}

// Node is a device node that a bind shows. The driver behind it is the guest's.
type Node struct {
	Mode         uint32 // S_IFCHR or S_IFBLK, and the permissions
	UID, GID     uint32
	Major, Minor uint32
}

// View is the mount namespace that is being prepared.
type View struct {
	bundle string   // absolute; relative sources are below it
	rootfs string   // absolute
	label  string   // of SELinux, for what is mounted
	root   *os.File // O_PATH of the view's root
	// follows: what the host mounts below the rootfs later on is seen in it. Only
	// a mount that is attached gets that.
	follows bool
	// attach: what is served is mounted, too, under what the view shows in its place.
	// So its files have the paths that they have in the container, by which AppArmor goes.
	attach bool
	Trees  []Tree
}

// Separate prepares the calling process's mount namespace, which must be its own:
// nothing that is mounted in it appears on the host; what is mounted on the host
// may still appear here.
func Separate() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts slaves of the host's: %w", err)
	}
	return nil
}

// Prepare builds the view of spec, whose root file system is the directory
// rootfs and whose bundle is the directory bundle (both absolute), in the calling
// process's mount namespace, which Separate has prepared. In spec it completes the options
// of what the guest is to mount. Mount points that are missing are made in the order of the mounts, as a
// container runtime does. On failure the caller exits, and the namespace with it.
func Prepare(bundle, rootfs string, spec *specs.Spec) (*View, error) {
	v := &View{bundle: bundle, rootfs: rootfs}
	if l := spec.Linux; l != nil {
		if l.MountLabel != "" && selinux.GetEnabled() {
			v.label = l.MountLabel
		}
		p, _ := mountopt.Propagation(l.RootfsPropagation)
		v.follows = p&(unix.MS_SLAVE|unix.MS_SHARED) != 0
	}
	v.attach = spec.Process != nil && !apparmor.None(spec.Process.ApparmorProfile)
	if err := v.attachRootfs(); err != nil {
		return nil, err
	}
	for i := range spec.Mounts {
		if err := v.mount(i, &spec.Mounts[i]); err != nil {
			return nil, fmt.Errorf("error mounting %q to rootfs at %q: %w", spec.Mounts[i].Source, spec.Mounts[i].Destination, err)
		}
		if filepath.Clean(spec.Mounts[i].Destination) == "/" {
			if err := v.renew(); err != nil {
				return nil, err
			}
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
		if t.Root != nil {
			t.Root.Close() //nolint:errcheck // O_PATH
		}
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
	if v.follows || v.attach {
		if err := v.keepFrom(served, v.follows); err != nil {
			return err
		}
		if err := v.overRootfs(served); err != nil {
			return err
		}
	}
	if err := setAttr(shown, true, unix.MOUNT_ATTR_NODEV); err != nil {
		return fmt.Errorf("rootfs %q: %w", v.rootfs, err)
	}
	return v.overRootfs(shown)
}

// overRootfs mounts a detached mount over the rootfs.
func (v *View) overRootfs(f *os.File) error {
	if err := unix.MoveMount(int(f.Fd()), "", unix.AT_FDCWD, v.rootfs, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount rootfs %q: %w", v.rootfs, os.NewSyscallError("move_mount", err))
	}
	return nil
}

// renew goes on in what was mounted over the root.
func (v *View) renew() error {
	fd, err := unix.Open(v.rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: v.rootfs, Err: err}
	}
	v.root.Close() //nolint:errcheck // O_PATH
	v.root = os.NewFile(uintptr(fd), v.rootfs)
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

// guestTypes are the file systems that are the guest's kernel's own: all that
// they show is in the guest. Others have their content on the host, and are
// mounted there.
var guestTypes = []string{
	"binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs", "fusectl",
	"hugetlbfs", "mqueue", "proc", "pstore", "ramfs", "resctrl", "securityfs", "selinuxfs", "sysfs", "tmpfs", "tracefs",
}

// mount shows one mount of the config in the view, and shares what the guest
// needs of the host for it.
func (v *View) mount(i int, m *specs.Mount) error {
	o := mountopt.Parse(m.Options)
	switch bind := o.IsBind() || m.Type == "bind"; {
	case bind && o.Flags&unix.MS_REMOUNT != 0:
		return v.remount(m, &o)
	case bind:
		return v.bind(i, m, &o)
	case o.Flags&unix.MS_REMOUNT != 0:
		return nil // of a file system of the guest
	case slices.Contains(guestTypes, m.Type):
		return v.mountGuest(m)
	}
	return v.mountHost(i, m, &o)
}

// mountGuest covers the place of what the guest mounts. A tmpfs takes its mode from
// the directory that it covers; where there was none until we made it, it is to
// have its own, which every option of the config may follow.
func (v *View) mountGuest(m *specs.Mount) error {
	if m.Type == "tmpfs" && !v.exists(m.Destination) {
		m.Options = slices.Concat([]string{"mode=1777"}, m.Options)
	}
	return v.cover(m.Destination, m.Type == "proc")
}

func (v *View) exists(path string) bool {
	f, err := pathrs.OpenatInRoot(v.root, path)
	if err != nil {
		return false
	}
	f.Close() //nolint:errcheck // O_PATH
	return true
}

// cover shows what is mounted only in the guest: /proc as the monitor's, all else
// as an empty directory.
func (v *View) cover(path string, proc bool) error {
	dest, err := v.destination(path, false)
	if err != nil {
		return err
	}
	defer dest.Close() //nolint:errcheck // O_PATH
	fsType, data := "tmpfs", "mode=755,size=4m,nr_inodes=4k"
	if proc {
		fsType, data = "proc", ""
	}
	if err := unix.Mount(fsType, fdPath(dest), fsType, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, data); err != nil {
		return fmt.Errorf("mount %s in the monitor's view: %w", fsType, err)
	}
	return nil
}

// remount makes what a bind with the option remount makes read-only so in the
// view, if it is mounted there; the guest says whether it is.
func (v *View) remount(m *specs.Mount, o *mountopt.Options) error {
	dest, err := v.destination(m.Destination, false)
	if err != nil || o.Flags&unix.MS_RDONLY == 0 {
		return err
	}
	defer dest.Close()                           //nolint:errcheck // O_PATH
	setAttr(dest, false, unix.MOUNT_ATTR_RDONLY) //nolint:errcheck // EINVAL: it is not
	return nil
}

// mountHost mounts a file system whose content is the host's, as a container
// runtime would, and shares it.
func (v *View) mountHost(i int, m *specs.Mount, o *mountopt.Options) error {
	dest, err := v.destination(m.Destination, false)
	if err != nil {
		return err
	}
	defer dest.Close() //nolint:errcheck // O_PATH
	data := label.FormatMountLabel(o.Data, v.label)
	if err := unix.Mount(m.Source, fdPath(dest), m.Type, o.Flags, data); err != nil {
		return mountopt.Unknown(mountopt.Error(m.Source, m.Destination, o.Flags, data, err), "host's", m.Type)
	}
	mounted, err := v.destination(m.Destination, false)
	if err != nil {
		return err
	}
	other, err := cloneTree(mounted)
	if err != nil {
		mounted.Close() //nolint:errcheck // O_PATH
		return err
	}
	served, shown := other, mounted
	if v.attach {
		served, shown = mounted, other
	}
	defer shown.Close() //nolint:errcheck // O_PATH
	v.Trees = append(v.Trees, Tree{Mount: i, Name: treeName(m.Source), Root: served, ReadOnly: o.Flags&unix.MS_RDONLY != 0})
	if err := harden(served); err != nil || !v.attach {
		return err
	}
	return v.show(shown, m.Destination, false)
}

func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
