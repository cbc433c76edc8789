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
	return []string{"cgroup", "ipc", "mount", "network", "pid", "user", "uts"}
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

// checkNamespaces checks linux.namespaces. Where runc would leave a process in
// the host's namespace, a guest has none of the host's to leave it in.
func checkNamespaces(l *specs.Linux) error {
	seen := map[specs.LinuxNamespaceType]bool{}
	for _, n := range l.Namespaces {
		if seen[n.Type] {
			return fmt.Errorf("malformed spec file: duplicated ns %q", n.Type)
		}
		seen[n.Type] = true
		if err := checkNamespace(n); err != nil {
			return err
		}
	}
	if !seen[specs.MountNamespace] && (len(l.MaskedPaths) > 0 || len(l.ReadonlyPaths) > 0) {
		return errors.New("unable to restrict sys entries without a private MNT namespace")
	}
	for _, t := range []specs.LinuxNamespaceType{
		specs.MountNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.NetworkNamespace,
	} {
		if !seen[t] {
			return fmt.Errorf(`linux.namespaces: no %s namespace: a container with a kernel of its own cannot share the host's: add {"type": %q} (engines: do not ask for the host's)`, t, t)
		}
	}
	return nil
}

func checkNamespace(n specs.LinuxNamespace) error {
	switch {
	case n.Type == specs.TimeNamespace:
		return errors.New("linux.namespaces: a time namespace is not supported: the guest keeps the host's time")
	case !slices.Contains(Namespaces(), string(n.Type)):
		return fmt.Errorf("linux.namespaces: namespace %q does not exist", n.Type)
	case n.Path == "":
		return nil
	case n.Type != specs.NetworkNamespace:
		return fmt.Errorf("linux.namespaces: %s: path %q is not supported: joining another container's namespace is not supported yet", n.Type, n.Path)
	case !filepath.IsAbs(n.Path):
		return fmt.Errorf("linux.namespaces: %s: path %q is not absolute", n.Type, n.Path)
	}
	host, err := sameFile(n.Path, "/proc/self/ns/net")
	if err != nil {
		return fmt.Errorf("linux.namespaces: %s: %w", n.Type, err)
	}
	if host {
		return fmt.Errorf("linux.namespaces: %s: %s is the host's network namespace, which is not supported: the guest would take over its interfaces", n.Type, n.Path)
	}
	return nil
}

// checkSysctl refuses what is not of one of the container's namespaces.
func checkSysctl(l *specs.Linux) error {
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
		// checkNamespaces has seen to the namespaces.
		if err := sysctl.Check(key, true, true); err != nil {
			return err
		}
	}
	return nil
}
