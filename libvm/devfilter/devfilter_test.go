package devfilter

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// run interprets a program, with the instructions that assemble uses.
func run(t *testing.T, prog []byte, kind, access, major, minor uint32) bool {
	t.Helper()
	if prog == nil {
		return true
	}
	ctx := map[int16]uint32{0: access<<16 | kind, 4: major, 8: minor}
	var r [6]uint32
	for pc, steps := 0, 0; steps < 10000; pc, steps = pc+1, steps+1 {
		if pc < 0 || 8*pc+8 > len(prog) {
			t.Fatalf("program left at instruction %d", pc)
		}
		in := prog[8*pc:]
		dst, src := in[1]&15, in[1]>>4
		off := int16(binary.LittleEndian.Uint16(in[2:]))
		imm := binary.LittleEndian.Uint32(in[4:])
		jump := false
		switch in[0] {
		case opLoad:
			if src != regContext {
				t.Fatalf("load through r%d", src)
			}
			r[dst] = ctx[off]
		case opMovX:
			r[dst] = r[src]
		case opMovK:
			r[dst] = imm
		case opAndK:
			r[dst] &= imm
		case opRshK:
			r[dst] >>= imm
		case opJneK:
			jump = r[dst] != imm
		case opJsetK:
			jump = r[dst]&imm != 0
		case unix.BPF_JMP | unix.BPF_JA:
			jump = true
		case opExit:
			return r[regResult] == 1
		default:
			t.Fatalf("opcode %#x", in[0])
		}
		if jump {
			if off < 0 {
				t.Fatalf("jump back at %d", pc)
			}
			pc += int(off)
		}
	}
	t.Fatal("program does not end")
	return false
}

func compile(t *testing.T, linux string) []byte {
	t.Helper()
	var l specs.Linux
	if err := json.Unmarshal([]byte(linux), &l); err != nil {
		t.Fatal(err)
	}
	prog, err := Compile(&l)
	if err != nil {
		t.Fatal(err)
	}
	return prog
}

const (
	c = unix.BPF_DEVCG_DEV_CHAR
	b = unix.BPF_DEVCG_DEV_BLOCK
	r = unix.BPF_DEVCG_ACC_READ
	w = unix.BPF_DEVCG_ACC_WRITE
	m = unix.BPF_DEVCG_ACC_MKNOD
)

// as runc spec and Docker write it
const denyAll = `{"allow":false,"access":"rwm"}`

func TestCompile(t *testing.T) {
	tests := []struct {
		name, devices              string
		kind, access, major, minor uint32
		want                       bool
	}{
		{"default: null", denyAll, c, r | w, 1, 3, true},
		{"default: a terminal", denyAll, c, r | w, 136, 7, true},
		{"default: ptmx", denyAll, c, r | w, 5, 2, true},
		{"default: mknod of any", denyAll, b, m, 8, 0, true},
		{"default: no disk", denyAll, b, r, 8, 0, false},
		{"default: block 1:3 is not null", denyAll, b, r, 1, 3, false},
		{"default: no fuse", denyAll, c, r | w, 10, 229, false},
		{"no list: null", "", c, r | w, 1, 3, true},
		{"no list: no fuse", "", c, r | w, 10, 229, false},
		{"one added", denyAll + `,{"allow":true,"type":"c","major":10,"minor":229,"access":"rwm"}`, c, r | w, 10, 229, true},
		{"one added, another minor", denyAll + `,{"allow":true,"type":"c","major":10,"minor":229,"access":"rwm"}`, c, r, 10, 228, false},
		{"one added read-only: read", denyAll + `,{"allow":true,"type":"b","major":8,"access":"r"}`, b, r, 8, 1, true},
		{"one added read-only: write", denyAll + `,{"allow":true,"type":"b","major":8,"access":"r"}`, b, r | w, 8, 1, false},
		{"added in two halves", denyAll + `,{"allow":true,"type":"b","major":8,"access":"r"},{"allow":true,"type":"b","minor":1,"access":"w"}`, b, r | w, 8, 1, true},
		{"all", `{"allow":true,"access":"rwm"}`, b, r | w, 8, 0, true},
		{"all but one", `{"allow":true,"access":"rwm"},{"allow":false,"type":"b","major":8,"access":"w"}`, b, r, 8, 0, true},
		{"all but one: partly denied", `{"allow":true,"access":"rwm"},{"allow":false,"type":"b","major":8,"access":"w"}`, b, r | w, 8, 0, false},
		{"hole in a wildcard", denyAll + `,{"allow":true,"type":"c","access":"rw"},{"allow":false,"type":"c","major":10,"access":"rw"}`, c, r, 10, 1, false},
		{"beside the hole", denyAll + `,{"allow":true,"type":"c","access":"rw"},{"allow":false,"type":"c","major":10,"access":"rw"}`, c, r, 11, 1, true},
		{"order", `{"allow":true,"type":"c","major":10,"access":"rw"},` + denyAll, c, r, 10, 1, false},
		{"defaults cannot be denied", `{"allow":false,"type":"c","major":1,"minor":3,"access":"rwm"}`, c, r | w, 1, 3, true},
		{"large minor", denyAll + `,{"allow":true,"type":"c","major":4294967295,"minor":3000000000,"access":"r"}`, c, r, 4294967295, 3000000000, true},
		{"both types of one number", denyAll + `,{"allow":true,"type":"a","major":7,"access":"rwm"}`, b, r, 7, 9, true},
		{"both types of one number only", denyAll + `,{"allow":true,"type":"a","major":7,"access":"rwm"}`, b, r, 8, 9, false},
		{"explicit wildcard", denyAll + `,{"allow":true,"type":"c","major":-1,"minor":-1,"access":"r"}`, c, r, 99, 9, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			prog := compile(t, `{"resources":{"devices":[`+tt.devices+`]}}`)
			if got := run(t, prog, tt.kind, tt.access, tt.major, tt.minor); got != tt.want {
				t.Errorf("allowed %v, want %v", got, tt.want)
			}
		})
	}
}

