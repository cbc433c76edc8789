package queue

import (
	"sync/atomic"
	"unsafe"
)

// The fields that both sides of a ring share are 16 bits wide, and Go has no
// 16-bit atomics. Each lies inside one aligned 32-bit word (the rings are
// aligned to 2 and 4, and New checks that the whole word is guest memory), so
// these work on that word. They are sequentially consistent, as all of
// sync/atomic: what the other side wrote before it published an index is seen
// by plain reads after load16, and what we wrote before store16 or setRingHead
// is visible to who reads the index.

// wordBytes is the unit in which ring fields are read and written.
const wordBytes = 4

// word returns the aligned word that holds the field at b[off], and by how many
// bits the field is shifted in it.
func word(b []byte, off int) (w *uint32, shift uint) {
	p := unsafe.Pointer(&b[off])
	below := uintptr(p) % wordBytes
	return (*uint32)(unsafe.Add(p, -int(below))), uint(8 * below)
}

// load16 reads the field at b[off], once, with acquire semantics.
func load16(b []byte, off int) uint16 {
	w, shift := word(b, off)
	return uint16(atomic.LoadUint32(w) >> shift)
}

// store16 writes the field at b[off] and is a full barrier. The other half of
// the word may belong to the driver, and keeps what it has. For a moment the
// field reads as 0: fit for an event index, which the driver may see at any
// stage of being moved, because the device looks at the ring again afterwards.
func store16(b []byte, off int, v uint16) {
	w, shift := word(b, off)
	atomic.AndUint32(w, ^(uint32(0xffff) << shift))
	atomic.OrUint32(w, uint32(v)<<shift)
}

// setRingHead publishes the first word of a used ring, which is ours to write.
func setRingHead(ring []byte, flags, idx uint16) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&ring[0])), uint32(flags)|uint32(idx)<<16)
}

// fence is a full memory barrier (a locked instruction on x86-64).
func fence() { atomic.AddUint32(new(uint32), 1) }
