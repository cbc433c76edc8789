package vm

import (
	"slices"
	"testing"
)

const gib = 1024 * MiB

func TestMaxMemory(t *testing.T) {
	for _, tt := range []struct{ memory, host, limit, want uint64 }{
		{512 * MiB, 24 * gib, 16 * gib, 16 * gib},
		{512 * MiB, 2*gib + 5*MiB, 16 * gib, 2 * gib},
		{512 * MiB, 600 * MiB, 16 * gib, 512 * MiB},
		{3 * gib, 24 * gib, 1 * gib, 3 * gib},
		{512 * MiB, 24 * gib, 0, 512 * MiB},
		{64 * gib, 256 * gib, 256 * gib, 64 * gib},
	} {
		if got := MaxMemory(tt.memory, tt.host, tt.limit); got != tt.want {
			t.Errorf("%d MiB of %d, at most %d: %d, want %d", tt.memory/MiB, tt.host/MiB, tt.limit/MiB, got/MiB, tt.want/MiB)
		}
	}
}

func TestGrowth(t *testing.T) {
	for _, tt := range []struct {
		name               string
		memory, need, most uint64 // MiB
		blocks             []uint64
		grown              uint64 // MiB; 0: an error
	}{
		{"enough", 512, 512, 8192, nil, 512},
		{"less", 512, 64, 8192, nil, 512},
		{"a little", 512, 513, 8192, []uint64{512}, 640},
		{"not aligned", 194, 500, 8192, []uint64{256, 384, 512}, 578},
		{"again", 578, 600, 8192, []uint64{640}, 706},
		{"over the hole", 2900, 3200, 8192, []uint64{2944, 4096, 4224}, 3284},
		{"behind the hole", 3284, 3300, 8192, []uint64{4352}, 3412},
		{"from behind the hole", 5000, 5001, 8192, []uint64{5120 + 1024}, 5128},
		{"all", 512, 1024, 1024, []uint64{512, 640, 768, 896}, 1024},
		{"too much", 512, 1025, 1024, nil, 0},
		{"all but a part of a block", 194, 962, 1024, []uint64{256, 384, 512, 640, 768, 896}, 962},
		{"the part of a block", 194, 963, 1024, nil, 0},
		{"fixed", 512, 513, 512, nil, 0},
	} {
		blocks, grown, err := Growth(tt.memory*MiB, tt.need*MiB, tt.most*MiB)
		for i := range blocks {
			blocks[i] /= MiB
		}
		if (err == nil) != (tt.grown > 0) || grown != tt.grown*MiB || !slices.Equal(blocks, tt.blocks) {
			t.Errorf("%s: %v, %d, %v, want %v, %d", tt.name, blocks, grown/MiB, err, tt.blocks, tt.grown)
		}
	}
}

func TestOffset(t *testing.T) {
	for _, offset := range []uint64{0, 512 * MiB, 3*gib - 1, 3 * gib, 3*gib + 1, 16 * gib} {
		if got := Offset(Address(offset)); got != offset {
			t.Errorf("%#x at %#x: %#x", offset, Address(offset), got)
		}
	}
	if got := Offset(HoleStart + 5); got != HoleStart {
		t.Errorf("in the hole: %#x", got)
	}
}

// TestLargestMemory: it is what Growth reaches, and no more.
func TestLargestMemory(t *testing.T) {
	for _, memory := range []uint64{48, 194, 512, 900, 1023, 1024, 3000, 3072, 5000} {
		for _, most := range []uint64{512, 1024, 8192} {
			if most < memory {
				most = memory // as MaxMemory has it
			}
			all := LargestMemory(memory*MiB, most*MiB)
			if _, grown, err := Growth(memory*MiB, all, most*MiB); err != nil || grown != all {
				t.Errorf("%d of %d: %d, %v, want %d", memory, most, grown/MiB, err, all/MiB)
			}
			if _, _, err := Growth(memory*MiB, all+1, most*MiB); err == nil {
				t.Errorf("%d of %d: more than %d", memory, most, all/MiB)
			}
		}
	}
}
