package bundle

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/agent/sysctl"
)

// Namespaces lists the types of namespaces that a container can have, sorted.
func Namespaces() []string {
	return []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}
}

func hasNamespace(l *specs.Linux, t specs.LinuxNamespaceType) bool {
	return l != nil && slices.ContainsFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t })
}

// checkNames refuses names that have no namespace to be set in.
func (b *Bundle) checkNames() error {
	if hasNamespace(b.Spec.Linux, specs.UTSNamespace) {
		return nil
	}
	if b.Spec.Hostname != "" {
		return errors.New("unable to set hostname without a private UTS namespace")
	}
	if b.Spec.Domainname != "" {
		return errors.New("unable to set domainname without a private UTS namespace")
	}
	return nil
}

// checkNamespaces checks linux.namespaces. One that is absent is the caller's
// to the host; the guest, which has a kernel of its own, has its first one for it.
func (b *Bundle) checkNamespaces(l *specs.Linux) error {
	seen := map[specs.LinuxNamespaceType]bool{}
	for _, n := range l.Namespaces {
		if seen[n.Type] {
			return fmt.Errorf("malformed spec file: duplicated ns %q", n.Type)
		}
		seen[n.Type] = true
		if err := b.checkNamespace(n); err != nil {
			return err
		}
	}
	if !seen[specs.MountNamespace] && (len(l.MaskedPaths) > 0 || len(l.ReadonlyPaths) > 0) {
		return errors.New("unable to restrict sys entries without a private MNT namespace")
	}
	b.HostNetwork = b.HostNetwork || !seen[specs.NetworkNamespace]
	for _, t := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace} {
		if !seen[t] {
			b.warn("linux.namespaces: no %s namespace: the container has that of its guest, not the host's: %s", t, unshared(t))
		}
	}
	return checkTime(l)
}

// unshared says what of the host's a container does not have although its
// namespace is not a new one; empty for nothing that anybody would miss.
func unshared(t specs.LinuxNamespaceType) string {
	switch t {
	case specs.PIDNamespace:
		return "it does not see the processes there"
	case specs.IPCNamespace:
		return "it does not see the shared memory, semaphores and message queues there"
	case specs.MountNamespace:
		return "it does not see what is mounted there later"
	}
	return ""
}

func (b *Bundle) checkNamespace(n specs.LinuxNamespace) error {
	switch {
	case !slices.Contains(Namespaces(), string(n.Type)):
		return fmt.Errorf("linux.namespaces: namespace %q does not exist", n.Type)
	case n.Path == "":
		return nil
	case !filepath.IsAbs(n.Path):
		return fmt.Errorf("linux.namespaces: %s: path %q is not absolute", n.Type, n.Path)
	case n.Type == specs.UserNamespace:
		return fmt.Errorf("linux.namespaces: %s: path %q is not supported: the guest's ids are its own: use uidMappings and gidMappings", n.Type, n.Path)
	case n.Type == specs.TimeNamespace:
		return fmt.Errorf("linux.namespaces: %s: path %q is not supported: the guest's clocks are its own: use timeOffsets", n.Type, n.Path)
	}
	if err := b.checkOwner(n); err != nil {
		return err
	}
	if what := unshared(n.Type); what != "" {
		b.warn("linux.namespaces: %s: the container is put into %s on the host, but has one of its own in its guest: %s", n.Type, n.Path, what)
	}
	if n.Type != specs.NetworkNamespace {
		return nil
	}
	host, err := sameFile(n.Path, "/proc/self/ns/net")
	if err != nil {
		return fmt.Errorf("linux.namespaces: %s: %w", n.Type, err)
	}
	b.HostNetwork = host
	return nil
}

// checkTime checks linux.timeOffsets. The words are runc's.
func checkTime(l *specs.Linux) error {
	if len(l.TimeOffsets) == 0 {
		return nil
	}
	if !hasNamespace(l, specs.TimeNamespace) {
		return errors.New("time namespace offsets specified, but time namespace isn't enabled in the config")
	}
	for clock, o := range l.TimeOffsets {
		if clock != "monotonic" && clock != "boottime" {
			return fmt.Errorf("linux.timeOffsets: no clock %q: want monotonic or boottime", clock)
		}
		if o.Nanosecs >= 1e9 {
			return fmt.Errorf("linux.timeOffsets.%s: %d ns are a second or more", clock, o.Nanosecs)
		}
	}
	return nil
}

// checkSysctl refuses what is not of one of the container's namespaces.
func (b *Bundle) checkSysctl(l *specs.Linux) error {
	keys := make([]string, 0, len(l.Sysctl))
	for key := range l.Sysctl {
		keys = append(keys, key)
	}
	slices.Sort(keys) // the same error every time
	for _, key := range keys {
		if _, err := sysctl.File(key); err != nil {
			return err
		}
		if strings.ContainsRune(l.Sysctl[key], 0) {
			return fmt.Errorf("sysctl %q is malformed", key)
		}
		if err := sysctl.Check(key, hasNamespace(l, specs.IPCNamespace), hasNamespace(l, specs.UTSNamespace)); err != nil {
			return err
		}
		if b.HostNetwork && strings.HasPrefix(sysctl.Name(key), "net.") {
			return fmt.Errorf("sysctl %q not allowed in host network namespace", sysctl.Name(key))
		}
	}
	return nil
}
