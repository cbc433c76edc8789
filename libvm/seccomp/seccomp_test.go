package seccomp

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func errno(n uint32) uint32 { return unix.SECCOMP_RET_ERRNO | n }

func ptr[T any](v T) *T { return &v }

// dockerLike has the shape of the profile that Docker gives a container with
// its default capabilities: deny by default, three ABIs, some 300 names, and
// the same conditions.
func dockerLike() *specs.LinuxSeccomp {
	denied := []string{
		"_sysctl", "acct", "add_key", "afs_syscall", "bpf", "clock_adjtime", "clock_settime", "clone", "clone3",
		"create_module", "delete_module", "fanotify_init", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick",
		"get_kernel_syms", "get_mempolicy", "init_module", "io_uring_enter", "io_uring_register", "io_uring_setup",
		"ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie", "mbind", "migrate_pages",
		"mount", "mount_setattr", "move_mount", "move_pages", "nfsservctl", "open_by_handle_at", "open_tree",
		"perf_event_open", "personality", "pivot_root", "quotactl", "query_module", "reboot", "request_key", "security",
		"set_mempolicy", "setns", "settimeofday", "socket", "stime", "swapoff", "swapon", "sysfs", "syslog",
		"tuxcall", "umount", "umount2", "unshare", "uselib", "userfaultfd", "ustat", "vhangup", "vm86", "vm86old", "vserver",
	}
	var allowed []string
	for _, a := range []*abi{abiX86_64(), abiX86()} {
		for name := range a.numbers {
			if !slices.Contains(denied, name) {
				allowed = append(allowed, name)
			}
		}
	}
	slices.Sort(allowed)
	arg0 := func(op specs.LinuxSeccompOperator, v, two uint64) []specs.LinuxSeccompArg {
		return []specs.LinuxSeccompArg{{Index: 0, Op: op, Value: v, ValueTwo: two}}
	}
	p := &specs.LinuxSeccomp{
		DefaultAction:   specs.ActErrno,
		DefaultErrnoRet: ptr(uint(unix.EPERM)),
		Architectures:   []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		Syscalls: []specs.LinuxSyscall{
			{Names: append(slices.Compact(allowed), "nosuchcall", "arm_sync_file_range"), Action: specs.ActAllow},
			{Names: []string{"socket"}, Action: specs.ActAllow, Args: arg0(specs.OpLessThan, 38, 0)},
			{Names: []string{"socket"}, Action: specs.ActAllow, Args: arg0(specs.OpEqualTo, 39, 0)},
			{Names: []string{"socket"}, Action: specs.ActAllow, Args: arg0(specs.OpGreaterThan, 40, 0)},
			{Names: []string{"clone"}, Action: specs.ActAllow, Args: arg0(specs.OpMaskedEqual, 0x7e020000, 0)},
			{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: ptr(uint(unix.ENOSYS))},
		},
	}
	for _, v := range []uint64{0, 8, 0x20000, 0x20008, 0xffffffff} {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
			Names: []string{"personality"}, Action: specs.ActAllow, Args: arg0(specs.OpEqualTo, v, 0),
		})
	}
	return p
}

