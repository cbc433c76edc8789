package setup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// readonlyPath makes a path of the container read-only, if it exists.
func readonlyPath(path string) error {
	if err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return fmt.Errorf("make path %s read-only: %w", path, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_REC)
	for _, f := range statfsFlags {
		if uintptr(st.Flags)&f.st != 0 {
			flags |= f.ms
		}
	}
	if err := unix.Mount(path, path, "", flags, ""); err != nil {
		return fmt.Errorf("make path %s read-only: %w", path, err)
	}
	return nil
}

// maskPath hides a path of the container, if it exists: a file by the null
// device, a directory by an empty one.
func maskPath(path string) error {
	err := unix.Mount("/dev/null", path, "", unix.MS_BIND, "")
	if errors.Is(err, unix.ENOTDIR) {
		err = unix.Mount("tmpfs", path, "tmpfs", unix.MS_RDONLY, "")
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("mask path %s: %w", path, err)
	}
	return nil
}

// ipcSysctls belong to the ipc namespace, besides all of fs.mqueue.
var ipcSysctls = [...]string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
	"kernel.shmmni", "kernel.shm_rmid_forced",
}

// CheckSysctl says whether a container may set a kernel parameter: only one that
// belongs to a namespace of its own, as in runc. All of net does: the guest's
// network is the container's. The words are runc's.
func CheckSysctl(key string, newIPC, newUTS bool) error {
	key = sysctlKey(key)
	switch {
	case slices.Contains(ipcSysctls[:], key) || strings.HasPrefix(key, "fs.mqueue."):
		if newIPC {
			return nil
		}
		return fmt.Errorf("sysctl %q is not allowed in the hosts ipc namespace", key)
	case key == "kernel.domainname":
		if newUTS {
			return nil
		}
		return fmt.Errorf("sysctl %q is not allowed as it conflicts with the OCI %q field", key, "domainname")
	case key == "kernel.hostname":
		return fmt.Errorf("sysctl %q is not allowed as it conflicts with the OCI %q field", key, "hostname")
	case strings.HasPrefix(key, "net."):
		return nil
	}
	return fmt.Errorf("sysctl %q is not in a separate kernel namespace", key)
}

// sysctlKey returns a key with dots between its parts. With slashes between
// them, dots are part of names: net/ipv4/conf/eth0.1/forwarding.
func sysctlKey(key string) string {
	i := strings.IndexAny(key, "./")
	if i < 0 || key[i] == '.' {
		return key
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}

// SysctlFile returns the file below /proc/sys of a kernel parameter.
func SysctlFile(key string) (string, error) {
	file := strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, sysctlKey(key))
	if !filepath.IsLocal(file) || filepath.Clean(file) != file {
		return "", fmt.Errorf("invalid sysctl %q", key)
	}
	return "/proc/sys/" + file, nil
}

// WriteSysctl sets a kernel parameter for the namespaces of the caller.
func WriteSysctl(key, value string) error {
	file, err := SysctlFile(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		return fmt.Errorf("sysctl %q: %w", key, err)
	}
	return nil
}
