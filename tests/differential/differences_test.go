package differential

import (
	"regexp"
	"strings"
)

// ran are the facts of whether the probe ran.
const ran = `ran|exit status`

// difference is one that is not a defect of runv.
type difference struct {
	config string // regular expression for names of configurations; empty: any
	fact   string // regular expression for names of facts
	reason string
	// holds limits it to some values; nil: any
	holds func(runv, runc string) bool
	// sometimes is for one that another machine may not have.
	sometimes bool
}

func (d difference) key() string { return d.config + "|" + d.fact }

func (d difference) match(config, fact, runv, runc string) bool {
	return matches(d.config, config) && matches(d.fact, fact) && (d.holds == nil || d.holds(runv, runc))
}

func matches(pattern, s string) bool {
	return pattern == "" || regexp.MustCompile("^(?:"+pattern+")$").MatchString(s)
}

// oneIsEmpty is for what one of two has and the other one has not.
func oneIsEmpty(runv, runc string) bool { return runv == "" || runc == "" }

// oneIsEmptyOrMissing is for files that one of two kernels has not.
func oneIsEmptyOrMissing(runv, runc string) bool {
	const missing = "no such file or directory"
	return oneIsEmpty(runv, runc) || runv == missing || runc == missing
}

// differences are listed by what they come from.
var differences = []difference{
	// The host's file systems are behind virtio-fs.
	{fact: `mount / (source|type|super)`, reason: "the root is served by virtio-fs"},
	{fact: `mount .* (source|type|super)`, reason: "a bind of the host's is served by virtio-fs", holds: func(runv, _ string) bool {
		return runv == "virtiofs" || runv == "runv" || runv == "rw" || runv == "ro"
	}},
	{fact: `mount .* propagation`, reason: "the host's mounts are another kernel's: there is no master to be a slave of", holds: func(runv, runc string) bool {
		return runc == "master" && runv == "" || runc == "shared master" && runv == "shared" || runv == "master" && runc == ""
	}},
	// Control groups: the host may have v1, the guest has v2.
	{fact: `mount /sys/fs/cgroup.*`, reason: "the guest has control groups v2"},
	{fact: `cgroup memory low`, reason: "v1's soft limit is at most when v2's protection is at nothing", holds: func(runv, runc string) bool { return runv == "0" && runc == "max" }},
	{fact: `cgroup cpuset`, reason: "v2 shows nothing where the parent's CPUs are used", holds: oneIsEmpty},
	// Another kernel, on other hardware.
	{fact: `mount /proc/(acpi|scsi|timer_stats|sched_debug|latency_stats|sysrq-trigger|kcore|keys|bus|fs|irq)( .*)?`, reason: "the guest's kernel has other files in /proc", holds: oneIsEmpty},
	{fact: `sysctl net/ipv4/ip_forward`, reason: "a new network namespace has the value of its kernel's first one"},
	{config: `masked and read-only in /proc`, fact: `(read|write) /proc/.*`, reason: "the guest's kernel has other files in /proc", holds: oneIsEmptyOrMissing},
	{config: `nothing masked`, fact: `read /proc/timer_list`, reason: "it lists the timers of its kernel"},
	{config: `cgroup namespace`, fact: `read /proc/self/cgroup`, reason: "v2 has one hierarchy"},
	{config: `user namespace.*`, fact: `sysctl net/core/somaxconn`, reason: "Linux 6.1, the guest's, hides it from user namespaces, a newer host does not", holds: oneIsEmptyOrMissing, sometimes: true},
	// Devices in a user namespace are binds: of the host's nodes under runc, of the agent's here.
	{config: `user namespace.*`, fact: `mount /(dev|proc)/.*`, reason: "device nodes are bound from a tmpfs of the agent's, not from the host's devtmpfs"},
	{config: `user namespace.*`, fact: `dev /dev/null`, reason: "runc's caller owns the host's node as nobody of the container; the guest's is root's", sometimes: true},
	// More than runc 1.1.5 takes, as the specification has it and other runtimes do.
	{config: `bind without the word`, fact: ran, reason: "runc 1.1 wants the option bind beside the type; the specification does not"},
	{config: `no /proc`, fact: ran, reason: "runc looks into the container's /proc itself"},
	{config: `rootfsPropagation r?shared`, fact: `mount .* propagation`, reason: "runc 1.1 leaves the root private; crun, and runtime-tools' linux_rootfs_propagation, have it shared"},
	{config: `rootfsPropagation unbindable`, fact: ran, reason: "runc 1.1 cannot bind the root to itself then"},
	{config: `default device with another mode`, fact: ran, reason: "runc reopens /dev/null with the container's permissions"},
	{config: `seccomp flag (log|spec_allow)`, fact: ran, reason: "runc 1.1.5 as Debian builds it has no seccomp flags"},
	{config: `personality LINUX32`, fact: `machine|self personality`, reason: "runc 1.1 has no personality"},
	{config: `personality unknown`, fact: ran, reason: "runc 1.1 has no personality"},
	{config: `mountLabel`, fact: ran, reason: "without SELinux a label is not applied, as by crun; runc mounts with it and fails"},
	// Less: what the specification forbids.
	{config: `relative device`, fact: ran, reason: "linux.devices[].path is a full path (config-linux.md, Devices)"},
	{config: `rlimit twice`, fact: ran, reason: "an error by config.md, POSIX process"},
	{config: `(bad|no) version`, fact: ran, reason: "ociVersion is required to be a semantic version (config.md)"},
	// The machine's.
	{config: `engine (docker|podman|ctr)-privileged.json`, fact: ran, reason: "a host that lacks capabilities cannot give them; a guest has them all", sometimes: true},
	// The runtime's own.
	{config: `tmpfs over a directory|tmpcopyup|engine .*`, fact: `mount .* super`, reason: "the mode is given to mount(2), where runc calls chmod(2)", holds: func(runv, runc string) bool {
		return strings.HasPrefix(runv, runc+",mode=")
	}},
	{fact: `fd 0`, reason: "runc run copies its input through a pipe, even that from /dev/null"},
}
