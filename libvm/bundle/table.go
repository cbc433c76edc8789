package bundle

import (
	"slices"
	"strings"
)

// Status says what becomes of a field of config.json.
type Status string

// The values of Status.
const (
	// Supported fields do what the specification says.
	Supported Status = "supported"
	// Refused fields make create fail if they are set to anything but nothing:
	// zero, false, "", and empty lists and objects are nothing.
	Refused Status = "refused"
	// Ignored fields change nothing; the note says why that is right.
	Ignored Status = "ignored"
)

// Field is a field of config.json.
type Field struct {
	// Path is the field's path in JSON: "mounts[].destination".
	Path   string
	Status Status
	// Note qualifies Supported, and is the reason for Refused and Ignored.
	// These two then hold for every field below Path as well.
	Note string
}

// Table lists every field of config.json (runtime-spec v1.3), in the order of
// the specification. A test walks the specification's types: a field that is
// not here fails it.
func Table() []Field {
	var out []Field
	for _, part := range [][]Field{
		tableTop(), tableHooks(), tableProcess(), tableMounts(), tableLinux(), tableResources(), tableSeccomp(), tableVM(), tableOthers(),
	} {
		out = append(out, part...)
	}
	return out
}

// Supports says whether Table calls a field, or one below it, supported.
func Supports(path string) bool {
	return slices.ContainsFunc(Table(), func(f Field) bool {
		below, ok := strings.CutPrefix(f.Path, path)
		return ok && f.Status == Supported && (below == "" || strings.ContainsRune(".[{", rune(below[0])))
	})
}

func tableTop() []Field {
	return []Field{
		{"ociVersion", Supported, "1.0.0 and later of major version 1; later than 1.3 with a warning"},
		{"root.path", Supported, "a directory, relative to the bundle; a symlink is followed"},
		{"root.readonly", Supported, ""},
		{"hostname", Supported, ""},
		{"domainname", Supported, ""},
		{"annotations", Supported, "kept; those that begin with io.runv. configure runv, unknown ones of them are refused"},
	}
}

func tableHooks() []Field {
	var out []Field
	for _, kind := range []struct{ name, where string }{
		{"prestart", "on the host"},
		{"createRuntime", "on the host"},
		{"createContainer", "on the host, in the namespaces that the container has there, but the caller's user namespace; what it mounts would not reach the guest, and is an error"},
		{"startContainer", "in the guest"},
		{"poststart", "on the host, by start; if one fails the container is killed"},
		{"poststop", "on the host, by delete"},
	} {
		path := "hooks." + kind.name + "[]."
		out = append(out,
			Field{path + "path", Supported, kind.where},
			Field{path + "args", Supported, ""},
			Field{path + "env", Supported, "as under runc, a hook without gets the runtime's; a createContainer or startContainer hook the container's"},
			Field{path + "timeout", Supported, "s"})
	}
	return out
}

func tableProcess() []Field {
	return []Field{
		{"process.terminal", Supported, ""},
		{"process.consoleSize.height", Supported, "at most 65535"},
		{"process.consoleSize.width", Supported, "at most 65535"},
		{"process.user.uid", Supported, ""},
		{"process.user.gid", Supported, ""},
		{"process.user.umask", Supported, ""},
		{"process.user.additionalGids", Supported, ""},
		{"process.user.username", Refused, "it is for Windows: use uid and gid"},
		{"process.args", Supported, ""},
		{"process.commandLine", Refused, "it is for Windows: use args"},
		{"process.env", Supported, ""},
		{"process.cwd", Supported, ""},
		{"process.capabilities.bounding", Supported, "unknown capabilities are ignored with a warning"},
		{"process.capabilities.effective", Supported, "as above"},
		{"process.capabilities.inheritable", Supported, "as above"},
		{"process.capabilities.permitted", Supported, "as above"},
		{"process.capabilities.ambient", Supported, "as above"},
		{"process.rlimits[].type", Supported, ""},
		{"process.rlimits[].hard", Supported, "the guest has no limits of the host's to stay below"},
		{"process.rlimits[].soft", Supported, ""},
		{"process.noNewPrivileges", Supported, ""},
		{"process.apparmorProfile", Supported, "of the VM and what serves it; the guest has none, so an exec with another one is refused. unconfined is the caller's"},
		{"process.oomScoreAdj", Supported, "-1000 to 1000"},
		{"process.scheduler.policy", Supported, "all but SCHED_ISO, which no kernel has"},
		{"process.scheduler.nice", Supported, ""},
		{"process.scheduler.priority", Supported, ""},
		{"process.scheduler.flags", Supported, "those of SCHED_FLAG_UTIL_CLAMP need a kernel with CONFIG_UCLAMP_TASK"},
		{"process.scheduler.runtime", Supported, "ns"},
		{"process.scheduler.deadline", Supported, "ns"},
		{"process.scheduler.period", Supported, "ns"},
		{"process.selinuxLabel", Supported, "of the VM and what serves it, on a host with SELinux; the guest has none, so an exec with another one is refused"},
		{"process.ioPriority.class", Supported, ""},
		{"process.ioPriority.priority", Supported, "0 to 7"},
		{"process.execCPUAffinity.initial", Supported, "numbers of the guest's CPUs"},
		{"process.execCPUAffinity.final", Supported, "numbers of the guest's CPUs"},
	}
}

