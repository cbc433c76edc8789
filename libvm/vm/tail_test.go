package vm

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestTailKeepsTheLastBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		size := 1 + r.IntN(40)
		tail := NewTail(size)
		var all []byte
		for range r.IntN(20) {
			p := make([]byte, r.IntN(2*size))
			for i := range p {
				p[i] = byte(r.Uint32())
			}
			if n, err := tail.Write(p); n != len(p) || err != nil {
				t.Fatalf("Write: got %d, %v, want %d, nil", n, err, len(p))
			}
			all = append(all, p...)
			want := all[max(0, len(all)-size):]
			if got := tail.Bytes(); !bytes.Equal(got, want) {
				t.Fatalf("size %d: got %x, want %x", size, got, want)
			}
		}
	}
}