func TestNoProgram(t *testing.T) {
	if prog := compile(t, `{"resources":{"devices":[`+denyAll+`,{"allow":true,"access":"rwm"}]}}`); prog != nil {
		t.Errorf("a program of %d bytes, want none where all is allowed", len(prog))
	}
	prog, err := Compile(nil)
	if err != nil || prog == nil || run(t, prog, c, r, 10, 229) {
		t.Errorf("without linux: %d bytes, error %v; want the default list", len(prog), err)
	}
}

// A device of linux.devices under a default's name takes the rule with it.
func TestDefaultReplaced(t *testing.T) {
	linux := `{"devices":[{"path":"/dev/null","type":"c","major":9,"minor":9}],"resources":{"devices":[` + denyAll + `]}}`
	if run(t, compile(t, linux), c, r, 1, 3) {
		t.Error("1:3 allowed, want it denied: /dev/null is another device here")
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct{ device, want string }{
		{`{"allow":true,"type":"x","access":"r"}`, `devices[0]: invalid cgroup device type "x"`},
		{`{"allow":true,"type":"p","access":"r"}`, `invalid cgroup device type "p"`},
		{`{"allow":true,"type":"c"}`, "device access field cannot be empty"},
		{`{"allow":true,"type":"c","access":"rwx"}`, `unknown device access 'x' in "rwx"`},
		{`{"allow":true,"type":"c","major":-2,"access":"r"}`, "invalid major -2"},
		{`{"allow":true,"type":"c","minor":4294967296,"access":"r"}`, "invalid minor 4294967296"},
	} {
		var l specs.Linux
		if err := json.Unmarshal([]byte(`{"resources":{"devices":[`+tt.device+`]}}`), &l); err != nil {
			t.Fatal(err)
		}
		if _, err := Compile(&l); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q in it", tt.device, err, tt.want)
		}
	}
}

// The kernel's verifier takes the programs.
func TestKernelLoads(t *testing.T) {
	for _, devices := range []string{denyAll, `{"allow":true,"access":"rwm"},{"allow":false,"type":"b","major":8,"access":"w"}`} {
		prog := compile(t, `{"resources":{"devices":[`+devices+`]}}`)
		err := load(prog)
		if errors.Is(err, unix.EPERM) {
			t.Skip("bpf(2) is not permitted (run as root with CAP_BPF or CAP_SYS_ADMIN)")
		}
		if errors.Is(err, unix.ENOSYS) {
			t.Skip("the kernel has no bpf(2) (CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF)")
		}
		if err != nil {
			t.Errorf("%s: %v", devices, err)
		}
	}
}

