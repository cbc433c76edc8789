package setup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountAll makes the mounts of the config, in order.
func mountAll(root *rootDir, c *Config) error {
	for i := range c.Mounts {
		m := &c.Mounts[i]
		if err := mountOne(root, m, c); err != nil {
			return fmt.Errorf("error mounting %q to rootfs at %q: %w", m.Source, m.Destination, err)
		}
	}
	return nil
}

func mountOne(root *rootDir, m *Mount, c *Config) error {
	o := parseOptions(m.Options)
	if o.flags&unix.MS_BIND != 0 {
		return bind(root, m, o)
	}
	var err error
	switch m.Type {
	case "bind":
		o.flags |= unix.MS_BIND
		return bind(root, m, o)
	case "proc", "sysfs":
		err = mountKernel(root, m, o)
	case "tmpfs":
		err = mountTmpfs(root, m, o)
	case "cgroup", "cgroup2":
		err = mountCgroup(root, m, o, c)
	default:
		err = mountNew(root, m, m.Type, o, o.data)
	}
	if err != nil {
		return err
	}
	return setAttributes(root, m, o)
}

// setAttributes sets the propagation, then the recursive attributes.
func setAttributes(root *rootDir, m *Mount, o mountOptions) error {
	if err := propagate(root, m, o); err != nil || o.rec == nil {
		return err
	}
	fd, err := root.reopen(m.Destination)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, o.rec); err != nil {
		return os.NewSyscallError("mount_setattr", err)
	}
	return nil
}

