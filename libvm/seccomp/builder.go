package seccomp

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// maxSkip is how far a conditional jump reaches: its offsets have 8 bits.
const maxSkip = 255

// label is an instruction, counted from the end of the program.
type label int

// builder writes a program from its end to its start. Classic BPF jumps only
// forward, so every target exists, and its distance is known, when the jump to
// it is written.
type builder struct {
	reversed []unix.SockFilter
	rets     map[uint32]label
}

// emit puts an instruction before all others.
func (b *builder) emit(in unix.SockFilter) label {
	b.reversed = append(b.reversed, in)
	return label(len(b.reversed) - 1)
}

// finish gives the program in its order.
func (b *builder) finish() []unix.SockFilter {
	out := slices.Clone(b.reversed)
	slices.Reverse(out)
	return out
}

// skip is the number of instructions between the next one and l.
func (b *builder) skip(l label) int { return len(b.reversed) - int(l) - 1 }

// ret is a place that ends the program with v; one that exists is used again.
func (b *builder) ret(v uint32) label {
	if l, ok := b.rets[v]; ok {
		return l
	}
	if b.rets == nil {
		b.rets = map[uint32]label{}
	}
	l := b.emit(unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: v})
	b.rets[v] = l
	return l
}

// load puts 32 bits of struct seccomp_data into the accumulator and goes on at
// next.
func (b *builder) load(off uint32, next label) label {
	if b.skip(next) > 0 {
		b.far(next)
	}
	return b.emit(unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off})
}

// jump goes on at t if the accumulator compares with k, else at f.
func (b *builder) jump(op uint16, k uint32, t, f label) label {
	t, f = b.near(t, f)
	return b.emit(unix.SockFilter{
		Code: unix.BPF_JMP | op | unix.BPF_K,
		Jt:   uint8(b.skip(t)), Jf: uint8(b.skip(f)), K: k,
	})
}

// near makes both targets reachable by a conditional jump that comes next,
// with jumps in between where they are too far away.
func (b *builder) near(t, f label) (label, label) {
	for b.skip(t) > maxSkip || b.skip(f) > maxSkip {
		if b.skip(t) > maxSkip {
			t = b.far(t)
		} else {
			f = b.far(f)
		}
	}
	return t, f
}

// far is a jump to l. A far return is repeated instead, and from then on the
// nearer one is used.
func (b *builder) far(l label) label {
	in := b.reversed[l]
	if in.Code == unix.BPF_RET|unix.BPF_K {
		n := b.emit(in)
		b.rets[in.K] = n
		return n
	}
	return b.emit(unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(b.skip(l))})
}

// same says whether two places do the same: they are one, or equal returns.
func (b *builder) same(l, m label) bool {
	return l == m || (b.reversed[l] == b.reversed[m] && b.reversed[l].Code == unix.BPF_RET|unix.BPF_K)
}

// span is a range of numbers with one verdict: from low to the next one's low.
type span struct {
	low uint32
	to  label
}

// spans lays tables side by side, from number 0 to 2^32-1. The first table
// must start at 0 and each end where the next begins.
func (b *builder) spans(tables []table) []span {
	var out []span
	add := func(low uint32, to label) {
		if n := len(out); n > 0 && b.same(out[n-1].to, to) {
			return
		}
		out = append(out, span{low, to})
	}
	for i, t := range tables {
		end := uint64(1) << 32
		if i+1 < len(tables) {
			end = uint64(tables[i+1].low)
		}
		next := uint64(t.low)
		for _, n := range slices.Sorted(maps.Keys(t.verdicts)) {
			addGap(add, t, next, uint64(n))
			add(n, t.verdicts[n])
			next = uint64(n) + 1
		}
		addGap(add, t, next, end)
	}
	return out
}

// addGap adds the numbers from low to below end, for which there is no rule.
func addGap(add func(uint32, label), t table, low, end uint64) {
	if low < end && low <= uint64(t.last) {
		add(uint32(low), t.rest)
		low = uint64(t.last) + 1
	}
	if low < end {
		add(uint32(low), t.beyond)
	}
}

// search finds the span of the number in the accumulator.
func (b *builder) search(s []span) label {
	if len(s) == 1 {
		return s[0].to
	}
	mid := len(s) / 2
	above := b.search(s[mid:])
	below := b.search(s[:mid])
	return b.jump(unix.BPF_JGE, s[mid].low, above, below)
}
