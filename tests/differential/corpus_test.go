package differential

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// corpus is every configuration: each field alone, and those of engines.
func corpus(t *testing.T) []config {
	t.Helper()
	return slices.Concat(processes(), users(), capabilities(), mounts(), namespaces(), devices(), resources(), filters(), others(), refused(), engines(t))
}

func ptr[T any](v T) *T { return &v }

// set is a configuration that changes the process.
func set(name string, change func(*specs.Process), args ...string) config {
	return config{name, args, func(b *box) { change(b.Process) }}
}

func processes() []config {
	cs := []config{
		{"base", nil, nil},
		{"exit 0", []string{"exit=0"}, nil},
		{"exit 1", []string{"exit=1"}, nil},
		{"exit 42", []string{"exit=42"}, nil},
		{"exit 255", []string{"exit=255"}, nil},
		{"dies of kill", nil, func(b *box) { b.Process.Args = []string{"sh", "-c", "sh -c 'kill -9 $$'"} }},
		{"a child dies", nil, func(b *box) { b.Process.Args = []string{"sh", "-c", "sh -c 'kill -6 $$'; exit $?"} }},
		set("args", func(p *specs.Process) { p.Args = []string{"/probe", "stat=/probe", "stat=/"} }),
		set("args with spaces and quotes", func(p *specs.Process) { p.Args = append(p.Args, "read=/a b 'c' \"d\"", "read=/\\x $HOME") }),
		set("relative executable", func(p *specs.Process) { p.Args = []string{"./probe"} }),
		set("executable of the PATH", func(p *specs.Process) { p.Env = []string{"PATH=/:/bin"}; p.Args = []string{"probe"} }),
		set("no PATH", func(p *specs.Process) { p.Env = []string{"A=b"} }),
		set("no env", func(p *specs.Process) { p.Env = nil }),
		set("env with an empty value", func(p *specs.Process) { p.Env = append(p.Env, "EMPTY=") }),
		set("env twice", func(p *specs.Process) { p.Env = append(p.Env, "A=1", "A=2") }),
		set("env HOME", func(p *specs.Process) { p.Env = append(p.Env, "HOME=/tmp") }),
		set("env HOME empty", func(p *specs.Process) { p.Env = append(p.Env, "HOME=") }),
		set("env UTF-8 and newline", func(p *specs.Process) { p.Env = append(p.Env, "U=ä\nö") }),
		set("cwd", func(p *specs.Process) { p.Cwd = "/tmp" }),
		set("cwd that is missing", func(p *specs.Process) { p.Cwd = "/new/deep" }, "stat=/new", "stat=/new/deep"),
		set("cwd with dots", func(p *specs.Process) { p.Cwd = "/tmp/../etc/." }),
		set("noNewPrivileges", func(p *specs.Process) { p.NoNewPrivileges = true }, "call=setuid"),
		set("oomScoreAdj", func(p *specs.Process) { p.OOMScoreAdj = ptr(500) }),
		set("oomScoreAdj 1000", func(p *specs.Process) { p.OOMScoreAdj = ptr(1000) }),
		set("oomScoreAdj 0", func(p *specs.Process) { p.OOMScoreAdj = ptr(0) }),
		set("apparmorProfile empty", func(p *specs.Process) { p.ApparmorProfile = "" }),
	}
	for _, l := range []struct {
		name       string
		soft, hard uint64
	}{
		{"RLIMIT_NOFILE", 512, 1000}, {"RLIMIT_CORE", 0, 0}, {"RLIMIT_CPU", 100, 200}, {"RLIMIT_DATA", 1 << 32, 1 << 33},
		{"RLIMIT_FSIZE", 1 << 20, 1 << 21}, {"RLIMIT_MEMLOCK", 4096, 65536}, {"RLIMIT_NPROC", 500, 600},
		{"RLIMIT_SIGPENDING", 10, 20}, {"RLIMIT_STACK", 1 << 20, 8 << 20}, {"RLIMIT_MSGQUEUE", 1000, 2000},
		{"RLIMIT_LOCKS", 10, 20}, {"RLIMIT_NICE", 0, 0}, {"RLIMIT_RTPRIO", 0, 0}, {"RLIMIT_RTTIME", 1000000, 2000000}, {"RLIMIT_RSS", 1 << 30, 1 << 31},
	} {
		cs = append(cs, set("rlimit "+l.name, func(p *specs.Process) {
			p.Rlimits = []specs.POSIXRlimit{{Type: l.name, Soft: l.soft, Hard: l.hard}}
		}))
	}
	return cs
}

