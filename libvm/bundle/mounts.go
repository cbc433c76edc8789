package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// mountTypes are the file systems that the agent mounts, besides binds. Others
// would need a device or files of the host that a guest does not see.
func mountTypes() []string {
	return []string{"cgroup", "cgroup2", "devpts", "mqueue", "proc", "sysfs", "tmpfs"}
}

func mountFlags() []string {
	return []string{
		"acl", "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "iversion", "lazytime", "loud",
		"mand", "noacl", "noatime", "nodev", "nodiratime", "noexec", "noiversion", "nolazytime", "nomand", "norelatime",
		"nostrictatime", "nosuid", "nosymfollow", "rbind", "relatime", "remount", "ro", "rw", "silent",
		"strictatime", "suid", "symfollow", "sync",
	}
}

// recursiveFlags are those of mount_setattr(2) with AT_RECURSIVE.
func recursiveFlags() []string {
	return []string{
		"ratime", "rdev", "rdiratime", "rexec", "rnoatime", "rnodev", "rnodiratime", "rnoexec",
		"rnorelatime", "rnostrictatime", "rnosuid", "rnosymfollow", "rro", "rrelatime", "rrw", "rstrictatime",
		"rsuid", "rsymfollow",
	}
}

func propagations() []string {
	return []string{"private", "rprivate", "rshared", "rslave", "runbindable", "shared", "slave", "unbindable"}
}

func isPropagation(option string) bool { return slices.Contains(propagations(), option) }

// MountOptions lists the mount options that are not a file system's own, sorted.
func MountOptions() []string {
	out := slices.Concat(mountFlags(), recursiveFlags(), propagations(), []string{"tmpcopyup"})
	slices.Sort(out)
	return slices.Compact(out)
}

// IsBind says whether a mount is a bind. Its type does not count then
// (runtime-spec v1.3 config.md "Linux mount options").
func IsBind(m specs.Mount) bool {
	return slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// checkMounts checks mounts, and makes destinations and bind sources absolute.
func (b *Bundle) checkMounts() error {
	for i := range b.Spec.Mounts {
		if err := b.checkMount(&b.Spec.Mounts[i]); err != nil {
			return fmt.Errorf("mounts[%d] (%s): %w", i, b.Spec.Mounts[i].Destination, err)
		}
	}
	return nil
}

func (b *Bundle) checkMount(m *specs.Mount) error {
	if strings.ContainsRune(m.Source+m.Destination+m.Type+strings.Join(m.Options, ""), 0) {
		return errors.New("mount field contains null byte")
	}
	if m.Destination == "" {
		return errors.New("destination must not be empty")
	}
	if !filepath.IsAbs(m.Destination) {
		b.warn("mount destination %s is not absolute. Support for non-absolute mount destinations will be removed in a future release.", m.Destination)
		m.Destination = filepath.Join("/", m.Destination)
	}
	for _, o := range m.Options {
		if name, _, _ := strings.Cut(o, "="); name == "idmap" || name == "ridmap" {
			return fmt.Errorf("option %s is not supported: files keep the owners that they have on the host", o)
		}
	}
	if m.Type == "bind" && !IsBind(*m) {
		m.Options = append(slices.Clone(m.Options), "bind")
	}
	if IsBind(*m) {
		return b.checkBind(m)
	}
	if !slices.Contains(mountTypes(), m.Type) {
		return fmt.Errorf("type %q is not supported: want a bind, or %s", m.Type, strings.Join(mountTypes(), ", "))
	}
	return nil
}

// checkBind resolves and finds the source.
func (b *Bundle) checkBind(m *specs.Mount) error {
	if m.Source == "" {
		return errors.New("bind without a source")
	}
	if !filepath.IsAbs(m.Source) {
		m.Source = filepath.Join(b.Dir, m.Source)
	}
	if _, err := os.Stat(m.Source); err != nil {
		return fmt.Errorf("error mounting %q to rootfs at %q: %w", m.Source, m.Destination, err)
	}
	return nil
}
