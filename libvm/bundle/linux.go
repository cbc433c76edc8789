package bundle

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/agent/mountopt"
)

// checkLinux checks the linux object; the namespaces are checked even without
// one, since there must be some.
func (b *Bundle) checkLinux() error {
	if b.Spec.Linux == nil {
		b.Spec.Linux = new(specs.Linux)
	}
	l := b.Spec.Linux
	for _, check := range []func(*specs.Linux) error{
		b.checkNamespaces, b.checkNetDevices, checkMappings, b.checkSysctl, checkDevices, checkResources, checkRest,
	} {
		if err := check(l); err != nil {
			return err
		}
	}
	return nil
}

// checkNetDevices checks linux.netDevices. The words are runc's.
func (b *Bundle) checkNetDevices(l *specs.Linux) error {
	if len(l.NetDevices) > 0 && b.HostNetwork {
		return errors.New("unable to move network devices without a NET namespace")
	}
	for name, d := range l.NetDevices {
		for i, n := range []string{name, d.Name} {
			if (i == 0 || n != "") && !interfaceName(n) {
				return fmt.Errorf("invalid network device name %q", n)
			}
		}
	}
	return nil
}

// interfaceName says whether the kernel takes a name (dev_valid_name).
func interfaceName(n string) bool {
	const size = 16 // IFNAMSIZ, with a NUL
	return n != "" && len(n) < size && n != "." && n != ".." && !strings.ContainsAny(n, "/:\x00 \t\n\v\f\r")
}

// checkMappings checks linux.uidMappings and gidMappings.
func checkMappings(l *specs.Linux) error {
	if !hasNamespace(l, specs.UserNamespace) {
		if len(l.UIDMappings) > 0 || len(l.GIDMappings) > 0 {
			//lint:ignore ST1005 runc's words
			return errors.New("User namespace mappings specified, but USER namespace isn't enabled in the config")
		}
		return nil
	}
	if len(l.UIDMappings) == 0 {
		//lint:ignore ST1005 runc's words
		return errors.New("User namespaces enabled, but no uid mappings found.")
	}
	if len(l.GIDMappings) == 0 {
		//lint:ignore ST1005 runc's words
		return errors.New("User namespaces enabled, but no gid mappings found.")
	}
	if err := checkRootMapping("linux.uidMappings", l.UIDMappings); err != nil {
		return err
	}
	return checkRootMapping("linux.gidMappings", l.GIDMappings)
}

// checkRootMapping is checkMapping of what has to have a root.
func checkRootMapping(name string, m []specs.LinuxIDMapping) error {
	if err := checkMapping(name, m); err != nil {
		return err
	}
	if !slices.ContainsFunc(m, func(e specs.LinuxIDMapping) bool { return e.ContainerID == 0 }) {
		return fmt.Errorf("%s: User namespaces enabled, but no mapping of id 0 found", name)
	}
	return nil
}

// checkMapping refuses what the kernel would refuse to take as a uid_map: more
// than 340 lines, empty or overlapping ranges, and ids beyond 2^32-2.
func checkMapping(name string, m []specs.LinuxIDMapping) error {
	const maxLines = 340
	if len(m) > maxLines {
		return fmt.Errorf("%s: %d entries, the kernel takes %d", name, len(m), maxLines)
	}
	for i, a := range m {
		if a.Size == 0 {
			return fmt.Errorf("%s[%d]: size is 0", name, i)
		}
		if uint64(a.ContainerID)+uint64(a.Size) > math.MaxUint32 || uint64(a.HostID)+uint64(a.Size) > math.MaxUint32 {
			return fmt.Errorf("%s[%d]: ids beyond %d", name, i, uint32(math.MaxUint32-1))
		}
		for j, o := range m[:i] {
			if overlap(a.ContainerID, a.Size, o.ContainerID, o.Size) || overlap(a.HostID, a.Size, o.HostID, o.Size) {
				return fmt.Errorf("%s[%d] overlaps with [%d]", name, i, j)
			}
		}
	}
	return nil
}

func overlap(a, an, b, bn uint32) bool {
	return uint64(a) < uint64(b)+uint64(bn) && uint64(b) < uint64(a)+uint64(an)
}

// checkDevices checks linux.devices.
func checkDevices(l *specs.Linux) error {
	for i, d := range l.Devices {
		switch {
		case !filepath.IsAbs(d.Path):
			return fmt.Errorf("linux.devices[%d]: path %q is not absolute", i, d.Path)
		case strings.ContainsRune(d.Path, 0):
			return fmt.Errorf("linux.devices[%d]: path %q contains nul byte", i, d.Path)
		case !slices.Contains([]string{"b", "c", "u", "p"}, d.Type):
			return fmt.Errorf("linux.devices[%d]: invalid device type %q", i, d.Type)
		case d.Type == "p":
		case d.Major < 0 || d.Major > math.MaxUint32 || d.Minor < 0 || d.Minor > math.MaxUint32:
			return fmt.Errorf("linux.devices[%d]: %s: no such device number %d:%d", i, d.Path, d.Major, d.Minor)
		}
		if d.FileMode != nil && *d.FileMode > math.MaxUint16 {
			return fmt.Errorf("linux.devices[%d]: %s: fileMode %#o is not a mode", i, d.Path, uint32(*d.FileMode))
		}
	}
	return nil
}

