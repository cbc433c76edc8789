package setup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"runv/agent/mountopt"
)

// bindFlags are those that need no second call.
const bindFlags = unix.MS_REC | unix.MS_BIND | unix.MS_REMOUNT

func bind(root *rootDir, m *Mount, o *mountopt.Options) error {
	if o.Flags&unix.MS_REMOUNT == 0 {
		if err := bindTree(root, m, o, o.Flags&unix.MS_REC); err != nil {
			return err
		}
	} else if err := root.remountBind(m.Destination, o); err != nil {
		return err
	}
	return setAttributes(root, m, o)
}

// bindTree binds a mount's tree on its destination and gives it its flags.
func bindTree(root *rootDir, m *Mount, o *mountopt.Options, recursive uintptr) error {
	if m.Tree == "" {
		return errors.New("the host shares nothing for this bind")
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
		return fmt.Errorf("create mountpoint for %s mount: %w", m.Destination, err)
	}
	defer unix.Close(dst)
	flags := unix.MS_BIND | recursive
	if err := unix.Mount(fdPath(src), fdPath(dst), "", flags, ""); err != nil {
		return mountopt.Error(m.Source, m.Destination, flags, "", err)
	}
	if o.Flags&^bindFlags == 0 && o.Cleared == 0 {
		return nil
	}
	if err := root.remountBind(m.Destination, o); err != nil {
		return fmt.Errorf("failed to set user-requested vfs flags on bind-mount: %w", err)
	}
	return nil
}

// statfsFlags are the flags of statfs(2), and those of mount(2) that set them.
var statfsFlags = [...]struct{ st, ms uintptr }{
	{unix.ST_RDONLY, unix.MS_RDONLY}, {unix.ST_NOSUID, unix.MS_NOSUID}, {unix.ST_NODEV, unix.MS_NODEV},
	{unix.ST_NOEXEC, unix.MS_NOEXEC}, {unix.ST_NOATIME, unix.MS_NOATIME},
	{unix.ST_NODIRATIME, unix.MS_NODIRATIME}, {unix.ST_RELATIME, unix.MS_RELATIME},
}

const (
	atimeKinds = unix.MS_NOATIME | unix.MS_RELATIME | unix.MS_STRICTATIME
	atimeFlags = atimeKinds | unix.MS_NODIRATIME
	// lockable are the flags that a user namespace cannot take from the mounts
	// it was given: MNT_LOCK_* of the kernel.
	lockable = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOSUID | atimeFlags
)

// lockedFlags are the lockable flags that a mount has.
func lockedFlags(st *unix.Statfs_t) uintptr {
	var flags uintptr
	for _, f := range statfsFlags {
		if uintptr(st.Flags)&f.st != 0 {
			flags |= f.ms
		}
	}
	if flags&atimeKinds == 0 {
		flags |= unix.MS_STRICTATIME // it is the want of the others
	}
	return flags
}

// remountBind gives a bind its flags, which the bind itself ignores. In a user
// namespace the flags that its source had cannot be dropped: they are added, but
// where the config asks for the contrary.
func (r *rootDir) remountBind(name string, o *mountopt.Options) error {
	flags := o.Flags | unix.MS_BIND | unix.MS_REMOUNT
	refused := r.again(name, flags)
	if !errors.Is(refused, unix.EPERM) {
		return refused
	}
	fd, err := r.reopen(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := unix.Statfs(fdPath(fd), &st); err != nil {
		return refused
	}
	has := lockedFlags(&st)
	if locked := has & o.Cleared & lockable; locked != 0 {
		return fmt.Errorf("cannot clear locked flags %s: %w", mountopt.FlagNames(locked), refused)
	}
	if o.Flags&atimeFlags != 0 && o.Flags&atimeFlags != has&atimeFlags {
		return fmt.Errorf("cannot change locked atime flags %s: %w", mountopt.FlagNames(has&atimeFlags), refused)
	}
	if err := r.again(name, flags|has); err != nil {
		return fmt.Errorf("remount with locked flags %s re-applied: %w", mountopt.FlagNames(has), err)
	}
	return nil
}

// emulated are the files of /proc over which something may be mounted: lxcfs
// has its own of them.
var emulated = []string{
	"cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev",
	"sys/kernel/ns_last_pid", "sys/crypto/fips_enabled",
}

// checkProc refuses what would stand in for /proc or a file in it: programs, runv
// among them, take what they read there for the kernel's word (CVE-2019-16884).
func checkProc(root *rootDir, m *Mount, o *mountopt.Options) error {
	rel, err := resolve(root.path, m.Destination)
	if err != nil {
		return err
	}
	first, below, _ := strings.Cut(rel, "/")
	switch {
	case first != "proc" || slices.Contains(emulated, below):
		return nil
	case below != "":
		return fmt.Errorf("%q cannot be mounted because it is inside /proc", path.Join("/", rel))
	case !isBind(m, o) && m.Type == "proc":
		return nil
	case isBind(m, o) && (o.Flags&unix.MS_REMOUNT != 0 || isProc(m.Tree)):
		return nil
	}
	return fmt.Errorf("%q cannot be mounted because it is not of type proc", path.Join("/", rel))
}

func isProc(path string) bool {
	var st unix.Statfs_t
	return path != "" && unix.Statfs(path, &st) == nil && st.Type == unix.PROC_SUPER_MAGIC
}