func TestDockerLike(t *testing.T) {
	p := dockerLike()
	if n := len(p.Syscalls[0].Names); n < 300 {
		t.Fatalf("%d names, want a profile of Docker's size", n)
	}
	checkModel(t, p)

	f, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(f.Program)/8)
	m := newMachine(t, f)
	x64, x86 := abiX86_64(), abiX86()
	nr := func(a *abi, name string) uint32 { return uint32(a.numbers[name]) }
	tests := []struct {
		name string
		e    event
		want uint32
	}{
		{"read", event{nr: nr(x64, "read"), arch: x64.audit}, unix.SECCOMP_RET_ALLOW},
		{"mount", event{nr: nr(x64, "mount"), arch: x64.audit}, errno(1)},
		{"clone of a thread", event{nr: nr(x64, "clone"), arch: x64.audit, args: [6]uint64{0x3d0f00}}, unix.SECCOMP_RET_ALLOW},
		{"clone of a user namespace", event{nr: nr(x64, "clone"), arch: x64.audit, args: [6]uint64{0x10000000}}, errno(1)},
		{"clone3", event{nr: nr(x64, "clone3"), arch: x64.audit}, errno(38)},
		{"socket unix", event{nr: nr(x64, "socket"), arch: x64.audit, args: [6]uint64{1}}, unix.SECCOMP_RET_ALLOW},
		{"socket alg", event{nr: nr(x64, "socket"), arch: x64.audit, args: [6]uint64{38}}, errno(1)},
		{"socket vsock", event{nr: nr(x64, "socket"), arch: x64.audit, args: [6]uint64{40}}, errno(1)},
		{"socket family with high bits", event{nr: nr(x64, "socket"), arch: x64.audit, args: [6]uint64{1 << 40}}, unix.SECCOMP_RET_ALLOW},
		{"personality of 32 bits", event{nr: nr(x64, "personality"), arch: x64.audit, args: [6]uint64{8}}, unix.SECCOMP_RET_ALLOW},
		{"personality without aslr", event{nr: nr(x64, "personality"), arch: x64.audit, args: [6]uint64{0x40000}}, errno(1)},
		{"a newer call", event{nr: 5000, arch: x64.audit}, errno(38)},
		{"32-bit read", event{nr: nr(x86, "read"), arch: x86.audit}, unix.SECCOMP_RET_ALLOW},
		{"32-bit mount", event{nr: nr(x86, "mount"), arch: x86.audit}, errno(1)},
		{"32-bit call for 64-bit number", event{nr: 5000, arch: x86.audit}, errno(38)},
		{"x32 read", event{nr: nr(abiX32(), "read") | x32Bit, arch: x64.audit}, unix.SECCOMP_RET_ALLOW},
		{"x32 mount", event{nr: nr(abiX32(), "mount") | x32Bit, arch: x64.audit}, errno(1)},
		{"arm64", event{nr: 0, arch: 0xc00000b7}, unix.SECCOMP_RET_KILL_THREAD},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := m.run(t, tt.e); got != tt.want {
				t.Errorf("verdict %#x, want %#x", got, tt.want)
			}
		})
	}
}

func TestOperatorsAndActions(t *testing.T) {
	values := []uint64{0, 1, 5, 0xffffffff, 1 << 32, 1<<32 + 5, 1<<63 + 7, 1<<64 - 1}
	for _, op := range Operators() {
		for _, act := range Actions() {
			p := &specs.LinuxSeccomp{
				DefaultAction: specs.ActLog,
				Architectures: []specs.Arch{specs.ArchX32, specs.ArchX86},
				ListenerPath:  "/listener",
			}
			for _, v := range values {
				p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
					Names: []string{"read", "ioctl", "shmat", "connect"}, Action: specs.LinuxSeccompAction(act),
					Args: []specs.LinuxSeccompArg{
						{Index: 5, Op: specs.LinuxSeccompOperator(op), Value: v, ValueTwo: v &^ 4},
						{Index: 1, Op: specs.OpNotEqual, Value: v},
					},
				})
			}
			checkModel(t, p)
		}
	}
}

