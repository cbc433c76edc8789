package boot

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"math"

	"runv/libvm/mem"
)

const (
	ehdrSize = 64  // sizeof(Elf64_Ehdr)
	phdrSize = 56  // sizeof(Elf64_Phdr)
	maxPhdrs = 128 // vmlinux has 5
)

// loadELF loads the segments of a vmlinux, which kernel.Inspect has accepted;
// but the file may have changed since. pvh is its PVH entry point.
func (l *loader) loadELF(f File, pvh mem.GPA) error {
	var head [ehdrSize]byte
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return fmt.Errorf("read ELF header: %w", err)
	}
	var h elf.Header64
	if _, err := binary.Decode(head[:], binary.LittleEndian, &h); err != nil {
		return fmt.Errorf("decode ELF header: %w", err)
	}
	if h.Phnum == 0 || h.Phnum > maxPhdrs || h.Phentsize != phdrSize || h.Phoff > math.MaxInt64 {
		return fmt.Errorf("ELF vmlinux with %d program headers of %d bytes", h.Phnum, h.Phentsize)
	}
	raw := make([]byte, int(h.Phnum)*phdrSize)
	if _, err := f.ReadAt(raw, int64(h.Phoff)); err != nil {
		return fmt.Errorf("read ELF program headers: %w", err)
	}
	progs := make([]elf.Prog64, h.Phnum)
	if _, err := binary.Decode(raw, binary.LittleEndian, progs); err != nil {
		return fmt.Errorf("decode ELF program headers: %w", err)
	}
	var loaded []segment
	for i, p := range progs {
		if elf.ProgType(p.Type) != elf.PT_LOAD || p.Memsz == 0 {
			continue
		}
		s, err := l.loadSegment(f, p, loaded)
		if err != nil {
			return fmt.Errorf("ELF vmlinux segment %d: %w", i, err)
		}
		loaded = append(loaded, s)
	}
	l.entry = mem.GPA(h.Entry)
	if l.pvh {
		l.entry = pvh
	}
	if !inSegments(loaded, l.entry) {
		return fmt.Errorf("ELF vmlinux with its entry point %#x outside of what it loads", l.entry)
	}
	l.initMax = maxInitrd
	l.cmdMax = cmdlineSize
	l.params.setVmlinux()
	return nil
}

// segment is a range of guest memory that is taken: [start, end).
type segment struct{ start, end mem.GPA }

// loadSegment reads one segment. What is beyond its bytes in the file is zero
// already: memory is fresh, and segments that overlap are refused.
func (l *loader) loadSegment(f File, p elf.Prog64, loaded []segment) (segment, error) {
	if p.Filesz > p.Memsz || p.Off > math.MaxInt64 {
		return segment{}, fmt.Errorf("%#x bytes in the file, %#x in memory", p.Filesz, p.Memsz)
	}
	at := mem.GPA(p.Paddr)
	if at < himem || at >= l.low || p.Memsz > uint64(l.low-at) {
		return segment{}, fmt.Errorf("%#x bytes at gpa %#x, memory from %#x to %#x: %w", p.Memsz, at, himem, l.low, ErrTooSmall)
	}
	s := segment{at, at + mem.GPA(p.Memsz)}
	for _, o := range loaded {
		if s.start < o.end && o.start < s.end {
			return segment{}, fmt.Errorf("gpa %#x to %#x overlaps %#x to %#x", s.start, s.end, o.start, o.end)
		}
	}
	l.end = max(l.end, s.end)
	return s, l.read(f, int64(p.Off), at, p.Filesz)
}

func inSegments(segments []segment, at mem.GPA) bool {
	for _, s := range segments {
		if at >= s.start && at < s.end {
			return true
		}
	}
	return false
}