// propagate needs a call, and a lookup of what is mounted now, for each flag.
func propagate(root *rootDir, m *Mount, o mountOptions) error {
	for _, p := range o.propagation {
		if err := root.again(m.Destination, p, ""); err != nil {
			return err
		}
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
func (r *rootDir) again(name string, flags uintptr, data string) error {
	fd, err := r.reopen(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return mountError(unix.Mount("", fdPath(fd), "", flags, data), flags, data)
}

func mountError(err error, flags uintptr, data string) error {
	if err == nil {
		return nil
	}
	text := fmt.Sprintf("mount (flags: %#x", flags)
	if data != "" {
		text += ", data: " + strconv.Quote(data)
	}
	return fmt.Errorf("%s): %w", text, err)
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

func mountNew(root *rootDir, m *Mount, fstype string, o mountOptions, data string) error {
	fd, err := root.dir(m.Destination)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	flags := delayed(m, fstype, o.flags)
	return mountError(unix.Mount(m.Source, fdPath(fd), fstype, flags, data), flags, data)
}

// mountCgroup mounts cgroups of version 2, whatever version the config's author
// had. Without a cgroup namespace the container's part of the guest's hierarchy
// is bound, as runc does for version 1: programs look there for their limits, and
// the guest's other cgroups are none of theirs. So it is where the mount is
// refused: in a user namespace, or where the guest's sysfs was bound.
func mountCgroup(root *rootDir, m *Mount, o mountOptions, c *Config) error {
	if !c.CgroupNS {
		return bindGuest(root, m, o, c.CgroupDir)
	}
	err := mountNew(root, m, "cgroup2", o, "")
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EBUSY) {
		return err
	}
	return bindGuest(root, m, o, c.CgroupDir)
}

// bindGuest binds a directory of the guest.
func bindGuest(root *rootDir, m *Mount, o mountOptions, source string) error {
	fd, err := root.dir(m.Destination)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Mount(source, fdPath(fd), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return &os.PathError{Op: "bind", Path: source, Err: err}
	}
	return root.remountBind(m.Destination, o.flags)
}

// mountKernel mounts proc or sysfs, which must not be where a symlink points:
// programs in the image could be made to trust what is in their place.
func mountKernel(root *rootDir, m *Mount, o mountOptions) error {
	dir, base := path.Split(path.Clean("/" + m.Destination))
	parent, err := resolve(root.path, dir)
	if err != nil {
		return err
	}
	if fi, err := os.Lstat(path.Join(root.path, parent, base)); err == nil && !fi.IsDir() {
		return fmt.Errorf("filesystem %q must be mounted on ordinary directory", m.Type)
	}
	err = mountNew(root, m, m.Type, o, o.data)
	if m.Type != "sysfs" || !errors.Is(err, unix.EPERM) {
		return err
	}
	// In a user namespace sysfs belongs to the owner of the network
	// namespace, which is the guest's: show the guest's.
	return bindGuest(root, m, o, "/sys")
}

// mountTmpfs gives the new file system the mode of the directory that it covers,
// unless the config has one, and its content with tmpcopyup.
func mountTmpfs(root *rootDir, m *Mount, o mountOptions) error {
	data := o.data
	var st unix.Stat_t
	if fd, err := root.reopen(m.Destination); err == nil {
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			data = strings.TrimSuffix(fmt.Sprintf("mode=%04o,%s", st.Mode&0o7777, data), ",")
		}
		unix.Close(fd)
	}
	if !o.copyUp || st.Mode == 0 {
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

// bindFlags are those that need no second call.
const bindFlags = unix.MS_REC | unix.MS_BIND | unix.MS_REMOUNT

func bind(root *rootDir, m *Mount, o mountOptions) error {
	if m.Tree == "" {
		return errors.New("the host shares nothing for this bind")
	}
	if o.flags&unix.MS_REMOUNT != 0 {
		return root.remountBind(m.Destination, o.flags)
	}
	src, err := unix.Open(m.Tree, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: m.Tree, Err: err}
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return &os.PathError{Op: "stat", Path: m.Tree, Err: err}
	}
	open := root.file
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		open = root.dir
	}
	dst, err := open(m.Destination)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	flags := uintptr(unix.MS_BIND) | o.flags&unix.MS_REC
	if err := unix.Mount(fdPath(src), fdPath(dst), "", flags, ""); err != nil {
		return mountError(err, flags, "")
	}
	if o.flags&^bindFlags != 0 {
		if err := root.remountBind(m.Destination, o.flags); err != nil {
			return err
		}
	}
	return setAttributes(root, m, o)
}

// statfsFlags are the flags of statfs(2) that a mount with more privileges may
// have locked, and those of mount(2) that keep them.
var statfsFlags = [...]struct{ st, ms uintptr }{
	{unix.ST_RDONLY, unix.MS_RDONLY}, {unix.ST_NOSUID, unix.MS_NOSUID}, {unix.ST_NODEV, unix.MS_NODEV},
	{unix.ST_NOEXEC, unix.MS_NOEXEC}, {unix.ST_NOATIME, unix.MS_NOATIME},
	{unix.ST_NODIRATIME, unix.MS_NODIRATIME}, {unix.ST_RELATIME, unix.MS_RELATIME},
}

// remountBind gives a bind its flags, which the bind itself ignores. In a user
// namespace the flags that its source had cannot be dropped: they are added.
func (r *rootDir) remountBind(name string, flags uintptr) error {
	flags |= unix.MS_BIND | unix.MS_REMOUNT
	err := r.again(name, flags, "")
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	fd, oerr := r.reopen(name)
	if oerr != nil {
		return oerr
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if serr := unix.Statfs(fdPath(fd), &st); serr != nil {
		return err
	}
	for _, f := range statfsFlags {
		if uintptr(st.Flags)&f.st != 0 {
			flags |= f.ms
		}
	}
	return mountError(unix.Mount("", fdPath(fd), "", flags, ""), flags, "")
}

// finishReadonly remounts, once nothing is to be made any more, what was to be
// read-only from the start. The process is inside its root by now.
func finishReadonly(c *Config) error {
	for i := range c.Mounts {
		m := &c.Mounts[i]
		o := parseOptions(m.Options)
		if o.flags&unix.MS_RDONLY == 0 || o.flags&unix.MS_BIND != 0 || m.Type == "bind" || !isDelayed(m, m.Type) {
			continue
		}
		flags := o.flags | unix.MS_REMOUNT | unix.MS_RDONLY
		if err := unix.Mount("", m.Destination, "", flags, ""); err != nil {
			return fmt.Errorf("remount %s: %w", m.Destination, mountError(err, flags, ""))
		}
	}
	return nil
}