func tableMounts() []Field {
	const idmapped = "of binds, on any file system of the host: the file server maps the owners"
	return []Field{
		{"mounts[].destination", Supported, "a relative one is taken from /, with a warning"},
		{"mounts[].type", Supported, "the guest's kernel mounts its own (tmpfs, proc, sysfs, cgroup …); what has its content on the host (overlay, ext4 …) the host mounts, and shares; fuse is refused"},
		{"mounts[].source", Supported, "of a bind relative to the bundle: a directory or file; of /proc, /sys and their like the guest's; of a device node the guest's device of that number, if it has one"},
		{"mounts[].options", Supported, "all that runc knows; what the guest mounts below a shared bind does not reach the host"},
		{"mounts[].uidMappings[].containerID", Supported, idmapped},
		{"mounts[].uidMappings[].hostID", Supported, idmapped},
		{"mounts[].uidMappings[].size", Supported, idmapped},
		{"mounts[].gidMappings[].containerID", Supported, idmapped},
		{"mounts[].gidMappings[].hostID", Supported, idmapped},
		{"mounts[].gidMappings[].size", Supported, idmapped},
	}
}

func tableLinux() []Field {
	const mapping = "in the guest"
	return []Field{
		{"linux.uidMappings[].containerID", Supported, mapping},
		{"linux.uidMappings[].hostID", Supported, mapping},
		{"linux.uidMappings[].size", Supported, mapping},
		{"linux.gidMappings[].containerID", Supported, mapping},
		{"linux.gidMappings[].hostID", Supported, mapping},
		{"linux.gidMappings[].size", Supported, mapping},
		{"linux.sysctl", Supported, "those of the IPC, network and UTS namespaces, but kernel.hostname"},
		{"linux.cgroupsPath", Supported, "of the VM on the host, as under runc, and of the workload in the guest"},
		{"linux.namespaces[].type", Supported, "all; an absent one is the caller's on the host and the guest's first one in the guest; without a network namespace see the setting host_network"},
		{"linux.namespaces[].path", Supported, "joined on the host, while the container has one of its own in its guest; refused for user and time, and if another container of runv is in it"},
		{"linux.devices[].path", Supported, "a block device of the host, at most 4, is one of virtio in the guest if the device rules let it be opened; behind other nodes is what the guest's kernel has, not the host's hardware"},
		{"linux.devices[].type", Supported, "b, c, u and p"},
		{"linux.devices[].major", Supported, "of a block device of the host the host's; its node in the guest has the guest's number"},
		{"linux.devices[].minor", Supported, ""},
		{"linux.devices[].fileMode", Supported, ""},
		{"linux.devices[].uid", Supported, ""},
		{"linux.devices[].gid", Supported, ""},
		{"linux.netDevices{}.name", Supported, "moved into the container's network namespace, they are cards of the guest like what else is there"},
		{"linux.rootfsPropagation", Supported, "what the host mounts below the rootfs later on is seen where it is slave or shared; what the guest mounts stays in the guest"},
		{"linux.maskedPaths", Supported, ""},
		{"linux.readonlyPaths", Supported, ""},
		{"linux.mountLabel", Supported, "of the file systems that the host mounts, if it has SELinux; the guest has none (where the host has none either a warning says so, as crun ignores it)"},
		{"linux.intelRdt", Refused, "a resctrl group divides the host's cache, and the VM is not put into one"},
		{"linux.memoryPolicy", Refused, "the guest has one NUMA node"},
		{"linux.personality.domain", Supported, "LINUX and LINUX32"},
		{"linux.personality.flags", Refused, "the specification knows no flag"},
		{"linux.timeOffsets{}.secs", Supported, "of the clocks monotonic and boottime"},
		{"linux.timeOffsets{}.nanosecs", Supported, ""},
	}
}

