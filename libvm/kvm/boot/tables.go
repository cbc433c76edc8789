package boot

import (
	"encoding/binary"

	"runv/libvm/mem"
)

// The kernel's 64-bit entry point wants __BOOT_CS 0x10 and __BOOT_DS 0x18.
const (
	// SelectorCS and SelectorDS are the segments of State.GDT.
	SelectorCS = 0x10
	SelectorDS = 0x18

	// SelectorCode32 is a segment of State.GDT for protected mode.
	SelectorCode32 = 0x08

	gdtEntries = 4
	gdtCode32  = 0x00cf9b000000ffff // base 0, limit 4 GiB, execute/read, 32-bit
	gdtCode64  = 0x00af9b000000ffff // base 0, limit 4 GiB, execute/read, 64-bit
	gdtData    = 0x00cf93000000ffff // base 0, limit 4 GiB, read/write
)

// Bits of a page table entry.
const (
	pagePresent  = 1 << 0
	pageWritable = 1 << 1
	pageHuge     = 1 << 7 // 2 MiB, in a PD
)

// mapped is how many GiB the page tables map to themselves: the kernel, its
// boot_params and its initramfs are below.
const mapped = 4

// writeTables writes descriptor table and page tables.
func writeTables(m *mem.Memory) error {
	gdt, err := m.Slice(gdtStart, gdtEntries*8)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	le.PutUint64(gdt[SelectorCode32:], gdtCode32)
	le.PutUint64(gdt[SelectorCS:], gdtCode64)
	le.PutUint64(gdt[SelectorDS:], gdtData)

	t, err := m.Slice(pml4Start, (2+mapped)*pageSize)
	if err != nil {
		return err
	}
	const flags = pagePresent | pageWritable
	le.PutUint64(t, uint64(pml4Start+pageSize)|flags)
	for g := range uint64(mapped) {
		le.PutUint64(t[pageSize+8*g:], (uint64(pml4Start)+(2+g)*pageSize)|flags)
	}
	pds := t[2*pageSize:]
	for i := range uint64(mapped * 512) {
		le.PutUint64(pds[8*i:], i<<21|flags|pageHuge)
	}
	return nil
}
