package vsock

import (
	"bytes"
	"math/rand"
	"testing"
)

// TestRing compares with a slice, across growth and the wrap of both counters.
func TestRing(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	b := ring{r: 1<<32 - 70000, w: 1<<32 - 70000}
	start := b.w
	var want []byte
	var total uint32
	for i := range 5000 {
		if n := rnd.Intn(3000); len(want)+n <= largeBuf {
			p := pattern(n, uint32(i))
			cut := rnd.Intn(n + 1)
			b.write([][]byte{p[:cut], p[cut:]}, n)
			want = append(want, p...)
			total += uint32(n)
		}
		p := make([]byte, rnd.Intn(2900))
		n := b.read(p)
		if !bytes.Equal(p[:n], want[:n]) || n < min(len(p), len(want)) {
			t.Fatalf("step %d: read %d bytes that differ or are too few", i, n)
		}
		want = want[n:]
		if b.len() != len(want) || b.w-start != total {
			t.Fatalf("step %d: got %d bytes, w %d, want %d, %d", i, b.len(), b.w-start, len(want), total)
		}
	}
	if len(b.buf) > largeBuf {
		t.Errorf("buffer grew to %d bytes", len(b.buf))
	}
	b.pass(10)
	if b.len() != 0 || b.w-start != total+10 {
		t.Errorf("pass: %d bytes left, w %d", b.len(), b.w-start)
	}
}

// TestRingGrowKeepsPart: what peek returned stays the same while the ring grows.
func TestRingGrowKeepsPart(t *testing.T) {
	var b ring
	first := pattern(minRing, 1)
	b.write([][]byte{first}, len(first))
	p := b.peek()
	b.write([][]byte{pattern(3*minRing, 2)}, 3*minRing)
	if !bytes.Equal(p, first) {
		t.Error("part changed")
	}
}
