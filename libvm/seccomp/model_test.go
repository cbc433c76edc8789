package seccomp

import (
	"encoding/binary"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// event is struct seccomp_data, less the instruction pointer.
type event struct {
	nr   uint32
	arch uint32
	args [maxArgs]uint64
}

// machine runs a compiled filter. x/net's machine reads packets, which are
// big-endian; the words of an event are laid out for it.
type machine struct{ vm *bpf.VM }

func newMachine(t testing.TB, f Filter) machine {
	t.Helper()
	if len(f.Program)%8 != 0 {
		t.Fatalf("program of %d bytes, want a multiple of 8", len(f.Program))
	}
	var raw []bpf.RawInstruction
	for p := f.Program; len(p) > 0; p = p[8:] {
		raw = append(raw, bpf.RawInstruction{
			Op: binary.LittleEndian.Uint16(p), Jt: p[2], Jf: p[3], K: binary.LittleEndian.Uint32(p[4:]),
		})
	}
	insns, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatalf("not all of the program could be disassembled")
	}
	vm, err := bpf.NewVM(insns)
	if err != nil {
		t.Fatalf("program refused: %v", err)
	}
	return machine{vm}
}

func (m machine) run(t testing.TB, e event) uint32 {
	t.Helper()
	var d [64]byte
	binary.BigEndian.PutUint32(d[offNr:], e.nr)
	binary.BigEndian.PutUint32(d[offArch:], e.arch)
	for i, a := range e.args {
		binary.BigEndian.PutUint32(d[offArgs+8*i:], uint32(a))
		binary.BigEndian.PutUint32(d[offArgs+8*i+4:], uint32(a>>32))
	}
	v, err := m.vm.Run(d[:])
	if err != nil {
		t.Fatalf("run %+v: %v", e, err)
	}
	return uint32(v)
}

// model says what a profile means, one rule after the other.
func model(p *profile, e event) uint32 {
	a := abiOf(p, e)
	if a == nil {
		if e.nr == 1<<32-1 && e.arch == abiX86_64().audit {
			return p.def
		}
		return unix.SECCOMP_RET_KILL_THREAD
	}
	conditional := p.def
	hit, named := false, false
	for _, r := range p.rules {
		for _, c := range a.calls(r.name) {
			if c.number != e.nr {
				continue
			}
			named = true
			args := r.args
			if c.mux != nil {
				args = []arg{*c.mux}
			}
			if len(args) == 0 {
				return r.action
			}
			if !hit && holds(args, e, a.wide) {
				hit, conditional = true, r.action
			}
		}
	}
	if last, ok := a.last(p.names); !named && p.enosys && ok && e.nr > last {
		return retENOSYS
	}
	return conditional
}

func abiOf(p *profile, e event) *abi {
	for _, a := range p.abis {
		x32 := e.arch == abiX86_64().audit && e.nr >= x32Bit
		if a.audit == e.arch && x32 == (a.mask != 0) {
			return a
		}
	}
	return nil
}

func holds(args []arg, e event, wide bool) bool {
	for _, a := range args {
		v, want, two := e.args[a.index], a.value, a.two
		if !wide {
			v, want, two = v&0xffffffff, want&0xffffffff, two&0xffffffff
		}
		var ok bool
		switch a.op {
		case specs.OpEqualTo:
			ok = v == want
		case specs.OpNotEqual:
			ok = v != want
		case specs.OpLessThan:
			ok = v < want
		case specs.OpLessEqual:
			ok = v <= want
		case specs.OpGreaterThan:
			ok = v > want
		case specs.OpGreaterEqual:
			ok = v >= want
		case specs.OpMaskedEqual:
			ok = v&want == two&want
		}
		if !ok {
			return false
		}
	}
	return true
}

// checkModel compares program and model at every number that an ABI has, at
// the edges, and at every value that a rule compares with, and beside it.
func checkModel(t testing.TB, spec *specs.LinuxSeccomp) {
	t.Helper()
	p, err := parse(spec)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Compile(spec)
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, f)
	for _, e := range events(p) {
		if got, want := m.run(t, e), model(p, e); got != want {
			t.Fatalf("%+v: verdict %#x, want %#x", e, got, want)
		}
	}
}

func events(p *profile) []event {
	numbers := []uint32{1000, x32Bit - 1, x32Bit, x32Bit + 1000, 1 << 31, 1<<32 - 1}
	for n := range uint32(600) {
		numbers = append(numbers, n, n|x32Bit)
	}
	archs := []uint32{abiX86_64().audit, abiX86().audit, 0xc00000b7, 0}
	var out []event
	for _, arch := range archs {
		for _, n := range numbers {
			out = append(out, event{nr: n, arch: arch})
		}
	}
	for _, r := range p.rules {
		for _, a := range []*abi{abiX86_64(), abiX86(), abiX32()} {
			for _, c := range a.calls(r.name) {
				out = append(out, argEvents(event{nr: c.number, arch: a.audit}, r.args)...)
			}
		}
	}
	return out
}

func argEvents(e event, args []arg) []event {
	var out []event
	for _, a := range args {
		for _, v := range []uint64{0, a.value, a.value - 1, a.value + 1, a.two, a.two | ^a.value, ^a.value, a.value ^ 1<<32, 1<<64 - 1} {
			// The other args at a value that may satisfy them.
			for _, b := range args {
				e.args[b.index] = b.value&^1 | b.two
			}
			e.args[a.index] = v
			out = append(out, e)
		}
	}
	return out
}
