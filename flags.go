package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"runv/libvm/bundle"
)

// flagNote says what becomes of a flag, or of a whole command, that does not do
// what it does in runc.
type flagNote struct {
	status bundle.Status // Refused or Ignored
	reason string        // and for Refused the cure
}

// flagNotes are those of "command --flag" and "command"; "runv --flag" is a
// global one. Everything else is supported. docs/flags.md is made of it, and
// refuseFlags reads it, so that the two cannot differ.
func flagNotes() map[string]flagNote {
	const (
		realtime = "cgroup v2, which the guest has, has no realtime limits (use cpu-quota, or process.scheduler)"
		rdt      = "the VM is not put into a resctrl group (make one of your own, and put the container's pid into it)"
		kernel   = "cgroup v2 has no such limit; runc, too, ignores it (with a warning)"
	)
	const noPivot = "the guest always pivots, and its rootfs is no ramdisk of the host"
	return map[string]flagNote{
		"checkpoint":                 {bundle.Refused, errNoCheckpoint.Error()},
		"restore":                    {bundle.Refused, errNoCheckpoint.Error()},
		"runv --criu":                {bundle.Ignored, "runc, too, ignores it since 1.1 (with a warning)"},
		"runv --rootless":            {bundle.Ignored, "checked: limits hold in the guest, whatever the caller may do with cgroups of the host"},
		"create --no-pivot":          {bundle.Ignored, noPivot},
		"run --no-pivot":             {bundle.Ignored, noPivot},
		"update --cpu-rt-period":     {bundle.Refused, realtime},
		"update --cpu-rt-runtime":    {bundle.Refused, realtime},
		"update --l3-cache-schema":   {bundle.Refused, rdt},
		"update --mem-bw-schema":     {bundle.Refused, rdt},
		"update --kernel-memory":     {bundle.Ignored, kernel},
		"update --kernel-memory-tcp": {bundle.Ignored, kernel},
	}
}

// refuseFlags is the error of the first flag given that is refused.
func refuseFlags(c *cli.Context) error {
	notes := flagNotes()
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		if n := notes[c.Command.Name+" --"+name]; n.status == bundle.Refused && c.IsSet(name) {
			return fmt.Errorf("--%s is not supported: %s", name, n.reason)
		}
	}
	return nil
}
