package harness

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// Program returns a static x86-64 program of the given machine code: one segment,
// read and executed, no section.
func Program(code []byte) []byte {
	const base = 0x400000
	var head elf.Header64
	var prog elf.Prog64
	start := uint64(binary.Size(head) + binary.Size(prog))
	size := start + uint64(len(code))
	head = elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Entry: base + start, Phoff: uint64(binary.Size(head)),
		Ehsize: uint16(binary.Size(head)), Phentsize: uint16(binary.Size(prog)), Phnum: 1,
	}
	prog = elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 0x1000,
	}
	var b bytes.Buffer
	for _, part := range []any{&head, &prog, code} {
		binary.Write(&b, binary.LittleEndian, part) //nolint:errcheck // a buffer, and types of fixed size
	}
	return b.Bytes()
}
