package cgroup

import (
	"fmt"

	"github.com/opencontainers/cgroups"

	guest "runv/agent/cgroup"
)

// Devices says which devices the processes of a group may make and open, in the
// two forms that there are; the zero value says nothing.
type Devices struct {
	// Lines are, in their order, writes to devices.allow (those that begin with
	// "+") and devices.deny ("-") of cgroup v1.
	Lines []string
	// Program is that of type BPF_PROG_TYPE_CGROUP_DEVICE of cgroup v2, an array of
	// struct bpf_insn; empty if every device is allowed.
	Program []byte
}

// setDevices is not left to opencontainers/cgroups: that sorts the rules, refuses
// lists which cgroup v1 cannot undo, and brings an eBPF library.
func (g *Group) setDevices(d Devices) error {
	if g.v2() {
		if len(d.Program) == 0 {
			return nil
		}
		return guest.AttachDevices(g.manager.Path(""), d.Program)
	}
	dir := g.manager.Path("devices")
	if dir == "" {
		return nil
	}
	for _, line := range d.Lines {
		file := "devices.allow"
		if line[0] == '-' {
			file = "devices.deny"
		}
		if err := cgroups.WriteFile(dir, file, line[1:]); err != nil {
			return fmt.Errorf("linux.resources.devices: %w", err)
		}
	}
	return nil
}