// tableResources: engines write many fields with the value 0, which says
// nothing, as for runc.
func tableResources() []Field {
	const (
		rule     = "rules apply in their order; then the default devices are allowed, as by runc; on the host those that make a VM, too"
		disks    = "on the host, where all reading and writing of files is done, as by runc"
		net      = "on a host with cgroup v1 that has net_cls or net_prio; nothing on v2, as by runc"
		cpusNote = "of the VM on the host; the guest has as many, unless the quota is less"
	)
	return []Field{
		{"linux.resources.devices[].allow", Supported, rule},
		{"linux.resources.devices[].type", Supported, "a, b and c"},
		{"linux.resources.devices[].major", Supported, ""},
		{"linux.resources.devices[].minor", Supported, ""},
		{"linux.resources.devices[].access", Supported, "required"},
		{"linux.resources.memory.limit", Supported, "also sizes the VM, which its RAM and 256 MiB limit on the host"},
		{"linux.resources.memory.reservation", Supported, ""},
		{"linux.resources.memory.swap", Supported, "memory and swap together; the guest has no swap, the VM may be swapped out by the host"},
		{"linux.resources.memory.kernel", Ignored, "deprecated, and without meaning in cgroup v2 (a warning says so)"},
		{"linux.resources.memory.kernelTCP", Ignored, "deprecated, and without meaning in cgroup v2 (a warning says so)"},
		{"linux.resources.memory.swappiness", Supported, "of the VM, on a host with cgroup v1, as by runc; the guest has no swap"},
		{"linux.resources.memory.disableOOMKiller", Supported, "of the VM, on a host with cgroup v1, as by runc; the guest's kernel kills all the same (a warning says so)"},
		{"linux.resources.memory.useHierarchy", Ignored, "cgroup v2, which the guest has, is always hierarchical"},
		{"linux.resources.memory.checkBeforeUpdate", Supported, "by update"},
		{"linux.resources.cpu.shares", Supported, ""},
		{"linux.resources.cpu.quota", Supported, "also sizes the VM"},
		{"linux.resources.cpu.period", Supported, ""},
		{"linux.resources.cpu.cpus", Supported, cpusNote},
		{"linux.resources.cpu.mems", Supported, "of the VM on the host; the guest has one memory node"},
		{"linux.resources.cpu.burst", Supported, ""},
		{"linux.resources.cpu.realtimeRuntime", Refused, "cgroup v2, which the guest has, has no realtime limits"},
		{"linux.resources.cpu.realtimePeriod", Refused, "cgroup v2, which the guest has, has no realtime limits"},
		{"linux.resources.cpu.idle", Supported, ""},
		{"linux.resources.pids.limit", Supported, "of the workload in the guest; the VM's threads on the host may be 2048 more"},
		{"linux.resources.blockIO.weight", Supported, disks},
		{"linux.resources.blockIO.leafWeight", Supported, disks},
		{"linux.resources.blockIO.weightDevice[].major", Supported, disks},
		{"linux.resources.blockIO.weightDevice[].minor", Supported, disks},
		{"linux.resources.blockIO.weightDevice[].weight", Supported, disks},
		{"linux.resources.blockIO.weightDevice[].leafWeight", Supported, disks},
		{"linux.resources.blockIO.throttleReadBpsDevice[].major", Supported, disks},
		{"linux.resources.blockIO.throttleReadBpsDevice[].minor", Supported, disks},
		{"linux.resources.blockIO.throttleReadBpsDevice[].rate", Supported, disks},
		{"linux.resources.blockIO.throttleWriteBpsDevice[].major", Supported, disks},
		{"linux.resources.blockIO.throttleWriteBpsDevice[].minor", Supported, disks},
		{"linux.resources.blockIO.throttleWriteBpsDevice[].rate", Supported, disks},
		{"linux.resources.blockIO.throttleReadIOPSDevice[].major", Supported, disks},
		{"linux.resources.blockIO.throttleReadIOPSDevice[].minor", Supported, disks},
		{"linux.resources.blockIO.throttleReadIOPSDevice[].rate", Supported, disks},
		{"linux.resources.blockIO.throttleWriteIOPSDevice[].major", Supported, disks},
		{"linux.resources.blockIO.throttleWriteIOPSDevice[].minor", Supported, disks},
		{"linux.resources.blockIO.throttleWriteIOPSDevice[].rate", Supported, disks},
		{"linux.resources.hugepageLimits[].pageSize", Supported, "in the guest, and on the host where that counts pages of the size"},
		{"linux.resources.hugepageLimits[].limit", Supported, "as above"},
		{"linux.resources.network.classID", Supported, net},
		{"linux.resources.network.priorities[].name", Supported, net},
		{"linux.resources.network.priorities[].priority", Supported, net},
		{"linux.resources.rdma{}.hcaHandles", Supported, "of the host, as by runc; the guest has no RDMA devices"},
		{"linux.resources.rdma{}.hcaObjects", Supported, "as above"},
		{"linux.resources.unified", Supported, "in the guest; on a host with cgroup v2 there, too, with the VM's needs on top of memory.max, memory.high and pids.max"},
	}
}