func users() []config {
	return []config{
		set("uid", func(p *specs.Process) { p.User.UID = 1000 }, "write=/tmp/x", "stat=/tmp/x", "write=/root/x", "call=chown", "call=mkdir"),
		set("uid and gid", func(p *specs.Process) { p.User.UID, p.User.GID = 65534, 65534 }, "write=/tmp/x", "stat=/tmp/x"),
		set("gid", func(p *specs.Process) { p.User.GID = 7 }, "write=/tmp/x", "stat=/tmp/x"),
		set("additionalGids", func(p *specs.Process) { p.User.AdditionalGids = []uint32{5, 10, 2000000000} }),
		set("umask 077", func(p *specs.Process) { p.User.Umask = ptr(uint32(0o77)) }, "write=/tmp/x", "stat=/tmp/x"),
		set("umask 0", func(p *specs.Process) { p.User.Umask = ptr(uint32(0)) }, "write=/tmp/x", "stat=/tmp/x"),
		set("nobody in a directory of root's", func(p *specs.Process) { p.User.UID, p.Cwd = 65534, "/root" }),
		set("large uid", func(p *specs.Process) { p.User.UID, p.User.GID = 2000000000, 2000000000 }, "write=/tmp/x", "stat=/tmp/x"),
		set("additionalGids out of range", func(p *specs.Process) { p.User.AdditionalGids = []uint32{1 << 31} }),
		set("uid out of range", func(p *specs.Process) { p.User.UID = 1 << 31 }),
		set("gid out of range", func(p *specs.Process) { p.User.GID = 1<<32 - 1 }),
		{"home of passwd", nil, func(b *box) {
			b.Process.User.UID = 1234
			appendTo(b, "etc/passwd", "me:x:1234:1234::/home:/bin/sh\n")
		}},
		{"closed working directory", nil, func(b *box) { b.Process.User.UID, b.Process.Cwd = 1000, "/closed"; mkdir(b, "closed", 0o700) }},
	}
}

func capabilities() []config {
	all := func(names ...string) func(*specs.Process) {
		return func(p *specs.Process) {
			p.Capabilities = &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names, Inheritable: names, Ambient: names}
		}
	}
	calls := []string{"call=sethostname", "call=mount", "call=mknod", "call=chroot", "call=chown", "call=setuid", "call=unshare", "call=rawsock", "call=nice"}
	return []config{
		set("no capabilities", func(p *specs.Process) { p.Capabilities = nil }, calls...),
		set("empty capabilities", func(p *specs.Process) { p.Capabilities = &specs.LinuxCapabilities{} }, calls...),
		set("all five sets", all("CAP_KILL", "CAP_CHOWN"), calls...),
		set("bounding only", func(p *specs.Process) { p.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}} }, calls...),
		set("permitted only", func(p *specs.Process) {
			p.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}, Permitted: []string{"CAP_CHOWN"}}
		}, calls...),
		set("inheritable without permitted", func(p *specs.Process) {
			p.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}, Inheritable: []string{"CAP_CHOWN"}}
		}, calls...),
		set("ambient of a user", func(p *specs.Process) { all("CAP_NET_RAW")(p); p.User.UID = 1000 }, calls...),
		set("user with permitted only", func(p *specs.Process) { p.User.UID = 1000 }, calls...),
		set("unknown capability", all("CAP_KILL", "CAP_MADE_UP"), calls...),
		set("CAP_SYS_ADMIN", all("CAP_SYS_ADMIN"), calls...),
		set("CAP_SYS_CHROOT", all("CAP_SYS_CHROOT"), calls...),
		set("CAP_NET_RAW", all("CAP_NET_RAW"), calls...),
		set("CAP_SYS_NICE", all("CAP_SYS_NICE"), calls...),
		set("CAP_SETUID CAP_SETGID", all("CAP_SETUID", "CAP_SETGID"), append(calls, "call=setgid")...),
		set("CAP_DAC_OVERRIDE", func(p *specs.Process) { all("CAP_DAC_OVERRIDE")(p); p.User.UID = 1000 }, "write=/root/x", "write=/etc/passwd"),
	}
}

