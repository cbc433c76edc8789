package differential

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// must is for what a bundle's preparation does in the test's own directory.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func mkdir(b *box, path string, mode os.FileMode) {
	must(os.MkdirAll(filepath.Join(b.rootfs, path), 0o755))
	must(os.Chmod(filepath.Join(b.rootfs, path), mode))
}

func symlink(b *box, target, path string) {
	must(os.Symlink(target, filepath.Join(b.rootfs, path)))
}

func appendTo(b *box, path, text string) {
	f, err := os.OpenFile(filepath.Join(b.rootfs, path), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	must(err)
	_, err = f.WriteString(text)
	must(err)
	must(f.Close())
}

// drop takes mounts away.
func drop(b *box, destinations ...string) {
	b.Mounts = slices.DeleteFunc(b.Mounts, func(m specs.Mount) bool { return slices.Contains(destinations, m.Destination) })
}

func resources() []config {
	limit := func(name string, change func(*specs.LinuxResources)) config {
		return config{name, nil, func(b *box) {
			b.Linux.Resources = &specs.LinuxResources{}
			b.Linux.CgroupsPath = "/" + b.id
			change(b.Linux.Resources)
		}}
	}
	return []config{
		limit("memory limit", func(r *specs.LinuxResources) { r.Memory = &specs.LinuxMemory{Limit: ptr(int64(64 << 20))} }),
		limit("memory reservation", func(r *specs.LinuxResources) { r.Memory = &specs.LinuxMemory{Reservation: ptr(int64(32 << 20))} }),
		limit("memory unlimited", func(r *specs.LinuxResources) { r.Memory = &specs.LinuxMemory{Limit: ptr(int64(-1))} }),
		limit("cpu quota", func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Quota: ptr(int64(50000))} }),
		limit("cpu quota and period", func(r *specs.LinuxResources) {
			r.CPU = &specs.LinuxCPU{Quota: ptr(int64(20000)), Period: ptr(uint64(40000))}
		}),
		limit("cpu shares", func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Shares: ptr(uint64(512))} }),
		limit("cpuset", func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Cpus: "0"} }),
		limit("cpuset mems", func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Mems: "0"} }),
		limit("pids limit", func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: ptr(int64(100))} }),
		limit("pids unlimited", func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: ptr(int64(-1))} }),
		limit("empty resources", func(*specs.LinuxResources) {}),
		{"relative cgroupsPath", nil, func(b *box) { b.Linux.CgroupsPath = b.id }},
		{"deep cgroupsPath", nil, func(b *box) { b.Linux.CgroupsPath = "/" + b.id + "/x/y" }},
	}
}

func filters() []config {
	filter := func(name string, s specs.LinuxSeccomp, args ...string) config {
		return config{name, args, func(b *box) {
			if len(s.Architectures) == 0 {
				s.Architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
			}
			b.Linux.Seccomp = &s
			b.Process.NoNewPrivileges = true
		}}
	}
	deny := func(action specs.LinuxSeccompAction, errno *uint, names ...string) specs.LinuxSeccomp {
		return specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: names, Action: action, ErrnoRet: errno}}}
	}
	arg := func(op specs.LinuxSeccompOperator, value, two uint64) specs.LinuxSeccomp {
		return specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{
			Names: []string{"personality"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 0, Value: value, ValueTwo: two, Op: op}},
		}}}
	}
	some := []string{"call=mkdir", "call=getcwd", "call=getppid", "call=unknown"}
	personality := []string{"call=personality", "call=personality8"}
	cs := []config{
		filter("seccomp allow all", specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, some...),
		filter("seccomp errno", deny(specs.ActErrno, nil, "mkdir", "getppid"), some...),
		filter("seccomp errno of its own", deny(specs.ActErrno, ptr(uint(38)), "mkdir"), some...),
		filter("seccomp kill", deny(specs.ActKill, nil, "getppid"), some...),
		filter("seccomp kill process", deny(specs.ActKillProcess, nil, "getppid"), some...),
		filter("seccomp kill thread", deny(specs.ActKillThread, nil, "getppid"), some...),
		filter("seccomp trap", deny(specs.ActTrap, nil, "getppid"), some...),
		filter("seccomp trace", deny(specs.ActTrace, nil, "getppid"), some...),
		filter("seccomp log", deny(specs.ActLog, nil, "getppid"), some...),
		filter("seccomp unknown call", deny(specs.ActErrno, nil, "made_up", "mkdir"), some...),
		filter("seccomp equal", arg(specs.OpEqualTo, 8, 0), personality...),
		filter("seccomp not equal", arg(specs.OpNotEqual, 8, 0), personality...),
		filter("seccomp less", arg(specs.OpLessThan, 9, 0), personality...),
		filter("seccomp less or equal", arg(specs.OpLessEqual, 8, 0), personality...),
		filter("seccomp greater", arg(specs.OpGreaterThan, 8, 0), personality...),
		filter("seccomp greater or equal", arg(specs.OpGreaterEqual, 8, 0), personality...),
		filter("seccomp masked", arg(specs.OpMaskedEqual, 8, 8), personality...),
		filter("seccomp of another architecture", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchAARCH64}, Syscalls: deny(specs.ActErrno, nil, "mkdir").Syscalls}, some...),
		filter("seccomp unknown architecture", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_MADEUP"}}),
		filter("seccomp unknown action", deny("SCMP_ACT_MADEUP", nil, "mkdir")),
		filter("seccomp unknown operator", arg("SCMP_CMP_MADEUP", 0, 0)),
		filter("seccomp argument 6", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}}}),
		filter("seccomp flag log", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog}}, some...),
		filter("seccomp flag spec_allow", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagSpecAllow}}, some...),
		filter("seccomp unknown flag", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_MADEUP"}}),
	}
	privileged := filter("seccomp with privileges", deny(specs.ActErrno, nil, "mkdir"), some...)
	inner := privileged.change
	privileged.change = func(b *box) { inner(b); b.Process.NoNewPrivileges = false }
	return append(cs, privileged)
}

