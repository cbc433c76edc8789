// Package state keeps what is known about a container on disk, in the
// directory <root>/<id>: state.json (OCI runtime-spec v1.3.0 "State", with a
// few fields of our own) and the monitor's control socket.
//
// A monitor that pivots into the container's root can no longer see <root>;
// so everything here works relative to two directory descriptors that were
// opened before.
package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Status is the state of a container's workload (runtime-spec "State").
type Status string

// The states, in the order in which a container passes through them. Paused
// goes back to Running.
const (
	Creating Status = "creating" // create is at work; pid is that of the create command
	Created  Status = "created"  // the workload's process exists, stopped before exec
	Running  Status = "running"  // the workload was told to exec
	Paused   Status = "paused"
	Stopped  Status = "stopped" // the workload ended
)

// Public is what `runv state` prints: names, order and meaning as in runc.
type Public struct {
	// Version is the version of the runtime-spec that the state follows.
	Version string `json:"ociVersion"`
	// ID is the container's id.
	ID string `json:"id"`
	// PID is the process id of the monitor, or of its stand-in, in the pid
	// namespace of the caller of create; 0 is printed for a stopped container.
	PID int `json:"pid"`
	// Status is the workload's state.
	Status Status `json:"status"`
	// Bundle is the absolute path of the bundle directory.
	Bundle string `json:"bundle"`
	// Rootfs is the absolute path of the root filesystem on the host.
	Rootfs string `json:"rootfs"`
	// Created is the moment of create, UTC.
	Created time.Time `json:"created"`
	// Annotations are those of config.json.
	Annotations map[string]string `json:"annotations,omitempty"`
	// Owner is the name of the state directory's owner; only `list` sets it.
	Owner string `json:"owner"`
}

// OCI returns the state as hooks get it.
func (p Public) OCI() *specs.State {
	s := &specs.State{
		Version: p.Version, ID: p.ID, Status: specs.ContainerState(p.Status), Pid: p.PID, Bundle: p.Bundle, Annotations: p.Annotations,
	}
	if p.Status == Stopped {
		s.Pid = 0
	}
	return s
}

// State is the content of state.json.
type State struct {
	Public
	// StartTime is when the process PID started, in clock ticks since boot
	// (proc(5), /proc/pid/stat field 22): PID with another start time is a
	// stranger. 0: not known.
	StartTime uint64 `json:"startTime,omitempty"`
	// Notify says that the container has a notify socket.
	Notify bool `json:"notify,omitempty"`
	// Monitor is the monitor, if another process stands in for the container.
	Monitor *Process `json:"monitor,omitempty"`
	// Hooks are those that are yet to be run: poststart and poststop. The bundle
	// may be gone, or another one, by then.
	Hooks *specs.Hooks `json:"hooks,omitempty"`
	// Cgroup is the container's place in the host's cgroups.
	Cgroup Cgroup `json:"cgroup,omitzero"`
	// Memory is the VM's RAM, in bytes.
	Memory uint64 `json:"memory,omitempty"`
	// MaxMemory is to how much it can grow (vm.MaxMemory).
	MaxMemory uint64 `json:"maxMemory,omitempty"`
	// CPUs is the number of the VM's vCPUs.
	CPUs int `json:"cpus,omitempty"`
	// Resources are the limits of config.json, with what update has changed.
	Resources *specs.LinuxResources `json:"resources,omitempty"`
	// NetworkNamespace is the absolute path of the network namespace that the
	// container was put into; delete takes back what was changed in it.
	NetworkNamespace string `json:"networkNamespace,omitempty"`
}

// Cgroup is a place in the host's cgroups.
type Cgroup struct {
	Path    string `json:"path,omitempty"`    // linux.cgroupsPath
	Systemd bool   `json:"systemd,omitempty"` // made by systemd
	// Paths are the absolute paths by controller (cgroup v1), or that of "" (v2).
	Paths map[string]string `json:"paths,omitempty"`
	// Made are those of them that were made for the container; delete removes them.
	Made []string `json:"made,omitempty"`
}

// OfMonitor returns the state as that of the monitor beside the stand-in, which
// goes with it.
func (s State) OfMonitor() State {
	s.PID, s.StartTime = s.Monitor.PID, s.Monitor.StartTime
	return s
}

// maxFile bounds state.json, which a damaged disk could make any size.
// Annotations are the only part without a small bound of its own.
const maxFile = 8 << 20 // bytes

// Parse reads the content of state.json.
func Parse(b []byte) (State, error) {
	var s State
	if len(b) > maxFile {
		return s, fmt.Errorf("state.json has %d bytes, more than %d", len(b), maxFile)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return s, errors.New("state.json is empty")
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return State{}, fmt.Errorf("parse state.json: %w", err)
	}
	switch s.Status {
	case Creating, Created, Running, Paused, Stopped:
	default:
		return State{}, fmt.Errorf("parse state.json: unknown status %q", s.Status)
	}
	if s.PID < 0 || s.PID > maxPID {
		return State{}, fmt.Errorf("parse state.json: pid %d is out of range", s.PID)
	}
	return s, nil
}

// maxPID is the kernel's PID_MAX_LIMIT on 64-bit machines.
const maxPID = 4 << 20

// CheckID says whether id may name a container: runc's characters
// ([\w+.-], at least one) and not "." or "..".
func CheckID(id string) error {
	if id == "" {
		return ErrEmptyID
	}
	if id == "." || id == ".." || len(id) > 1024 {
		return ErrInvalidID
	}
	for i := range len(id) {
		c := id[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '_', c == '+', c == '-', c == '.':
		default:
			return ErrInvalidID
		}
	}
	return nil
}