// from is a mount of something outside the bundle.
func from(b *box, name, destination string, options ...string) {
	b.Mounts = append(b.Mounts, specs.Mount{Destination: destination, Type: "bind", Source: filepath.Join(b.dir, name), Options: options})
}

// bindOf is a configuration with one bind mount.
func bindOf(name, source string, options []string, args ...string) config {
	args = append(args, "list=/m", "read=/m", "stat=/m", "read=/m/inside", "write=/m/new", "stat=/m/new")
	return config{name, args, func(b *box) { from(b, source, "/m", options...) }}
}

// tmpfs is a configuration with one more tmpfs.
func tmpfs(name string, options []string, args ...string) config {
	args = append(args, "stat=/m", "write=/m/new", "stat=/m/new")
	return config{name, args, func(b *box) {
		b.Mounts = append(b.Mounts, specs.Mount{Destination: "/m", Type: "tmpfs", Source: "tmpfs", Options: options})
	}}
}

func mounts() []config {
	cs := []config{
		bindOf("bind a directory", "d", []string{"bind"}),
		bindOf("bind a file", "a", []string{"bind"}),
		bindOf("bind without the word", "d", nil),
		bindOf("rbind", "d", []string{"rbind"}),
		bindOf("bind ro", "d", []string{"bind", "ro"}),
		bindOf("rbind ro", "d", []string{"rbind", "ro"}),
		bindOf("bind a file ro", "a", []string{"bind", "ro"}, "write=/m"),
		bindOf("rbind rprivate", "d", []string{"rbind", "rprivate"}),
		bindOf("bind private", "d", []string{"bind", "private"}),
		bindOf("bind slave", "d", []string{"bind", "slave"}),
		bindOf("rbind rslave", "d", []string{"rbind", "rslave"}),
		bindOf("bind unbindable", "d", []string{"bind", "unbindable"}),
		bindOf("bind that is missing", "missing", []string{"bind"}),
		bindOf("bind with odd options", "d", []string{"bind", "rw", "suid", "dev", "exec", "async", "atime", "diratime"}),
	}
	for _, o := range []string{"nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "strictatime", "norelatime", "nostrictatime", "sync", "dirsync", "nosymfollow"} {
		cs = append(cs, bindOf("bind "+o, "d", []string{"bind", o}))
	}
	for _, o := range []string{"rro", "rnosuid", "rnodev", "rnoexec", "rnodiratime", "rnoatime", "rrelatime", "rstrictatime", "rnosymfollow", "rrw", "rexec", "rsuid", "rdev"} {
		cs = append(cs, bindOf("rbind "+o, "d", []string{"rbind", o}))
	}
	return append(cs,
		tmpfs("tmpfs", nil),
		tmpfs("tmpfs mode", []string{"mode=0711"}),
		tmpfs("tmpfs uid and gid", []string{"uid=5", "gid=6"}),
		tmpfs("tmpfs size", []string{"size=1m"}),
		tmpfs("tmpfs nr_inodes", []string{"nr_inodes=100"}),
		tmpfs("tmpfs ro", []string{"ro"}),
		tmpfs("tmpfs noexec nosuid nodev", []string{"noexec", "nosuid", "nodev"}),
		tmpfs("tmpfs unknown option", []string{"madeup=1"}),
		config{"tmpfs over a directory", []string{"stat=/home", "list=/home"}, func(b *box) {
			mkdir(b, "home/x", 0o755)
			b.Mounts = append(b.Mounts, specs.Mount{Destination: "/home", Type: "tmpfs", Source: "tmpfs"})
		}},
		config{"tmpcopyup", []string{"stat=/copied", "list=/copied", "read=/copied/file"}, func(b *box) {
			mkdir(b, "copied", 0o750)
			appendTo(b, "copied/file", "content\n")
			b.Mounts = append(b.Mounts, specs.Mount{Destination: "/copied", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
		}},
		config{"missing destination", []string{"stat=/x", "stat=/x/y", "list=/x/y"}, func(b *box) { from(b, "d", "/x/y", "bind") }},
		config{"missing destination of a file", []string{"stat=/x/y", "read=/x/y"}, func(b *box) { from(b, "a", "/x/y", "bind") }},
		config{"destination through a symlink", []string{"stat=/link", "list=/real/d", "list=/link/d"}, func(b *box) {
			mkdir(b, "real", 0o755)
			symlink(b, "/real", "link")
			from(b, "d", "/link/d", "bind")
		}},
		config{"destination through a symlink out", []string{"list=/tmp/d"}, func(b *box) { symlink(b, "../../../../tmp", "out"); from(b, "d", "/out/d", "bind") }},
		config{"destination that is a dangling symlink", []string{"stat=/dangling", "list=/nowhere"}, func(b *box) { symlink(b, "/nowhere", "dangling"); from(b, "d", "/dangling", "bind") }},
		config{"file over a directory", nil, func(b *box) { from(b, "a", "/etc", "bind") }},
		config{"directory over a file", nil, func(b *box) { from(b, "d", "/etc/passwd", "bind") }},
		config{"two mounts at one place", []string{"list=/m", "read=/m/file"}, func(b *box) { from(b, "d", "/m", "bind"); from(b, "d", "/m", "bind", "ro") }},
		config{"mount below a mount", []string{"read=/m/under"}, func(b *box) { from(b, "d", "/m", "bind"); from(b, "a", "/m/under", "bind") }},
		config{"relative destination", []string{"list=/rel"}, func(b *box) { from(b, "d", "rel", "bind") }},
		config{"no /proc", nil, func(b *box) { drop(b, "/proc") }},
		config{"no /sys", nil, func(b *box) { drop(b, "/sys", "/sys/fs/cgroup") }},
		config{"no /dev", nil, func(b *box) { drop(b, "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue") }},
		config{"no mounts but /proc", nil, func(b *box) { b.Mounts = b.Mounts[:1] }},
		config{"proc ro", []string{"write=/proc/self/oom_score_adj"}, func(b *box) { b.Mounts[0].Options = []string{"ro"} }},
		config{"proc nosuid noexec nodev", nil, func(b *box) { b.Mounts[0].Options = []string{"nosuid", "noexec", "nodev"} }},
		config{"sys rw", nil, func(b *box) { b.Mounts[5].Options = []string{"nosuid", "noexec", "nodev"} }},
		config{"ramfs", []string{"write=/m/x", "stat=/m"}, func(b *box) {
			b.Mounts = append(b.Mounts, specs.Mount{Destination: "/m", Type: "ramfs", Source: "ramfs"})
		}},
		config{"unknown file system", nil, func(b *box) {
			b.Mounts = append(b.Mounts, specs.Mount{Destination: "/m", Type: "madeup", Source: "x"})
		}},
		config{"root read-only", []string{"write=/x", "write=/dev/x", "write=/tmp/x"}, func(b *box) { b.Root.Readonly = true }},
	)
}

// propagations are of linux.rootfsPropagation.
func namespaces() []config {
	without := func(kind specs.LinuxNamespaceType) func(*box) {
		return func(b *box) {
			b.Linux.Namespaces = slices.DeleteFunc(b.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
		}
	}
	with := func(kind specs.LinuxNamespaceType) func(*box) {
		return func(b *box) { b.Linux.Namespaces = append(b.Linux.Namespaces, specs.LinuxNamespace{Type: kind}) }
	}
	cs := []config{
		{"cgroup namespace", []string{"read=/proc/self/cgroup"}, with(specs.CgroupNamespace)},
		{"no ipc namespace", nil, without(specs.IPCNamespace)},
		{"no uts namespace", nil, func(b *box) { without(specs.UTSNamespace)(b); b.Hostname = "" }},
		{"hostname without a uts namespace", nil, without(specs.UTSNamespace)},
		{"no hostname", nil, func(b *box) { b.Hostname = "" }},
		{"long hostname", nil, func(b *box) { b.Hostname = "a123456789012345678901234567890123456789012345678901234567890123" }},
		{"a namespace twice", nil, with(specs.PIDNamespace)},
		{"unknown namespace", nil, with("madeup")},
		{"user namespace", []string{"stat=/", "stat=/etc/passwd", "stat=/tmp", "write=/tmp/x", "stat=/tmp/x"}, func(b *box) {
			with(specs.UserNamespace)(b)
			b.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 0, Size: 65536}}
			b.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: 0, Size: 65536}}
		}},
		{"user namespace of two ranges", []string{"stat=/etc/passwd"}, func(b *box) {
			with(specs.UserNamespace)(b)
			b.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 0, Size: 1000}, {ContainerID: 1000, HostID: 100000, Size: 1000}}
			b.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: 0, Size: 1000}, {ContainerID: 1000, HostID: 100000, Size: 1000}}
		}},
		{"user namespace without mappings", nil, with(specs.UserNamespace)},
	}
	for _, p := range []string{"private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"} {
		cs = append(cs, config{"rootfsPropagation " + p, nil, func(b *box) { b.Linux.RootfsPropagation = p }})
	}
	return cs
}

