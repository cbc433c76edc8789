// Package devfilter compiles linux.resources.devices into the eBPF program of
// type cgroup_device that the agent attaches to the container's cgroup.
//
// The list is read as written (runtime-spec v1.3 config-linux.md "Allowed
// Device list"): entries apply in order, a later one overrides an earlier one
// for the devices and kinds of access it names, and what no entry names is
// denied. After the config's entries come the devices that every container may
// use, as under runc. opencontainers/cgroups has such a compiler, but does not
// export it, and it refuses lists that cgroup v1 could not express.
package devfilter

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// anyNumber is a major or minor number that matches every number.
const anyNumber = -1

// rule is an entry of the list.
type rule struct {
	allow        bool
	kinds        []int32 // BPF_DEVCG_DEV_*; both if the entry names no type
	major, minor int64   // anyNumber, or 0 to 2^32-1
	access       int32   // BPF_DEVCG_ACC_* bits
}

const allAccess = unix.BPF_DEVCG_ACC_MKNOD | unix.BPF_DEVCG_ACC_READ | unix.BPF_DEVCG_ACC_WRITE

// Compile gives the program, an array of struct bpf_insn in the byte order of
// x86-64, or nil if the container may use every device. A nil l has no list. It is
// about the guest's devices, of which disks are the host's.
func Compile(l *specs.Linux, disks ...Disk) ([]byte, error) {
	more, err := diskRules(l, disks)
	if err != nil {
		return nil, err
	}
	rules, rest, err := list(l, more)
	if err != nil {
		return nil, err
	}
	return program(rules, rest), nil
}

// CompileHost gives what the container's processes on the host, the monitor and
// its VM, may use: the same, and the devices that a VM is made with. program is as
// Compile's; lines are what is written to devices.allow ("+…") and devices.deny
// ("-…") of a new group of cgroup v1, one after the other.
func CompileHost(l *specs.Linux) (prog []byte, lines []string, err error) {
	rules, rest, err := list(l, hostDevices())
	if err != nil {
		return nil, nil, err
	}
	lines = append(lines, map[bool]string{true: "+a", false: "-a"}[rest])
	for _, r := range rules {
		lines = append(lines, r.lines()...)
	}
	return program(rules, rest), lines, nil
}

// list is the rules of l and those that follow it, without those that change
// nothing, and what becomes of a device that none of them names.
func list(l *specs.Linux, more []rule) (rules []rule, rest bool, err error) {
	if l != nil && l.Resources != nil {
		for i, d := range l.Resources.Devices {
			r, err := parse(d)
			if err != nil {
				return nil, false, fmt.Errorf("linux.resources.devices[%d]: %w", i, err)
			}
			rules = append(rules, r)
		}
	}
	rules = append(append(rules, defaults(l)...), more...)
	// A rule for everything hides all before it.
	for i, r := range slices.Backward(rules) {
		if r.everything() {
			rest, rules = r.allow, rules[i+1:]
			break
		}
	}
	return rules, rest, nil
}

// program is nil if it would allow everything.
func program(rules []rule, rest bool) []byte {
	if rest && !slices.ContainsFunc(rules, func(r rule) bool { return !r.allow }) {
		return nil
	}
	return encode(assemble(rules, rest))
}

// hostDevices are those with which a VM is made beside /dev/net/tun, which every
// container may use: /dev/kvm.
func hostDevices() []rule {
	const misc, kvm = 10, 232
	return []rule{{allow: true, kinds: []int32{unix.BPF_DEVCG_DEV_CHAR}, major: misc, minor: kvm, access: allAccess}}
}