// What libseccomp 2.5.4 was seen to do with several rules for one call.
func TestSeveralRules(t *testing.T) {
	eq := func(v uint64) []specs.LinuxSeccompArg {
		return []specs.LinuxSeccompArg{{Index: 0, Op: specs.OpEqualTo, Value: v}}
	}
	read := func(act specs.LinuxSeccompAction, ret *uint, args []specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{"read"}, Action: act, ErrnoRet: ret, Args: args}
	}
	allow := func(args []specs.LinuxSeccompArg) specs.LinuxSyscall { return read(specs.ActAllow, nil, args) }
	fail := func(n uint, args []specs.LinuxSeccompArg) specs.LinuxSyscall {
		return read(specs.ActErrno, &n, args)
	}
	tests := []struct {
		name  string
		rules []specs.LinuxSyscall
		arg   uint64
		want  uint32
	}{
		{"unconditional, then conditional", []specs.LinuxSyscall{allow(nil), fail(2, eq(5))}, 5, unix.SECCOMP_RET_ALLOW},
		{"conditional, then unconditional", []specs.LinuxSyscall{fail(2, eq(5)), allow(nil)}, 5, unix.SECCOMP_RET_ALLOW},
		{"two unconditional", []specs.LinuxSyscall{fail(2, nil), allow(nil)}, 5, errno(2)},
		{"same condition", []specs.LinuxSyscall{fail(2, eq(5)), allow(eq(5))}, 5, errno(2)},
		{"either condition", []specs.LinuxSyscall{allow(eq(4)), allow(eq(5))}, 5, unix.SECCOMP_RET_ALLOW},
		{"no condition holds", []specs.LinuxSyscall{allow(eq(4)), allow(eq(5))}, 6, errno(1)},
		{"two args of one index", []specs.LinuxSyscall{allow(append(eq(4), eq(5)...))}, 5, unix.SECCOMP_RET_ALLOW},
		{"default action repeated", []specs.LinuxSyscall{fail(1, nil), allow(eq(5))}, 5, unix.SECCOMP_RET_ALLOW},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: tt.rules}
			checkModel(t, p)
			f, err := Compile(p)
			if err != nil {
				t.Fatal(err)
			}
			e := event{nr: uint32(abiX86_64().numbers["read"]), arch: abiX86_64().audit, args: [6]uint64{tt.arg}}
			if got := newMachine(t, f).run(t, e); got != tt.want {
				t.Errorf("verdict %#x, want %#x", got, tt.want)
			}
		})
	}
}

func TestMultiplexed(t *testing.T) {
	p := &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno,
		Architectures: []specs.Arch{specs.ArchX86},
		Syscalls: []specs.LinuxSyscall{{
			Names: []string{"socket", "shmat"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 0, Op: specs.OpEqualTo, Value: 77}},
		}},
	}
	checkModel(t, p)
	f, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	m, x86 := newMachine(t, f), abiX86()
	for _, tt := range []struct {
		nr   string
		arg  uint64
		want uint32
	}{
		{"socketcall", 1, unix.SECCOMP_RET_ALLOW}, {"socketcall", 2, errno(1)},
		{"ipc", 21, unix.SECCOMP_RET_ALLOW}, {"ipc", 1, errno(1)},
		{"socket", 77, unix.SECCOMP_RET_ALLOW}, {"socket", 1, errno(1)},
	} {
		e := event{nr: uint32(x86.numbers[tt.nr]), arch: x86.audit, args: [6]uint64{tt.arg}}
		if got := m.run(t, e); got != tt.want {
			t.Errorf("%s(%d): verdict %#x, want %#x", tt.nr, tt.arg, got, tt.want)
		}
	}
}

// On x32 some calls have a number of their own, and x86-64's is no call at all.
func TestX32Numbers(t *testing.T) {
	x32 := abiX32()
	for name, want := range map[string]int{"read": 0, "readv": 515, "ioctl": 514, "execve": 520, "preadv2": 546, "openat2": 437} {
		if got := x32.numbers[name]; got != want {
			t.Errorf("%s: number %d, want %d", name, got, want)
		}
	}
}

func TestFlags(t *testing.T) {
	tests := []struct {
		name  string
		flags []specs.LinuxSeccompFlag
		want  uint32
	}{
		{"absent", nil, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
		{"empty", []specs.LinuxSeccompFlag{}, 0},
		{"all", []specs.LinuxSeccompFlag{flagTSync, specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow},
			unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: tt.flags})
			if err != nil || f.Flags != tt.want {
				t.Errorf("flags %#x, error %v; want %#x", f.Flags, err, tt.want)
			}
		})
	}
}

