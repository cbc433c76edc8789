// Package container runs containers in the guest: it makes their namespaces,
// cgroups and processes, and knows them until they are deleted. A guest can hold
// several.
package container

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/setup"
	"runv/agent/sysctl"
	"runv/agent/wire"
)

// spec is the part of a config.json that the guest acts on.
type spec wire.Spec

func parseSpec(b []byte) (*spec, error) {
	s, err := wire.UnmarshalSpec(b)
	if err != nil {
		return nil, err
	}
	switch {
	case s.Process == nil || len(s.Process.Args) == 0:
		return nil, errors.New("config.json: process.args is empty")
	case s.Root == nil:
		return nil, errors.New("config.json: root is missing")
	}
	return (*spec)(s), nil
}

// namespaces returns the clone flags of the namespaces that a container has of
// its own. One with a path is joined on the host; here it is a new one, and so are
// in any case those of mounts and of the network: what the agent has there is none
// of the container's business. What the network namespace of the host has is in
// the new one.
func (s *spec) namespaces() (uintptr, error) {
	flags := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWNET)
	for _, n := range s.Linux.Namespaces {
		switch n.Type {
		case specs.MountNamespace, specs.NetworkNamespace:
		case specs.PIDNamespace:
			flags |= unix.CLONE_NEWPID
		case specs.IPCNamespace:
			flags |= unix.CLONE_NEWIPC
		case specs.UTSNamespace:
			flags |= unix.CLONE_NEWUTS
		case specs.UserNamespace:
			flags |= unix.CLONE_NEWUSER
		case specs.CgroupNamespace:
			flags |= unix.CLONE_NEWCGROUP
		case specs.TimeNamespace:
			flags |= unix.CLONE_NEWTIME
		default:
			return 0, fmt.Errorf("linux.namespaces: type %q is not supported", n.Type)
		}
	}
	// The host's cgroup namespace is not in the guest, and its paths in /proc/self/cgroup
	// mean nothing below a mount of version 2: libuv and the JVM put the two together to
	// find their limits.
	if slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return setup.IsCgroup(m.Type) }) {
		flags |= unix.CLONE_NEWCGROUP
	}
	if flags&unix.CLONE_NEWUSER != 0 && (len(s.Linux.UIDMappings) == 0 || len(s.Linux.GIDMappings) == 0) {
		return 0, errors.New("linux.uidMappings and gidMappings are needed for a user namespace")
	}
	return flags, nil
}

func idMap(m []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, len(m))
	for i, e := range m {
		out[i] = syscall.SysProcIDMap{ContainerID: int(e.ContainerID), HostID: int(e.HostID), Size: int(e.Size)}
	}
	return out
}

// guestID returns what an id of the container is in the guest; -1: nothing.
func guestID(id uint32, m []specs.LinuxIDMapping) int {
	if len(m) == 0 {
		return int(id)
	}
	for _, e := range m {
		if id >= e.ContainerID && id-e.ContainerID < e.Size {
			return int(e.HostID + (id - e.ContainerID))
		}
	}
	return -1
}

// personality returns the argument of personality(2); -1: none.
func (s *spec) personality() (int, error) {
	const perLinux, perLinux32 = 0x0000, 0x0008 // linux/personality.h
	p := s.Linux.Personality
	switch {
	case p == nil:
		return -1, nil
	case len(p.Flags) > 0:
		return 0, errors.New("linux.personality: additional flags are not supported by personality")
	case p.Domain == specs.PerLinux:
		return perLinux, nil
	case p.Domain == specs.PerLinux32:
		return perLinux32, nil
	}
	return 0, fmt.Errorf("linux.personality: domain %q", p.Domain)
}

// sysctls splits the kernel parameters into those of the network, which the agent
// sets when it is there, and the rest, which the first process sets.
func (s *spec) sysctls(ns uintptr) (network, rest map[string]string, err error) {
	network, rest = map[string]string{}, map[string]string{}
	for k, v := range s.Linux.Sysctl {
		if err := sysctl.Check(k, ns&unix.CLONE_NEWIPC != 0, ns&unix.CLONE_NEWUTS != 0); err != nil {
			return nil, nil, err
		}
		if strings.HasPrefix(k, "net.") || strings.HasPrefix(k, "net/") {
			network[k] = v
		} else {
			rest[k] = v
		}
	}
	return network, rest, nil
}
