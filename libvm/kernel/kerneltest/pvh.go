// Package kerneltest makes kernels of a few bytes for tests.
package kerneltest

import "encoding/binary"

// PVH returns an ELF kernel that is no Linux, whose PVH entry
// (XEN_ELFNOTE_PHYS32_ENTRY), and 64-bit entry, is at code.
func PVH(code ...byte) []byte {
	const load = 1 << 20 // where it is loaded, physical
	var f []byte
	u16 := func(v uint16) { f = binary.LittleEndian.AppendUint16(f, v) }
	u32 := func(v uint32) { f = binary.LittleEndian.AppendUint32(f, v) }
	u64 := func(v uint64) { f = binary.LittleEndian.AppendUint64(f, v) }
	// Elf64_Ehdr, 64 bytes; two Elf64_Phdr of 56; a note of 24; the code.
	const notes, text = 64 + 2*56, 64 + 2*56 + 24
	f = append(f, "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	u16(2)  // ET_EXEC
	u16(62) // EM_X86_64
	u32(1)
	u64(load + text)
	u64(64) // e_phoff
	u64(0)
	u32(0)
	u16(64)
	u16(56)
	u16(2)
	u16(0)
	u16(0)
	u16(0)
	segment := func(kind, flags uint32, offset, size uint64) {
		u32(kind)
		u32(flags)
		u64(offset)
		u64(load + offset)
		u64(load + offset)
		u64(size)
		u64(size)
		u64(4)
	}
	segment(1, 7, 0, text+uint64(len(code))) // PT_LOAD
	segment(4, 4, notes, 24)                 // PT_NOTE
	u32(4)                                   // length of the name
	u32(8)                                   // length of the value
	u32(18)                                  // XEN_ELFNOTE_PHYS32_ENTRY
	f = append(f, "Xen\x00"...)
	u64(load + text)
	return append(f, code...)
}