func others() []config {
	sysctl := func(key, value string) config {
		return config{"sysctl " + key, nil, func(b *box) { b.Linux.Sysctl = map[string]string{key: value} }}
	}
	return []config{
		sysctl("net.ipv4.ip_forward", "1"),
		sysctl("net.ipv4.ip_unprivileged_port_start", "0"),
		sysctl("net.ipv4.ping_group_range", "0 2147483647"),
		sysctl("net.core.somaxconn", "1000"),
		sysctl("net/ipv4/tcp_keepalive_time", "600"),
		sysctl("kernel.msgmax", "16384"),
		sysctl("kernel.sem", "32000 1024000000 500 32000"),
		sysctl("fs.mqueue.msg_max", "20"),
		sysctl("kernel.domainname", "example.org"),
		sysctl("kernel.hostname", "x"),
		sysctl("kernel.panic", "1"),
		sysctl("vm.swappiness", "10"),
		sysctl("net.made.up", "1"),
		{"maskedPaths", []string{"read=/etc/passwd", "list=/home", "stat=/etc/passwd", "stat=/home"}, func(b *box) {
			b.Linux.MaskedPaths = append(b.Linux.MaskedPaths, "/etc/passwd", "/home", "/missing")
		}},
		{"readonlyPaths", []string{"write=/etc/passwd", "write=/home/x", "write=/tmp/x"}, func(b *box) {
			b.Linux.ReadonlyPaths = append(b.Linux.ReadonlyPaths, "/etc/passwd", "/home", "/missing")
		}},
		{"nothing masked", []string{"read=/proc/timer_list", "write=/proc/sys/kernel/domainname"}, func(b *box) { b.Linux.MaskedPaths, b.Linux.ReadonlyPaths = nil, nil }},
		{"masked and read-only in /proc", []string{"read=/proc/timer_list", "read=/proc/keys", "write=/proc/sys/kernel/domainname", "write=/proc/sysrq-trigger", "write=/proc/irq/x"}, nil},
		{"personality LINUX32", nil, func(b *box) { b.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} }},
		{"personality LINUX", nil, func(b *box) { b.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux} }},
		{"personality unknown", nil, func(b *box) { b.Linux.Personality = &specs.LinuxPersonality{Domain: "MADEUP"} }},
		{"annotations", nil, func(b *box) { b.Annotations = map[string]string{"org.example.key": "value"} }},
		{"mountLabel", nil, func(b *box) { b.Linux.MountLabel = "system_u:object_r:svirt_sandbox_file_t:s0:c1,c2" }},
		{"hook createRuntime", []string{"read=/hook"}, func(b *box) {
			b.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo ran >" + b.rootfs + "/hook"}}}}
		}},
		{"hook startContainer", []string{"read=/hook"}, func(b *box) {
			b.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo ran >/hook"}}}}
		}},
		//lint:ignore SA1019 engines use it because it is old
		{"hook that fails", nil, func(b *box) { b.Hooks = &specs.Hooks{Prestart: []specs.Hook{{Path: "/bin/false"}}} }},
		//lint:ignore SA1019 engines use it because it is old
		{"hook with a relative path", nil, func(b *box) { b.Hooks = &specs.Hooks{Prestart: []specs.Hook{{Path: "bin/true"}}} }},
	}
}

// refused are configurations that a runtime does not run, or not to an end.
func refused() []config {
	return []config{
		set("missing executable", func(p *specs.Process) { p.Args = []string{"/missing"} }),
		set("missing executable of the PATH", func(p *specs.Process) { p.Args = []string{"missing"} }),
		set("executable without permission", func(p *specs.Process) { p.Args = []string{"/etc/passwd"} }),
		set("directory as executable", func(p *specs.Process) { p.Args = []string{"/etc"} }),
		set("no args", func(p *specs.Process) { p.Args = nil }),
		set("empty arg", func(p *specs.Process) { p.Args = []string{""} }),
		set("relative cwd", func(p *specs.Process) { p.Cwd = "tmp" }),
		set("no cwd", func(p *specs.Process) { p.Cwd = "" }),
		set("cwd is a file", func(p *specs.Process) { p.Cwd = "/etc/passwd" }),
		set("unknown rlimit", func(p *specs.Process) { p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_MADEUP"}} }),
		set("rlimit twice", func(p *specs.Process) {
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_CORE"}}
		}),
		set("soft above hard", func(p *specs.Process) { p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 2, Hard: 1}} }),
		set("oomScoreAdj too large", func(p *specs.Process) { p.OOMScoreAdj = ptr(1001) }),
		{"no process", nil, func(b *box) { b.Process = nil }},
		{"no root", nil, func(b *box) { b.Root = nil }},
		{"missing root", nil, func(b *box) { b.Root.Path = "missing" }},
		{"no linux", nil, func(b *box) { b.Linux = nil }},
		{"bad version", nil, func(b *box) { b.Version = "x" }},
		{"no version", nil, func(b *box) { b.Version = "" }},
		{"mount of a missing type", nil, func(b *box) { b.Mounts = append(b.Mounts, specs.Mount{Destination: "/m", Source: "x"}) }},
	}
}
