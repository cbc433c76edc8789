package setup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"runv/agent/mountopt"
)

// mountAll makes the mounts of the config, in order.
func mountAll(root *rootDir, c *Config) error {
	for i := range c.Mounts {
		m := &c.Mounts[i]
		if err := mountOne(root, m, c); err != nil {
			return fmt.Errorf("error mounting %q to rootfs at %q: %w", m.Source, m.Destination, err)
		}
		if path.Clean(m.Destination) == "/" {
			if err := root.renew(); err != nil {
				return err
			}
		}
	}
	return nil
}

// mountOne makes one mount. What the file systems of the kernel take as options,
// and which of them there are, is the kernel's to say.
func mountOne(root *rootDir, m *Mount, c *Config) error {
	o := mountopt.Parse(m.Options)
	if err := checkProc(root, m, &o); err != nil {
		return fmt.Errorf("check proc-safety of %s mount: %w", m.Destination, err)
	}
	if isBind(m, &o) {
		return bind(root, m, &o)
	}
	var err error
	switch {
	case m.Tree != "": // a file system that the host has mounted
		err = bindTree(root, m, &o, unix.MS_REC)
	case m.Type == "proc" || m.Type == "sysfs":
		err = mountKernel(root, m, &o)
	case m.Type == "tmpfs":
		err = mountTmpfs(root, m, &o)
	case IsCgroup(m.Type):
		err = mountCgroup(root, m, &o, c)
	default:
		err = mountNew(root, m, m.Type, &o, o.Data)
	}
	if err != nil {
		return err
	}
	return setAttributes(root, m, &o)
}

// isBind says whether a mount is a bind: by its options or by its type.
func isBind(m *Mount, o *mountopt.Options) bool { return o.IsBind() || m.Type == "bind" }

// setAttributes sets the propagation, then the recursive attributes.
func setAttributes(root *rootDir, m *Mount, o *mountopt.Options) error {
	// A call, and a lookup of what is mounted now, for each flag.
	for _, p := range o.Propagation {
		if err := root.again(m.Destination, p); err != nil {
			return fmt.Errorf("change mount propagation: %w", err)
		}
	}
	if o.Rec == nil {
		return nil
	}
	fd, err := root.reopen(m.Destination)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, o.Rec); err != nil {
		return os.NewSyscallError("mount_setattr", err)
	}
	return nil
}