// cpuList says whether s has the format of cpuset(7) "List format", or nothing.
func cpuList(s string) bool {
	if s == "" {
		return true
	}
	list := regexp.MustCompile(`^\s*(\d{1,5}(-\d{1,5})?)?(\s*,\s*\d{1,5}(-\d{1,5})?)*\s*$`)
	return list.MatchString(s)
}

// checkResources checks the limits; libvm/devfilter checks the device list.
func checkResources(l *specs.Linux) error {
	r := l.Resources
	if r == nil {
		return nil
	}
	if m := r.Memory; m != nil {
		if err := checkMemory(deref(m.Limit), deref(m.Reservation), deref(m.Swap)); err != nil {
			return err
		}
	}
	if c := r.CPU; c != nil {
		for _, v := range []struct{ name, list string }{{"cpus", c.Cpus}, {"mems", c.Mems}} {
			if !cpuList(v.list) {
				return fmt.Errorf("linux.resources.cpu.%s: %q is not a list of numbers", v.name, v.list)
			}
		}
		if q := deref(c.Quota); q < -1 {
			return fmt.Errorf("linux.resources.cpu.quota: %d µs", q)
		}
	}
	pageSize := regexp.MustCompile(`^[1-9][0-9]{0,9}(KB|MB|GB|TB)$`)
	for i, h := range r.HugepageLimits {
		if !pageSize.MatchString(h.Pagesize) {
			return fmt.Errorf("linux.resources.hugepageLimits[%d].pageSize: %q is not a size as 2MB or 1GB", i, h.Pagesize)
		}
	}
	if r.Pids != nil && deref(r.Pids.Limit) < -1 {
		return fmt.Errorf("linux.resources.pids.limit: %d", *r.Pids.Limit)
	}
	return nil
}

// checkMemory checks bytes, -1 for no limit, 0 for no word about it. As under
// runc with cgroup v2, swap counts memory and swap together.
func checkMemory(limit, reservation, swap int64) error {
	for _, v := range []struct {
		name  string
		bytes int64
	}{{"limit", limit}, {"reservation", reservation}, {"swap", swap}} {
		if v.bytes < -1 {
			return fmt.Errorf("linux.resources.memory.%s: %d bytes", v.name, v.bytes)
		}
	}
	switch {
	case swap <= 0:
		return nil
	case limit == 0 || limit == -1:
		return errors.New("unable to set swap limit without memory limit")
	case swap < limit:
		return errors.New("memory+swap limit should be >= memory limit")
	}
	return nil
}

// checkRest checks what is left of the linux object.
func checkRest(l *specs.Linux) error {
	if _, ok := mountopt.Propagation(l.RootfsPropagation); !ok && l.RootfsPropagation != "" {
		return fmt.Errorf("rootfsPropagation=%s is not supported", l.RootfsPropagation)
	}
	if p := l.Personality; p != nil && p.Domain != specs.PerLinux && p.Domain != specs.PerLinux32 {
		return fmt.Errorf("linux.personality: invalid personality domain %s", cmp.Or(string(p.Domain), `""`))
	}
	if strings.ContainsRune(l.CgroupsPath, 0) {
		return fmt.Errorf("linux.cgroupsPath %q contains nul byte", l.CgroupsPath)
	}
	for name, paths := range map[string][]string{"maskedPaths": l.MaskedPaths, "readonlyPaths": l.ReadonlyPaths} {
		for i, p := range paths {
			if strings.ContainsRune(p, 0) {
				return fmt.Errorf("linux.%s[%d] %q contains nul byte", name, i, p)
			}
		}
	}
	return nil
}

// warnIgnored tells of what is not applied although it is set.
func (b *Bundle) warnIgnored() error {
	if b.Spec.Linux.MountLabel != "" && !hostSELinux() {
		b.warn("linux.mountLabel is not applied: neither this host nor the guest has SELinux")
	}
	if r := b.Spec.Linux.Resources; r != nil && r.Memory != nil {
		m := r.Memory
		//lint:ignore SA1019 told of because it is deprecated
		if deref(m.Kernel) != 0 || deref(m.KernelTCP) != 0 {
			b.warn("Kernel memory settings are ignored and will be removed")
		}
		if deref(m.DisableOOMKiller) {
			b.warn("linux.resources.memory.disableOOMKiller is not applied in the guest, whose cgroup v2 has no such switch")
		}
	}
	return nil
}

// sameFile says whether two paths lead to the same inode.
func sameFile(a, b string) (bool, error) {
	x, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	y, err := os.Stat(b)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			return false, pe
		}
		return false, err
	}
	return os.SameFile(x, y), nil
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