// lines is a rule in the words of cgroup v1 (Documentation/admin-guide/cgroup-v1/devices.rst).
func (r rule) lines() []string {
	if r.everything() {
		return []string{map[bool]string{true: "+a", false: "-a"}[r.allow]}
	}
	sign := map[bool]string{true: "+", false: "-"}[r.allow]
	id := func(n int64) string {
		if n == anyNumber {
			return "*"
		}
		return strconv.FormatInt(n, 10)
	}
	access := ""
	for _, a := range []struct {
		bit  int32
		word string
	}{{unix.BPF_DEVCG_ACC_READ, "r"}, {unix.BPF_DEVCG_ACC_WRITE, "w"}, {unix.BPF_DEVCG_ACC_MKNOD, "m"}} {
		if r.access&a.bit != 0 {
			access += a.word
		}
	}
	var out []string
	for _, k := range r.kinds {
		kind := map[int32]string{unix.BPF_DEVCG_DEV_BLOCK: "b", unix.BPF_DEVCG_DEV_CHAR: "c"}[k]
		out = append(out, sign+kind+" "+id(r.major)+":"+id(r.minor)+" "+access)
	}
	return out
}

// everything says whether the rule is about every device and access.
func (r rule) everything() bool {
	return len(r.kinds) == 2 && r.major == anyNumber && r.minor == anyNumber && r.access == allAccess
}

func parse(d specs.LinuxDeviceCgroup) (rule, error) {
	r := rule{allow: d.Allow}
	switch d.Type {
	case "", "a":
		r.kinds = []int32{unix.BPF_DEVCG_DEV_BLOCK, unix.BPF_DEVCG_DEV_CHAR}
	case "b":
		r.kinds = []int32{unix.BPF_DEVCG_DEV_BLOCK}
	case "c":
		r.kinds = []int32{unix.BPF_DEVCG_DEV_CHAR}
	default:
		return rule{}, fmt.Errorf("invalid cgroup device type %q", d.Type)
	}
	var err error
	if r.major, err = number("major", d.Major); err != nil {
		return rule{}, err
	}
	if r.minor, err = number("minor", d.Minor); err != nil {
		return rule{}, err
	}
	r.access, err = accessBits(d.Access)
	return r, err
}

func number(name string, n *int64) (int64, error) {
	switch {
	case n == nil:
		return anyNumber, nil
	case *n < anyNumber || *n > math.MaxUint32:
		return 0, fmt.Errorf("invalid %s %d", name, *n)
	}
	return *n, nil
}

func accessBits(s string) (int32, error) {
	if s == "" {
		return 0, fmt.Errorf("device access field cannot be empty")
	}
	var bits int32
	for _, c := range s {
		switch c {
		case 'r':
			bits |= unix.BPF_DEVCG_ACC_READ
		case 'w':
			bits |= unix.BPF_DEVCG_ACC_WRITE
		case 'm':
			bits |= unix.BPF_DEVCG_ACC_MKNOD
		default:
			return 0, fmt.Errorf("unknown device access %q in %q", c, s)
		}
	}
	return bits, nil
}

// defaults are the devices that every container may use. One that the config
// makes itself (linux.devices) is its own affair, so its rule is left out.
func defaults(l *specs.Linux) []rule {
	char := []int32{unix.BPF_DEVCG_DEV_CHAR}
	out := []rule{
		{allow: true, kinds: char, major: anyNumber, minor: anyNumber, access: unix.BPF_DEVCG_ACC_MKNOD},
		{allow: true, kinds: []int32{unix.BPF_DEVCG_DEV_BLOCK}, major: anyNumber, minor: anyNumber, access: unix.BPF_DEVCG_ACC_MKNOD},
		{allow: true, kinds: char, major: 136, minor: anyNumber, access: allAccess}, // /dev/pts/*
		{allow: true, kinds: char, major: 5, minor: 2, access: allAccess},           // /dev/ptmx
		{allow: true, kinds: char, major: 10, minor: 200, access: allAccess},        // /dev/net/tun
	}
	for _, d := range []struct {
		path         string
		major, minor int64
	}{
		{"/dev/null", 1, 3}, {"/dev/zero", 1, 5}, {"/dev/full", 1, 7},
		{"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0},
	} {
		made := l != nil && slices.ContainsFunc(l.Devices, func(m specs.LinuxDevice) bool { return m.Path == d.path })
		if !made {
			out = append(out, rule{allow: true, kinds: char, major: d.major, minor: d.minor, access: allAccess})
		}
	}
	return out
}
