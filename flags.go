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
	const noPivot = "the guest always pivots, and its rootfs is no ramdisk of the host"
	return map[string]flagNote{
		"checkpoint":        {bundle.Refused, errNoCheckpoint.Error()},
		"restore":           {bundle.Refused, errNoCheckpoint.Error()},
		"runv --criu":       {bundle.Ignored, "runc, too, ignores it since 1.1 (with a warning)"},
		"runv --rootless":   {bundle.Ignored, "checked: limits hold in the guest, whatever the caller may do with cgroups of the host"},
		"create --no-pivot": {bundle.Ignored, noPivot},
		"run --no-pivot":    {bundle.Ignored, noPivot},
		"exec --cgroup":     {bundle.Refused, "further cgroups of the container are in the guest, and only the container can make them: let the process write its pid to cgroup.procs"},
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