func tableSeccomp() []Field {
	return []Field{
		{"linux.seccomp.defaultAction", Supported, "all but SCMP_ACT_NOTIFY, as by runc"},
		{"linux.seccomp.defaultErrnoRet", Supported, ""},
		{"linux.seccomp.architectures", Supported, "x86-64, x86 and x32; those that no guest has change nothing"},
		{"linux.seccomp.flags", Supported, "all"},
		{"linux.seccomp.listenerPath", Supported, "the pid of a call is 0, SECCOMP_IOCTL_NOTIF_ADDFD fails; the host needs FUSE"},
		{"linux.seccomp.listenerMetadata", Supported, ""},
		{"linux.seccomp.syscalls[].names", Supported, "unknown names change nothing, as by runc"},
		{"linux.seccomp.syscalls[].action", Supported, "all"},
		{"linux.seccomp.syscalls[].errnoRet", Supported, ""},
		{"linux.seccomp.syscalls[].args[].index", Supported, ""},
		{"linux.seccomp.syscalls[].args[].value", Supported, ""},
		{"linux.seccomp.syscalls[].args[].valueTwo", Supported, ""},
		{"linux.seccomp.syscalls[].args[].op", Supported, "all"},
	}
}

func tableVM() []Field {
	return []Field{
		{"vm.hypervisor", Refused, "a bundle does not choose a program of the host: set qemu in /etc/runv/config.toml"},
		{"vm.kernel.path", Supported, "vmlinux or bzImage"},
		{"vm.kernel.parameters", Supported, "appended to the guest kernel's command line"},
		{"vm.kernel.initrd", Refused, "runv brings its own, with the agent in it"},
		{"vm.image", Refused, "the root file system is root.path"},
		{"vm.hwconfig.deviceTree", Refused, "x86 guests have none"},
		{"vm.hwconfig.vcpus", Supported, "where the bundle sets no limit"},
		{"vm.hwconfig.memory", Supported, "where the bundle sets no limit"},
		{"vm.hwconfig.dtdevs", Refused, "devices of the host are not passed through"},
		{"vm.hwconfig.iomems", Refused, "devices of the host are not passed through"},
		{"vm.hwconfig.irqs", Refused, "devices of the host are not passed through"},
	}
}

func tableOthers() []Field {
	const other = "for another platform: the specification's own rule, and what runc does"
	return []Field{
		{"solaris", Ignored, other},
		{"windows", Ignored, other},
		{"zos", Ignored, other},
		{"freebsd", Ignored, other},
	}
}
