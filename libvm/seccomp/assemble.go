package seccomp

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Layout of struct seccomp_data of <linux/seccomp.h>, which a filter reads:
//
//	int nr            0
//	__u32 arch        4
//	__u64 ip          8
//	__u64 args[6]    16 = 8 + 8
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

// maxInsns is BPF_MAXINSNS of <linux/bpf_common.h>: the kernel refuses more.
const maxInsns = 4096

// assemble writes the program: by architecture, then by a binary search in the
// numbers, so that a profile of 300 names costs a system call about ten
// comparisons.
func assemble(p *profile) ([]unix.SockFilter, error) {
	var b builder
	// A foreign architecture kills the thread (libseccomp's bad arch action).
	next := b.ret(unix.SECCOMP_RET_KILL_THREAD)
	for _, a := range slices.Backward(p.abis) {
		if a.name == specs.ArchX32 {
			continue // its numbers are in the section of x86-64
		}
		tables := []table{numberTable(&b, p, a)}
		if a.name == specs.ArchX86_64 {
			tables = append(tables, x32Table(&b, p))
		}
		section := b.load(offNr, b.search(b.spans(tables)))
		next = b.jump(unix.BPF_JEQ, a.audit, section, next)
	}
	b.load(offArch, next)
	out := b.finish()
	if len(out) > maxInsns {
		return nil, fmt.Errorf("linux.seccomp: the profile needs %d BPF instructions, the kernel takes %d", len(out), maxInsns)
	}
	return out, nil
}

// table says what happens to the numbers from low on: what is in verdicts, and
// rest for all others.
type table struct {
	low      uint32
	verdicts map[uint32]label
	rest     label
	beyond   label // for numbers above last
	last     uint32
}

// numberTable is the table of one ABI's own numbers.
func numberTable(b *builder, p *profile, a *abi) table {
	t := table{low: a.mask, verdicts: map[uint32]label{}, rest: b.ret(p.def)}
	t.beyond, t.last = t.rest, 1<<32-1
	if last, ok := a.last(p.names); p.enosys && ok {
		t.beyond, t.last = b.ret(retENOSYS), last
	}
	matches := map[uint32][]rule{}
	var order []uint32
	for _, r := range p.rules {
		for _, c := range a.calls(r.name) {
			if _, ok := matches[c.number]; !ok {
				order = append(order, c.number)
			}
			at := r
			if c.mux != nil {
				// The other arguments are behind a pointer: not seen.
				at.args = []arg{*c.mux}
			}
			matches[c.number] = append(matches[c.number], at)
		}
	}
	for _, n := range order {
		t.verdicts[n] = b.rules(matches[n], p.def, a.wide)
	}
	return t
}

// x32Table is what a call with the x32 bit gets: its own rules, or where the
// profile has no x32, death as of a foreign architecture. The number -1, which
// a tracer leaves to skip a call, has all bits and goes by the default action.
func x32Table(b *builder, p *profile) table {
	i := slices.IndexFunc(p.abis, func(a *abi) bool { return a.name == specs.ArchX32 })
	if i >= 0 {
		return numberTable(b, p, p.abis[i])
	}
	kill := b.ret(unix.SECCOMP_RET_KILL_THREAD)
	return table{
		low: x32Bit, rest: kill, beyond: kill, last: 1<<32 - 1,
		verdicts: map[uint32]label{1<<32 - 1: b.ret(p.def)},
	}
}

// rules writes the code for one number; what it returns decides the call.
func (b *builder) rules(rs []rule, def uint32, wide bool) label {
	for _, r := range rs {
		if len(r.args) == 0 {
			return b.ret(r.action)
		}
	}
	next := b.ret(def)
	for _, r := range slices.Backward(rs) {
		match := b.ret(r.action)
		for _, a := range slices.Backward(r.args) {
			match = b.compare(a, wide, match, next)
		}
		next = match
	}
	return next
}

// compare writes one condition, which goes on at t or f.
func (b *builder) compare(a arg, wide bool, t, f label) label {
	lo, hi := uint32(a.value), uint32(a.value>>32)
	switch a.op {
	case specs.OpNotEqual:
		t, f = f, t
		fallthrough
	case specs.OpEqualTo:
		return b.halves(a.index, wide, hi, t, f, f, unix.BPF_JEQ, lo)
	case specs.OpLessEqual:
		t, f = f, t
		fallthrough
	case specs.OpGreaterThan:
		return b.halves(a.index, wide, hi, t, f, t, unix.BPF_JGT, lo)
	case specs.OpLessThan:
		t, f = f, t
		fallthrough
	case specs.OpGreaterEqual:
		return b.halves(a.index, wide, hi, t, f, t, unix.BPF_JGE, lo)
	}
	// SCMP_CMP_MASKED_EQ: (argument & value) == valueTwo. Bits of valueTwo
	// outside the mask do not count (libseccomp).
	want := a.two & a.value
	next := b.masked(a.index, 0, lo, uint32(want), t, f)
	if wide && hi != 0 {
		next = b.masked(a.index, 4, hi, uint32(want>>32), next, f)
	}
	return next
}

// halves compares 64 bits by 32: if the high halves are equal the low ones
// decide by op, else it goes on at above or at f. Without wide only the low
// half is looked at.
func (b *builder) halves(index uint, wide bool, hi uint32, t, f, above label, op uint16, lo uint32) label {
	next := b.jump(op, lo, t, f)
	next = b.load(offArgs+8*uint32(index), next)
	if !wide {
		return next
	}
	differ := f
	if above != f {
		differ = b.jump(unix.BPF_JGT, hi, above, f)
	}
	next = b.jump(unix.BPF_JEQ, hi, next, differ)
	return b.load(offArgs+8*uint32(index)+4, next)
}

// masked compares 32 bits of an argument, at off from its start, under a mask.
func (b *builder) masked(index uint, off, mask, want uint32, t, f label) label {
	b.jump(unix.BPF_JEQ, want, t, f)
	next := b.emit(unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask})
	return b.load(offArgs+8*uint32(index)+off, next)
}
