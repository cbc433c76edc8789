package vm

import "fmt"

// BlockBytes is the piece, in bytes, in which a guest's kernel takes memory while it
// runs, and the alignment of each (MIN_MEMORY_BLOCK_SIZE of x86-64, for a kernel that
// began with less than 64 GiB).
const BlockBytes = 128 * MiB

// largestGrowing is the RAM, in bytes, from which on the pieces are larger.
const largestGrowing = 64 << 30

// The hole below 4 GiB where devices are, on both backends: RAM that does not fit
// below it goes on at its end.
const (
	HoleStart = 0xc000_0000
	HoleEnd   = 0x1_0000_0000
)

// MaxMemory returns to how much RAM, in bytes, a VM that begins with memory can grow
// where a host has so much, and the configuration lets one VM have limit.
func MaxMemory(memory, host, limit uint64) uint64 {
	most := min(host, limit) / BlockBytes * BlockBytes
	if memory >= largestGrowing || most <= memory {
		return memory
	}
	return most
}

// Growth returns the guest physical addresses of the blocks that a VM with memory
// bytes of RAM has to be given to have at least need, and what it has then. What is
// between its RAM and the first whole block stays unused. It fails if there is no
// such room in most, which is of MaxMemory.
func Growth(memory, need, most uint64) (blocks []uint64, grown uint64, err error) {
	begin := memory
	for at := roundUp(memory); memory < need; at, memory = at+BlockBytes, memory+BlockBytes {
		if at+BlockBytes > most {
			return nil, 0, fmt.Errorf("a VM of %d MiB grows to %d MiB at most", begin/MiB, LargestMemory(begin, most)/MiB)
		}
		blocks = append(blocks, Address(at))
	}
	return blocks, memory, nil
}

// LargestMemory returns the RAM, in bytes, to which Growth can bring a VM of memory.
func LargestMemory(memory, most uint64) uint64 {
	if first := roundUp(memory); first < most {
		return memory + (most-first)/BlockBytes*BlockBytes
	}
	return memory
}

// Address returns the guest physical address of the byte of RAM at an offset; that of
// the size of the RAM is its end.
func Address(offset uint64) uint64 {
	if offset < HoleStart {
		return offset
	}
	return offset + HoleEnd - HoleStart
}

// Offset undoes Address.
func Offset(address uint64) uint64 {
	if address < HoleEnd {
		return min(address, HoleStart)
	}
	return address - (HoleEnd - HoleStart)
}

func roundUp(n uint64) uint64 { return (n + BlockBytes - 1) / BlockBytes * BlockBytes }
