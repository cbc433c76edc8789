// Package cgroup puts a container's monitor, and with it the VM, into the control
// groups of the host that config.json names (runtime-spec v1.3 config-linux.md
// "Control groups"): engines read a container's use of the host there. Which
// group it is, of cgroup v1, v2 or by way of systemd, is opencontainers/cgroups'
// business, and so as under runc.
//
// The limits in it are config.json's, but for those that would be the VM's death:
// a VM needs memory and threads beside its workload's (Slack, Threads). The
// workload's own limits hold in the guest.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/state"
)

// Group is the place of one container.
type Group struct {
	manager cgroups.Manager
	place   state.Cgroup
}

// New finds the place of a container, without making it. An error if processes
// are in it already, or it is frozen: nobody could say then what belongs to whom.
func New(id string, systemd bool, spec *specs.Spec) (*Group, error) {
	g, err := open(id, state.Cgroup{Path: spec.Linux.CgroupsPath, Systemd: systemd}, spec.Annotations)
	if err != nil {
		return nil, err
	}
	g.place.Paths = maps.Clone(g.manager.GetPaths())
	for _, path := range g.place.Paths {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			g.place.Made = append(g.place.Made, path)
		} else if err != nil {
			return nil, err
		}
	}
	slices.Sort(g.place.Made)
	return g, g.checkUnused()
}

// Open is the place of a container that exists.
func Open(id string, place state.Cgroup) (*Group, error) { return open(id, place, nil) }

func open(id string, place state.Cgroup, annotations map[string]string) (*Group, error) {
	c := &cgroups.Cgroup{Systemd: place.Systemd, Resources: &cgroups.Resources{}}
	switch {
	case !place.Systemd && place.Path == "":
		c.Name = id
	case !place.Systemd:
		c.Path = clean(place.Path)
	case place.Path == "":
		c.Name, c.ScopePrefix = id, "runv"
	default:
		parts := strings.Split(place.Path, ":")
		if len(parts) != 3 {
			return nil, fmt.Errorf("expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got %q instead", place.Path)
		}
		c.Parent, c.ScopePrefix, c.Name = parts[0], parts[1], parts[2]
	}
	if place.Systemd {
		var err error
		if c.SystemdProps, err = properties(annotations); err != nil {
			return nil, err
		}
	}
	m, err := manager.NewWithPaths(c, maps.Clone(place.Paths))
	if err != nil && strings.Contains(err.Error(), "no cgroup mount found") {
		return nil, fmt.Errorf("%w: %w", errNone, err)
	} else if err != nil {
		return nil, err
	}
	return &Group{manager: m, place: place}, nil
}

// clean makes a path that does not lead out of the hierarchy; a relative one is
// below the caller's own cgroup and stays relative.
func clean(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return strings.TrimPrefix(filepath.Clean("/"+path), "/")
}

// checkUnused refuses a group that is in use. The words are runc's.
func (g *Group) checkUnused() error {
	if !g.manager.Exists() {
		return nil
	}
	pids, err := g.manager.GetAllPids()
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("unable to get cgroup PIDs: %w", err)
	}
	if len(pids) > 0 {
		return fmt.Errorf("container's cgroup is not empty: %d process(es) found", len(pids))
	}
	frozen, err := g.manager.GetFreezerState()
	if err != nil {
		return fmt.Errorf("unable to get cgroup freezer state: %w", err)
	}
	if frozen == cgroups.Frozen {
		return errors.New("container's cgroup unexpectedly frozen")
	}
	return nil
}

// Place is what the container's state says of it.
func (g *Group) Place() state.Cgroup { return g.place }

// Apply makes what is missing of the group and moves a process, and others, with
// all their threads into it. On an error some of it may have been made; see Remove.
func (g *Group) Apply(pid int, others ...int) error {
	err := g.manager.Apply(pid)
	for _, pid := range others {
		if err == nil {
			err = g.manager.AddPid("", pid)
		}
	}
	if err != nil {
		return fmt.Errorf("unable to apply cgroup configuration: %w", err)
	}
	return nil
}

// End kills the processes in the groups that were made for a container: those of a
// monitor that nobody knows by its pid.
func End(place state.Cgroup) error {
	pids := map[int]bool{}
	for _, path := range place.Made {
		all, err := cgroups.GetAllPids(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			return err
		}
		for _, pid := range all {
			pids[pid] = true
		}
	}
	for pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
			return os.NewSyscallError("kill", err)
		}
	}
	return nil
}

// Remove removes the groups that did not exist before the container, with all
// that is below them. No process may be in them but what is about to end.
func Remove(id string, place state.Cgroup) error {
	if place.Systemd && len(place.Made) > 0 {
		g, err := Open(id, place)
		if err != nil {
			return err
		}
		return g.manager.Destroy() // stops the unit
	}
	var errs []error
	for _, path := range place.Made {
		if err := cgroups.RemovePath(path); err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup: %w", err))
		}
	}
	return errors.Join(errs...)
}