// reopen opens what is mounted at a destination that was mounted on before.
func (r *rootDir) reopen(name string) (int, error) {
	rel, err := resolve(r.path, name)
	if err != nil {
		return -1, err
	}
	if rel == "" {
		rel = "."
	}
	fd, err := unix.Openat2(r.fd, rel, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// again calls mount(2) on what is already mounted at a destination.
func (r *rootDir) again(name string, flags uintptr) error {
	fd, err := r.reopen(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return mountopt.Error("", name, flags, "", unix.Mount("", fdPath(fd), "", flags, ""))
}

// delayed are the flags that a mount gets at once. Read-only waits for the end
// where files are still to be made, as in /dev (see finishReadonly).
func delayed(m *Mount, fstype string, flags uintptr) uintptr {
	if isDelayed(m, fstype) {
		return flags &^ unix.MS_RDONLY
	}
	return flags
}

func isDelayed(m *Mount, fstype string) bool {
	return fstype == "tmpfs" || path.Clean(m.Destination) == "/dev"
}

func mountNew(root *rootDir, m *Mount, fstype string, o *mountopt.Options, data string) error {
	fd, err := root.dir(m.Destination)
	if err != nil {
		return fmt.Errorf("create mountpoint for %s mount: %w", m.Destination, err)
	}
	defer unix.Close(fd)
	flags := delayed(m, fstype, o.Flags)
	err = mountopt.Error(m.Source, m.Destination, flags, data, unix.Mount(m.Source, fdPath(fd), fstype, flags, data))
	return mountopt.Unknown(err, "guest's", fstype)
}

// IsCgroup reports whether a type of mount shows cgroups. A container with one
// has a cgroup namespace of its own.
func IsCgroup(fstype string) bool { return fstype == "cgroup" || fstype == "cgroup2" }

// mountCgroup mounts cgroups of version 2, whatever version the config's author
// had. Programs look there for their limits, and the guest's other cgroups are
// none of theirs. Where the mount is refused, in a user namespace or where the
// guest's sysfs was bound, the container's part of the guest's hierarchy is bound.
func mountCgroup(root *rootDir, m *Mount, o *mountopt.Options, c *Config) error {
	err := mountNew(root, m, "cgroup2", o, "")
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EBUSY) {
		return err
	}
	return bindGuest(root, m, o, c.CgroupDir)
}

// bindGuest binds a directory of the guest.
func bindGuest(root *rootDir, m *Mount, o *mountopt.Options, source string) error {
	fd, err := root.dir(m.Destination)
	if err != nil {
		return fmt.Errorf("create mountpoint for %s mount: %w", m.Destination, err)
	}
	defer unix.Close(fd)
	const flags = unix.MS_BIND | unix.MS_REC
	if err := unix.Mount(source, fdPath(fd), "", flags, ""); err != nil {
		return mountopt.Error(source, m.Destination, flags, "", err)
	}
	return root.remountBind(m.Destination, o)
}

// mountKernel mounts proc or sysfs, which must not be where a symlink points:
// programs in the image could be made to trust what is in their place.
func mountKernel(root *rootDir, m *Mount, o *mountopt.Options) error {
	dir, base := path.Split(path.Clean("/" + m.Destination))
	parent, err := resolve(root.path, dir)
	if err != nil {
		return err
	}
	if fi, err := os.Lstat(path.Join(root.path, parent, base)); err == nil && !fi.IsDir() {
		return fmt.Errorf("filesystem %q must be mounted on ordinary directory", m.Type)
	}
	err = mountNew(root, m, m.Type, o, o.Data)
	if m.Type != "sysfs" || !errors.Is(err, unix.EPERM) {
		return err
	}
	// In a user namespace sysfs belongs to the owner of the network
	// namespace, which is the guest's: show the guest's.
	return bindGuest(root, m, o, "/sys")
}

// mountTmpfs gives the new file system the mode of the directory that it covers,
// unless the config has one, and its content with tmpcopyup.
func mountTmpfs(root *rootDir, m *Mount, o *mountopt.Options) error {
	data := o.Data
	var st unix.Stat_t
	if fd, err := root.reopen(m.Destination); err == nil {
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			data = strings.TrimSuffix(fmt.Sprintf("mode=%04o,%s", st.Mode&0o7777, data), ",")
		}
		unix.Close(fd)
	}
	if !o.CopyUp || st.Mode == 0 {
		return mountNew(root, m, "tmpfs", o, data)
	}
	from, err := root.reopen(m.Destination)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	if err := mountNew(root, m, "tmpfs", o, data); err != nil {
		return err
	}
	to, err := root.reopen(m.Destination)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	// from is below the new mount; its descriptor still leads to it.
	if err := copyTree(fdPath(from), fdPath(to)); err != nil {
		return fmt.Errorf("tmpcopyup: %w", err)
	}
	return nil
}

// finishReadonly remounts, once nothing is to be made any more, what was to be
// read-only from the start. The process is inside its root by now.
func finishReadonly(c *Config) error {
	for i := range c.Mounts {
		m := &c.Mounts[i]
		o := mountopt.Parse(m.Options)
		if o.Flags&unix.MS_RDONLY == 0 || isBind(m, &o) || m.Tree != "" || !isDelayed(m, m.Type) {
			continue
		}
		// With MS_BIND the flags of the mount alone change, which a user
		// namespace may do.
		flags := o.Flags | unix.MS_REMOUNT | unix.MS_BIND
		if err := unix.Mount("", m.Destination, "", flags, ""); err != nil {
			return mountopt.Error("", m.Destination, flags, "", err)
		}
	}
	return nil
}
