package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// resetCode is the whole of the smallest init:
//
//	mov edi, 0xfee1dead  // LINUX_REBOOT_MAGIC1
//	mov esi, 0x28121969  // LINUX_REBOOT_MAGIC2
//	mov edx, 0x01234567  // LINUX_REBOOT_CMD_RESTART
//	mov eax, 169         // reboot(2)
//	syscall
//	hlt                  // not reached
var resetCode = [...]byte{
	0xbf, 0xad, 0xde, 0xe1, 0xfe,
	0xbe, 0x69, 0x19, 0x12, 0x28,
	0xba, 0x67, 0x45, 0x23, 0x01,
	0xb8, 0xa9, 0x00, 0x00, 0x00,
	0x0f, 0x05,
	0xf4,
}

// resetProgram returns a static x86-64 program that resets the machine, which
// ends a microvm: it has no other switch. One segment, no section.
func resetProgram() []byte {
	const base = 0x400000
	var head elf.Header64
	var prog elf.Prog64
	start := uint64(binary.Size(head) + binary.Size(prog))
	size := start + uint64(len(resetCode))
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
	for _, part := range []any{&head, &prog, &resetCode} {
		binary.Write(&b, binary.LittleEndian, part) //nolint:errcheck // a buffer, and types of fixed size
	}
	return b.Bytes()
}
