package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/mountopt"
)

// MountOptions lists the mount options that are not a file system's own, sorted.
func MountOptions() []string { return mountopt.Names() }

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
	o := mountopt.Parse(m.Options)
	if m.Type == "bind" && !o.IsBind() {
		m.Options = append(slices.Clone(m.Options), "bind")
		o = mountopt.Parse(m.Options)
	}
	if err := b.checkIDMap(m, &o); err != nil {
		return err
	}
	if o.IsBind() {
		return b.checkBind(m, &o)
	}
	return checkFileSystem(m, &o)
}

// checkFileSystem refuses file systems that are served by a program on the other
// side of a descriptor: whoever would have it has no way to hand it to us.
func checkFileSystem(m *specs.Mount, o *mountopt.Options) error {
	if m.Type == "fuse" || m.Type == "fuseblk" || m.Type == "virtiofs" {
		return fmt.Errorf("type %q is not supported: what serves it is not in the guest: mount it on the host, and bind that", m.Type)
	}
	for _, opt := range strings.Split(o.Data, ",") {
		if name, _, _ := strings.Cut(opt, "="); name == "fd" || name == "rfdno" || name == "wfdno" {
			return fmt.Errorf("option %s is not supported: there is no such descriptor: mount it on the host, and bind that", opt)
		}
	}
	return nil
}

// checkIDMap completes an id-mapped mount: without mappings of its own it has
// those of the container's user namespace.
func (b *Bundle) checkIDMap(m *specs.Mount, o *mountopt.Options) error {
	for _, opt := range m.Options {
		if name, _, with := strings.Cut(opt, "="); with && (name == "idmap" || name == "ridmap") {
			return fmt.Errorf("option %s is not supported: give the mappings in uidMappings and gidMappings", opt)
		}
	}
	if !o.IDMap && m.UIDMappings == nil && m.GIDMappings == nil {
		return nil
	}
	if l := b.Spec.Linux; m.UIDMappings == nil && m.GIDMappings == nil && hasNamespace(l, specs.UserNamespace) {
		m.UIDMappings, m.GIDMappings = l.UIDMappings, l.GIDMappings
	}
	switch {
	case !o.IsBind():
		return errors.New("id-mapped mounts are only supported for bind-mounts")
	case len(m.UIDMappings) == 0 || len(m.GIDMappings) == 0:
		return errors.New("id-mapped mounts must have both uid and gid mappings specified")
	}
	if err := checkMapping("uidMappings", m.UIDMappings); err != nil {
		return err
	}
	return checkMapping("gidMappings", m.GIDMappings)
}

// checkBind resolves and finds the source.
func (b *Bundle) checkBind(m *specs.Mount, o *mountopt.Options) error {
	// The kernel does not look at them. runc 1.3 makes it an error; engines and the
	// conformance suite have them, and every runtime before it took them.
	if o.Data != "" {
		b.warn("bind mounts cannot have any filesystem-specific options applied: %s of %s is ignored", o.Data, m.Destination)
	}
	if m.Source == "" && o.Flags&unix.MS_REMOUNT == 0 {
		return errors.New("bind without a source")
	}
	if !filepath.IsAbs(m.Source) {
		m.Source = filepath.Join(b.Dir, m.Source)
	}
	if o.Flags&unix.MS_REMOUNT != 0 {
		return nil // it is the destination that is mounted
	}
	if _, err := os.Stat(m.Source); err != nil {
		return fmt.Errorf("error mounting %q to rootfs at %q: %w", m.Source, m.Destination, err)
	}
	return nil
}