// load is bpf(BPF_PROG_LOAD) with the first fields of union bpf_attr.
func load(prog []byte) error {
	license := []byte("Apache\x00")
	attr := struct {
		progType, insnCnt uint32
		insns, license    uint64
		rest              [12]uint64
	}{
		progType: unix.BPF_PROG_TYPE_CGROUP_DEVICE, insnCnt: uint32(len(prog) / 8),
		insns: uint64(uintptr(unsafe.Pointer(&prog[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	fd, _, e := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if e != 0 {
		return e
	}
	return unix.Close(int(fd))
}

func FuzzCompile(f *testing.F) {
	f.Add([]byte(`{"resources":{"devices":[` + denyAll + `,{"allow":true,"type":"c","major":10,"access":"rw"}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var l specs.Linux
		if json.Unmarshal(data, &l) != nil {
			t.Skip("not a config")
		}
		prog, err := Compile(&l)
		if err != nil {
			return
		}
		for _, kind := range []uint32{c, b} {
			if !run(t, prog, kind, m, 77, 77) {
				t.Error("mknod denied")
			}
			for access := uint32(1); access < 8; access++ {
				run(t, prog, kind, access, 10, 229)
			}
		}
	})
}

func TestCompileHost(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	defaults := []string{"+c *:* m", "+b *:* m", "+c 136:* rwm", "+c 5:2 rwm", "+c 10:200 rwm", "+c 1:3 rwm", "+c 1:5 rwm", "+c 1:7 rwm",
		"+c 1:8 rwm", "+c 1:9 rwm", "+c 5:0 rwm", "+c 10:232 rwm"}
	for _, tt := range []struct {
		name  string
		rules []specs.LinuxDeviceCgroup
		want  []string // before the defaults
	}{
		{"none", nil, []string{"-a"}},
		{"in order", []specs.LinuxDeviceCgroup{
			{Access: "rwm"}, {Allow: true, Type: "c", Major: n(10), Minor: n(229), Access: "rwm"}, {Allow: true, Type: "b", Major: n(8), Access: "r"},
		}, []string{"-a", "+c 10:229 rwm", "+b 8:* r"}},
		{"all but one", []specs.LinuxDeviceCgroup{
			{Type: "c", Major: n(1), Access: "r"}, {Allow: true, Type: "a", Access: "rwm"}, {Type: "b", Major: n(8), Minor: n(0), Access: "w"},
		}, []string{"+a", "-b 8:0 w"}},
		{"both types", []specs.LinuxDeviceCgroup{{Allow: true, Major: n(7), Access: "rw"}}, []string{"-a", "+b 7:* rw", "+c 7:* rw"}},
	} {
		prog, lines, err := CompileHost(&specs.Linux{Resources: &specs.LinuxResources{Devices: tt.rules}})
		if err != nil || len(prog) == 0 {
			t.Errorf("%s: %d bytes, %v", tt.name, len(prog), err)
		}
		if want := append(slices.Clone(tt.want), defaults...); !slices.Equal(lines, want) {
			t.Errorf("%s: got %q, want %q", tt.name, lines, want)
		}
	}
}

// A disk of the guest is what the config says of the host's; its number in the
// guest may be another device's on the host.
func TestDisks(t *testing.T) {
	disks := []Disk{{Host: Number{8, 0}, Guest: Number{254, 0}}, {Host: Number{8, 16}, Guest: Number{254, 16}}}
	num := func(n int64) *int64 { return &n }
	for _, tt := range []struct {
		name  string
		rules []specs.LinuxDeviceCgroup
		want  [2]string // of the disks
	}{
		{"none", nil, [2]string{"m", "m"}},
		{"one", []specs.LinuxDeviceCgroup{{Allow: true, Type: "b", Major: num(8), Minor: num(0), Access: "rw"}}, [2]string{"rwm", "m"}},
		{"a major", []specs.LinuxDeviceCgroup{{Allow: true, Type: "b", Major: num(8), Access: "r"}}, [2]string{"rm", "rm"}},
		{"the guest's number", []specs.LinuxDeviceCgroup{{Allow: true, Type: "b", Major: num(254), Access: "rw"}}, [2]string{"m", "m"}},
		{"all but writing one", []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}, {Type: "b", Major: num(8), Minor: num(16), Access: "w"}}, [2]string{"rwm", "rm"}},
		{"characters", []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: num(8), Minor: num(0), Access: "rw"}}, [2]string{"m", "m"}},
	} {
		l := &specs.Linux{Resources: &specs.LinuxResources{Devices: tt.rules}}
		prog, err := Compile(l, disks...)
		if err != nil {
			t.Fatal(err)
		}
		for i, d := range disks {
			got := ""
			for _, a := range []struct {
				word string
				bit  uint32
			}{{"r", unix.BPF_DEVCG_ACC_READ}, {"w", unix.BPF_DEVCG_ACC_WRITE}, {"m", unix.BPF_DEVCG_ACC_MKNOD}} {
				if run(t, prog, unix.BPF_DEVCG_DEV_BLOCK, a.bit, d.Guest.Major, d.Guest.Minor) {
					got += a.word
				}
			}
			if got != tt.want[i] {
				t.Errorf("%s: disk %d: %q, want %q", tt.name, i, got, tt.want[i])
			}
			r, w, err := Access(l, d.Host)
			if err != nil || r != strings.Contains(got, "r") || w != strings.Contains(got, "w") {
				t.Errorf("%s: disk %d: access %v %v, %v", tt.name, i, r, w, err)
			}
		}
	}
}
