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
	field  string        // of config.json that it stands for, whose check it gets; empty: none
}

// asField is the note on a flag that stands for a field of config.json.
func asField(path string) flagNote {
	for _, f := range bundle.Table() {
		if f.Path == path {
			return flagNote{f.Status, "as " + path + " of config.json: " + f.Note, path}
		}
	}
	return flagNote{}
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
		"checkpoint":                 {status: bundle.Refused, reason: errNoCheckpoint.Error()},
		"restore":                    {status: bundle.Refused, reason: errNoCheckpoint.Error()},
		"exec --apparmor":            asField("process.apparmorProfile"),
		"exec --process-label":       asField("process.selinuxLabel"),
		"runv --criu":                {status: bundle.Ignored, reason: "runc, too, ignores it since 1.1 (with a warning)"},
		"runv --rootless":            {status: bundle.Ignored, reason: "checked: limits hold in the guest, whatever the caller may do with cgroups of the host"},
		"create --no-pivot":          {status: bundle.Ignored, reason: noPivot},
		"run --no-pivot":             {status: bundle.Ignored, reason: noPivot},
		"update --cpu-rt-period":     {status: bundle.Refused, reason: realtime},
		"update --cpu-rt-runtime":    {status: bundle.Refused, reason: realtime},
		"update --l3-cache-schema":   {status: bundle.Refused, reason: rdt},
		"update --mem-bw-schema":     {status: bundle.Refused, reason: rdt},
		"update --kernel-memory":     {status: bundle.Ignored, reason: kernel},
		"update --kernel-memory-tcp": {status: bundle.Ignored, reason: kernel},
	}
}

// refuseFlags is the error of the first flag given that is refused.
func refuseFlags(c *cli.Context) error {
	notes := flagNotes()
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		if n := notes[c.Command.Name+" --"+name]; n.status == bundle.Refused && n.field == "" && c.IsSet(name) {
			return fmt.Errorf("--%s is not supported: %s", name, n.reason)
		}
	}
	return nil
}
