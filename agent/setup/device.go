package setup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/mountopt"
)

// DefaultDevices are the nodes that every container has (runtime-spec v1.3,
// config-linux.md, "Default Devices"); /dev/ptmx is a symlink.
func DefaultDevices() []specs.LinuxDevice {
	char := func(path string, major, minor int64) specs.LinuxDevice {
		return specs.LinuxDevice{Path: path, Type: "c", Major: major, Minor: minor}
	}
	return []specs.LinuxDevice{
		char("/dev/null", 1, 3), char("/dev/zero", 1, 5), char("/dev/full", 1, 7),
		char("/dev/random", 1, 8), char("/dev/urandom", 1, 9), char("/dev/tty", 5, 0),
	}
}

// MergeDevices returns the default devices and those of the config, of which one
// with the path of a default stands instead of it.
func MergeDevices(config []specs.LinuxDevice) []specs.LinuxDevice {
	var out []specs.LinuxDevice
next:
	for _, d := range DefaultDevices() {
		for _, c := range config {
			if path.Clean(c.Path) == d.Path {
				continue next
			}
		}
		out = append(out, d)
	}
	return append(out, config...)
}

// Node is the name that device i has in Config.DeviceDir.
func Node(i int) string { return strconv.Itoa(i) }

// MakeNode makes a device node in an open directory. An existing one is left.
func MakeNode(dir int, name string, d *specs.LinuxDevice) error {
	mode := uint32(0o666)
	if d.FileMode != nil {
		mode = uint32(*d.FileMode) & 0o7777
	}
	full := mode
	switch d.Type {
	case "c", "u":
		full |= unix.S_IFCHR
	case "b":
		full |= unix.S_IFBLK
	case "p":
		full |= unix.S_IFIFO
	default:
		return fmt.Errorf("device %q has type %q, want b, c, u or p", d.Path, d.Type)
	}
	dev := unix.Mkdev(uint32(d.Major), uint32(d.Minor))
	if err := unix.Mknodat(dir, name, full, int(dev)); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return &os.PathError{Op: "mknod", Path: d.Path, Err: err}
	}
	// Not by the umask, which other threads share.
	if err := unix.Fchmodat(dir, name, mode, 0); err != nil {
		return &os.PathError{Op: "chmod", Path: d.Path, Err: err}
	}
	var uid, gid uint32
	if d.UID != nil {
		uid = *d.UID
	}
	if d.GID != nil {
		gid = *d.GID
	}
	if err := unix.Fchownat(dir, name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "chown", Path: d.Path, Err: err}
	}
	return nil
}

// ownsDev says whether /dev is ours to fill: it is not if it is a bind.
func ownsDev(c *Config) bool {
	for i := range c.Mounts {
		m := &c.Mounts[i]
		o := mountopt.Parse(m.Options)
		if path.Clean(m.Destination) == "/dev" && isBind(m, &o) && o.Flags&unix.MS_REMOUNT == 0 {
			return false
		}
	}
	return true
}

func makeDevices(root *rootDir, c *Config) error {
	for i := range c.Devices {
		d := &c.Devices[i]
		if path.Clean(d.Path) == "/dev/ptmx" {
			continue // a symlink, by setupDev
		}
		if !path.IsAbs(d.Path) {
			return fmt.Errorf("device path %q is not absolute", d.Path)
		}
		var err error
		if c.DeviceDir != "" {
			err = bindNode(root, path.Join(c.DeviceDir, Node(i)), d.Path)
		} else {
			err = makeNodeIn(root, d)
		}
		if err != nil {
			return fmt.Errorf("error creating device nodes: %w", err)
		}
	}
	return setupDev(root)
}

func makeNodeIn(root *rootDir, d *specs.LinuxDevice) error {
	dir, base, err := root.parent(d.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return MakeNode(dir, base, d)
}

func bindNode(root *rootDir, node, dest string) error {
	fd, err := root.file(dest)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Mount(node, fdPath(fd), "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "bind", Path: dest, Err: err}
	}
	return nil
}

// setupDev makes the symlinks of /dev.
func setupDev(root *rootDir) error {
	dev, err := root.dir("/dev")
	if err != nil {
		return err
	}
	defer unix.Close(dev)
	if err := unix.Unlinkat(dev, "ptmx", 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "unlink", Path: "/dev/ptmx", Err: err}
	}
	if err := unix.Symlinkat("pts/ptmx", dev, "ptmx"); err != nil {
		return &os.PathError{Op: "symlink", Path: "/dev/ptmx", Err: err}
	}
	links := [][2]string{
		{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"},
		{"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"},
	}
	if _, err := os.Stat("/proc/kcore"); err == nil {
		links = append(links, [2]string{"/proc/kcore", "core"})
	}
	for _, l := range links {
		if err := unix.Symlinkat(l[0], dev, l[1]); err != nil && !errors.Is(err, unix.EEXIST) {
			return &os.PathError{Op: "symlink", Path: "/dev/" + l[1], Err: err}
		}
	}
	return nil
}
