package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
)

// The headers are read by hand: debug/elf does not claim to stand a hostile
// file, and a kernel needs little of it. Its constants and structs serve.
const (
	ehdrSize = 64 // sizeof(Elf64_Ehdr)
	phdrSize = 56 // sizeof(Elf64_Phdr)
	shdrSize = 64 // sizeof(Elf64_Shdr)

	maxPhdrs = 128     // vmlinux has 5
	maxShdrs = 4096    // vmlinux has some 40, with debug info 60
	maxNotes = 1 << 20 // bytes of one PT_NOTE; vmlinux has some 600

	// XEN_ELFNOTE_PHYS32_ENTRY, include/xen/interface/elfnote.h: the physical
	// address at which a PVH loader enters in 32-bit protected mode.
	xenPhys32Entry = 18
)

// inspectELF reads an ELF file that begins with head.
func inspectELF(r io.ReaderAt, size int64, head []byte) (Image, error) {
	h, err := elfHeader(head)
	if err != nil {
		return Image{}, err
	}
	progs, err := programHeaders(r, size, h)
	if err != nil {
		return Image{}, err
	}
	im := Image{Format: ELF, Entry: h.Entry}
	loads := 0
	for i, p := range progs {
		if err := checkSegment(p, size); err != nil {
			return Image{}, fmt.Errorf("ELF vmlinux segment %d: %w", i, err)
		}
		switch elf.ProgType(p.Type) {
		case elf.PT_LOAD:
			loads++
		case elf.PT_NOTE:
			if im.PVHEntry, err = pvhEntry(r, p, im.PVHEntry); err != nil {
				return Image{}, err
			}
		}
	}
	if loads == 0 {
		return Image{}, fmt.Errorf("%w: ELF file without anything to load", ErrNotKernel)
	}
	im.Release, err = elfRelease(r, size, h, progs)
	return im, err
}

// elfHeader checks that an ELF header is that of an x86-64 executable.
func elfHeader(head []byte) (h elf.Header64, err error) {
	if len(head) < ehdrSize {
		return h, fmt.Errorf("%w: ELF file of %d bytes", ErrNotKernel, len(head))
	}
	if c := elf.Class(head[elf.EI_CLASS]); c != elf.ELFCLASS64 {
		return h, fmt.Errorf("ELF file of %v, and an x86-64 kernel is needed", c)
	}
	if d := elf.Data(head[elf.EI_DATA]); d != elf.ELFDATA2LSB {
		return h, fmt.Errorf("ELF file of %v, and an x86-64 kernel is needed", d)
	}
	if _, err := binary.Decode(head[:ehdrSize], binary.LittleEndian, &h); err != nil {
		return h, fmt.Errorf("decode ELF header: %w", err)
	}
	if m := elf.Machine(h.Machine); m != elf.EM_X86_64 {
		return h, fmt.Errorf("ELF file for %v, and an x86-64 kernel is needed", m)
	}
	if t := elf.Type(h.Type); t != elf.ET_EXEC && t != elf.ET_DYN {
		return h, fmt.Errorf("%w: ELF file of type %v (a kernel module?)", ErrNotKernel, t)
	}
	return h, nil
}

// programHeaders reads the table of segments.
func programHeaders(r io.ReaderAt, size int64, h elf.Header64) ([]elf.Prog64, error) {
	if h.Phnum == 0 || h.Phnum > maxPhdrs || h.Phentsize != phdrSize {
		return nil, fmt.Errorf("%w: ELF file with %d program headers of %d bytes", ErrNotKernel, h.Phnum, h.Phentsize)
	}
	n := int64(h.Phnum) * phdrSize
	if !inFile(h.Phoff, uint64(n), size) {
		return nil, fmt.Errorf("ELF vmlinux truncated: program headers at %#x, file of %#x bytes", h.Phoff, size)
	}
	b := make([]byte, n)
	if err := readAt(r, b, int64(h.Phoff)); err != nil {
		return nil, err
	}
	progs := make([]elf.Prog64, h.Phnum)
	_, err := binary.Decode(b, binary.LittleEndian, progs)
	return progs, err
}

// checkSegment checks that a segment is in the file and fits its memory.
func checkSegment(p elf.Prog64, size int64) error {
	if t := elf.ProgType(p.Type); t != elf.PT_LOAD && t != elf.PT_NOTE {
		return nil
	}
	if !inFile(p.Off, p.Filesz, size) {
		return fmt.Errorf("%#x bytes at offset %#x are beyond the end of the file (truncated?)", p.Filesz, p.Off)
	}
	if elf.ProgType(p.Type) == elf.PT_LOAD && p.Memsz < p.Filesz {
		return fmt.Errorf("%#x bytes in the file, %#x in memory", p.Filesz, p.Memsz)
	}
	return nil
}

// inFile reports whether n bytes at off are in a file of the given size.
func inFile(off, n uint64, size int64) bool {
	return off <= uint64(size) && n <= uint64(size)-off
}

// pvhEntry looks for the PVH note in a PT_NOTE segment and returns its address,
// or def if it is not there. A note is three words (name size, description
// size, type), the name and the description, both padded to 4 bytes.
func pvhEntry(r io.ReaderAt, p elf.Prog64, def uint32) (uint32, error) {
	if p.Filesz > maxNotes {
		return 0, fmt.Errorf("ELF vmlinux with %#x bytes of notes", p.Filesz)
	}
	b := make([]byte, p.Filesz)
	if err := readAt(r, b, int64(p.Off)); err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	for len(b) >= 12 {
		namesz, descsz, typ := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:])), le.Uint32(b[8:])
		desc := 12 + align4(namesz)
		next := desc + align4(descsz)
		if desc+descsz > uint64(len(b)) {
			return 0, fmt.Errorf("ELF vmlinux with a broken note (name %#x, description %#x bytes)", namesz, descsz)
		}
		name := b[12 : 12+namesz]
		if typ == xenPhys32Entry && bytes.Equal(name, []byte("Xen\x00")) {
			return note32(b[desc : desc+descsz])
		}
		b = b[min(next, uint64(len(b))):]
	}
	return def, nil
}

// note32 returns the address in a note, which has 4 or 8 bytes.
func note32(desc []byte) (uint32, error) {
	switch len(desc) {
	case 4:
		return binary.LittleEndian.Uint32(desc), nil
	case 8:
		if v := binary.LittleEndian.Uint64(desc); v>>32 == 0 {
			return uint32(v), nil
		}
	}
	return 0, fmt.Errorf("ELF vmlinux with a broken PVH entry note (% x)", desc)
}

func align4(n uint64) uint64 { return (n + 3) &^ 3 }
