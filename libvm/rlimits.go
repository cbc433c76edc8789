package libvm

import (
	"os"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// rlimits are the names of config.json and the kernel's numbers of all limits
// (linux/resource.h).
var rlimits = []struct {
	name     string
	resource int
}{
	{"RLIMIT_AS", unix.RLIMIT_AS}, {"RLIMIT_CORE", unix.RLIMIT_CORE}, {"RLIMIT_CPU", unix.RLIMIT_CPU},
	{"RLIMIT_DATA", unix.RLIMIT_DATA}, {"RLIMIT_FSIZE", unix.RLIMIT_FSIZE}, {"RLIMIT_LOCKS", unix.RLIMIT_LOCKS},
	{"RLIMIT_MEMLOCK", unix.RLIMIT_MEMLOCK}, {"RLIMIT_MSGQUEUE", unix.RLIMIT_MSGQUEUE}, {"RLIMIT_NICE", unix.RLIMIT_NICE},
	{"RLIMIT_NOFILE", unix.RLIMIT_NOFILE}, {"RLIMIT_NPROC", unix.RLIMIT_NPROC}, {"RLIMIT_RSS", unix.RLIMIT_RSS},
	{"RLIMIT_RTPRIO", unix.RLIMIT_RTPRIO}, {"RLIMIT_RTTIME", unix.RLIMIT_RTTIME},
	{"RLIMIT_SIGPENDING", unix.RLIMIT_SIGPENDING}, {"RLIMIT_STACK", unix.RLIMIT_STACK},
}

// inheritRlimits adds to p the limits of the caller that the config does not
// set: a process of runc has them from its parents, and one in a guest has not.
func inheritRlimits(p *specs.Process) error {
	for _, l := range rlimits {
		if slices.ContainsFunc(p.Rlimits, func(r specs.POSIXRlimit) bool { return r.Type == l.name }) {
			continue
		}
		if l.resource == unix.RLIMIT_NOFILE {
			continue // Go has raised ours; package monitor sees the original
		}
		var r unix.Rlimit
		if err := unix.Getrlimit(l.resource, &r); err != nil {
			return os.NewSyscallError("getrlimit", err)
		}
		p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: l.name, Soft: r.Cur, Hard: r.Max})
	}
	return nil
}