func devices() []config {
	mode := func(m uint32) *os.FileMode { return ptr(os.FileMode(m)) }
	device := func(name string, d specs.LinuxDevice, args ...string) config {
		return config{name, append(args, "stat="+d.Path, "read="+d.Path, "write="+d.Path), func(b *box) { b.Linux.Devices = append(b.Linux.Devices, d) }}
	}
	rule := func(name string, rules []specs.LinuxDeviceCgroup, args ...string) config {
		return config{name, append(args, "read=/dev/null", "write=/dev/null", "call=mknod", "call=opennull"), func(b *box) {
			b.Linux.Resources = &specs.LinuxResources{Devices: rules}
			b.Process.Capabilities.Effective = append(b.Process.Capabilities.Effective, "CAP_MKNOD")
		}}
	}
	all := specs.LinuxDeviceCgroup{Access: "rwm"}
	return []config{
		device("char device", specs.LinuxDevice{Path: "/dev/mynull", Type: "c", Major: 1, Minor: 3, FileMode: mode(0o640), UID: ptr(uint32(5)), GID: ptr(uint32(6))}),
		device("char device without mode", specs.LinuxDevice{Path: "/dev/myzero", Type: "c", Major: 1, Minor: 5}),
		device("u device", specs.LinuxDevice{Path: "/dev/myfull", Type: "u", Major: 1, Minor: 7, FileMode: mode(0o666)}),
		device("fifo", specs.LinuxDevice{Path: "/dev/myfifo", Type: "p", FileMode: mode(0o600)}),
		device("device in a subdirectory", specs.LinuxDevice{Path: "/dev/sub/dir/null", Type: "c", Major: 1, Minor: 3, FileMode: mode(0o666)}),
		device("device outside of /dev", specs.LinuxDevice{Path: "/opt/null", Type: "c", Major: 1, Minor: 3, FileMode: mode(0o666)}),
		device("default device with another mode", specs.LinuxDevice{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, FileMode: mode(0o600)}),
		device("device that is not allowed", specs.LinuxDevice{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11, FileMode: mode(0o666)}),
		device("relative device", specs.LinuxDevice{Path: "dev/x", Type: "c", Major: 1, Minor: 3}),
		device("unknown type", specs.LinuxDevice{Path: "/dev/x", Type: "z", Major: 1, Minor: 3}),
		rule("deny all", []specs.LinuxDeviceCgroup{all}),
		rule("deny all, allow null", []specs.LinuxDeviceCgroup{all, {Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "rw"}}),
		rule("allow all", []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}),
		rule("allow mknod of chars", []specs.LinuxDeviceCgroup{all, {Allow: true, Type: "c", Access: "m"}}),
		rule("deny null after allow", []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}, {Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "w"}}),
		rule("minors of any", []specs.LinuxDeviceCgroup{all, {Allow: true, Type: "c", Major: ptr(int64(1)), Access: "rwm"}}),
	}
}