func TestNothingToInstall(t *testing.T) {
	for _, p := range []*specs.LinuxSeccomp{nil, {}} {
		f, err := Compile(p)
		if err != nil || !f.Empty() {
			t.Errorf("Compile(%+v) = %d bytes, %v; want an empty filter", p, len(f.Program), err)
		}
	}
}

func TestRefused(t *testing.T) {
	tests := []struct{ name, json, want string }{
		{"no default action", `{"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`, `defaultAction: unknown action ""`},
		{"unknown action", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"X"}]}`, `syscalls[0]: unknown action "X"`},
		{"notify without a listener", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}`, "seccomp listenerPath is not set"},
		{"notify by default", `{"defaultAction":"SCMP_ACT_NOTIFY","listenerPath":"/x"}`, "SCMP_ACT_NOTIFY cannot be used as default action"},
		{"notify of write", `{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x","syscalls":[{"names":["write"],"action":"SCMP_ACT_NOTIFY"}]}`, "SCMP_ACT_NOTIFY cannot be used for the write syscall"},
		{"architecture", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86","VAX"]}`, `architectures[1]: unknown architecture "VAX"`},
		{"operator", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG","args":[{"index":0,"op":"X","value":1}]}]}`, `args[0]: unknown operator "X"`},
		{"index", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG","args":[{"index":6,"op":"SCMP_CMP_EQ","value":1}]}]}`, "index 6, want 0 to 5"},
		{"errno of allow", `{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}`, "errnoRet has no meaning for action SCMP_ACT_ALLOW"},
		{"large errno", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":65536}`, "errnoRet 65536"},
		{"empty name", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[""],"action":"SCMP_ACT_LOG"}]}`, "empty string is not a valid syscall"},
		{"no names", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[],"action":"SCMP_ACT_LOG"}]}`, "names is empty"},
		{"unknown flag", `{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}`, "seccomp flag X is not known"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p specs.LinuxSeccomp
			if err := json.Unmarshal([]byte(tt.json), &p); err != nil {
				t.Fatal(err)
			}
			_, err := Compile(&p)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

// A profile that cannot fit into a program is an error, not a broken program.
func TestTooLarge(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	for v := range uint64(2000) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
			Names: []string{"read"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 0, Op: specs.OpEqualTo, Value: v}},
		})
	}
	if _, err := Compile(p); err == nil || !strings.Contains(err.Error(), "BPF instructions") {
		t.Errorf("error %v, want one about BPF instructions", err)
	}
}

// Far targets: more than 255 instructions between a comparison and its return.
func TestLongJumps(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32}}
	for i, name := range []string{"read", "write", "open", "ioctl", "mmap", "socket", "clone", "personality"} {
		for v := range uint64(30) {
			p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
				Names: []string{name}, Action: specs.ActErrno, ErrnoRet: ptr(uint(v%7 + 2)),
				Args: []specs.LinuxSeccompArg{{Index: uint(i % maxArgs), Op: specs.OpEqualTo, Value: v << 31}},
			})
		}
	}
	checkModel(t, p)
}

func FuzzCompile(f *testing.F) {
	for _, p := range []*specs.LinuxSeccomp{dockerLike(), {DefaultAction: specs.ActTrace}} {
		b, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_KILL","syscalls":[{"names":["ioctl"],"action":"SCMP_ACT_ERRNO","errnoRet":5,"args":[{"index":1,"op":"SCMP_CMP_MASKED_EQ","value":255,"valueTwo":511}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p specs.LinuxSeccomp
		if json.Unmarshal(b, &p) != nil {
			t.Skip("not a profile")
		}
		got, err := Compile(&p)
		if err != nil || got.Empty() {
			return
		}
		checkModel(t, &p)
	})
}
