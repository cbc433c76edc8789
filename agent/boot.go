package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"runv/agent/cgroup"
)

// Places in the guest.
const (
	moduleList = "/etc/runv/modules" // written by libvm/initramfs
	runDir     = "/run/runv"
	baseDir    = runDir + "/root"  // root file systems are mounted on it, each in its own namespace
	treesDir   = runDir + "/trees" // the host's shared trees
	exePath    = runDir + "/agent" // this executable, read-only
	treesTag   = "runv"            // of the virtio-fs device
)

// loadModules loads what a kernel that is not ours needs to reach its devices:
// one absolute path a line, in load order.
func loadModules() error {
	b, err := os.ReadFile(moduleList)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for path := range strings.SplitSeq(string(b), "\n") {
		if path == "" {
			continue
		}
		if err := loadModule(path); err != nil {
			return fmt.Errorf("load module %s: %w", path, err)
		}
	}
	return nil
}

// notHere is how a module's init says that what it drives is not in this
// machine, or that it is in the kernel already. If it was one without which the
// host cannot be reached, that shows soon enough.
var notHere = []error{unix.EEXIST, unix.ENODEV, unix.ENXIO, unix.EOPNOTSUPP}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err != nil && !slices.ContainsFunc(notHere, func(e error) bool { return errors.Is(err, e) }) {
		return os.NewSyscallError("finit_module", err)
	}
	// Its pages are the guest's memory, and it is not read again.
	return os.Remove(path)
}

// mounts are the guest's own file systems, in order.
var mounts = [...]struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}{
	{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"dev", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
	{"run", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	{"cgroup2", cgroup.Root, "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "nsdelegate,memory_recursiveprot"},
}

// mountAll makes the guest's file system view.
func mountAll() error {
	if err := ownRoot(); err != nil {
		return err
	}
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data)
		if errors.Is(err, unix.EINVAL) && m.data != "" {
			err = unix.Mount(m.source, m.target, m.fstype, m.flags, "") // options newer than the kernel
		}
		if err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s on %s: %w", m.fstype, m.target, err)
		}
	}
	// Mounts of containers that ask for propagation find peers, as on a host
	// with systemd; what is below runDir stays out of it.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share /: %w", err)
	}
	return mountRunDir()
}

// ownRoot mounts the initramfs once more over itself: pivot_root(2) refuses to
// replace the root that the kernel made, since that has no parent mount.
func ownRoot() error {
	const place = "/run" // nothing is mounted there yet
	if err := os.MkdirAll(place, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/", place, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind / on %s: %w", place, err)
	}
	if err := unix.Chdir(place); err != nil {
		return fmt.Errorf("chdir to the new root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the new root to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot to the new root: %w", err)
	}
	return nil
}

// mountRunDir makes a tmpfs of the agent's own, whose mounts reach no container
// by propagation. Device nodes work in it: containers in user namespaces get
// theirs from there.
func mountRunDir() error {
	if err := os.Mkdir(runDir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("runv", runDir, "tmpfs", unix.MS_NOSUID, "mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", runDir, err)
	}
	if err := unix.Mount("", runDir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", runDir, err)
	}
	for _, dir := range []string{baseDir, treesDir} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	return bindSelf()
}

// bindSelf makes the executable available where it cannot be written: a process
// of a container can reach it by /proc/<pid>/exe of one that is being made
// (CVE-2019-5736).
func bindSelf() error {
	if err := os.WriteFile(exePath, nil, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/proc/self/exe", exePath, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind the agent: %w", err)
	}
	if err := unix.Mount("", exePath, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make the agent read-only: %w", err)
	}
	return nil
}

// mountTrees mounts the host's shared trees. The kernel asks the host, which is
// slow enough to do something else meanwhile.
func mountTrees() error {
	if err := unix.Mount(treesTag, treesDir, "virtiofs", 0, ""); err != nil {
		return fmt.Errorf("mount virtiofs %q on %s: %w", treesTag, treesDir, err)
	}
	return nil
}
