package monitor

import (
	"bytes"
	"debug/elf"
	"os"
	"strings"
	"testing"
	"unsafe"
)

// TestReadOnlySegments holds the segments against the program's file: they are
// what the file has, before and after they were unmapped.
func TestReadOnlySegments(t *testing.T) {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := 0
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_W == 0 {
			want++
		}
	}
	segments := readOnlySegments()
	if len(segments) != want || want == 0 {
		t.Fatalf("got %d segments, want %d", len(segments), want)
	}
	before := residentFile(t)
	file, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for i, s := range segments {
			if !bytes.Contains(file, s) {
				t.Errorf("segment %d of %#x bytes is not in the file", i, len(s))
			}
		}
		trim()
	}
	if after := residentFile(t); after >= before {
		t.Errorf("%d pages of files are mapped, %d were before", after, before)
	}
}

// residentFile returns how many pages of files are mapped and present.
func residentFile(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var n int
	for _, c := range strings.Fields(string(b))[2] {
		n = n*10 + int(c-'0')
	}
	return n
}

func TestReadOnlyPositionIndependent(t *testing.T) {
	// Whole pages of our own, at which the headers claim to be.
	page := os.Getpagesize()
	b := make([]byte, 4*page)
	base := (uintptr(unsafe.Pointer(&b[0])) + uintptr(page) - 1) &^ (uintptr(page) - 1)
	p := uint64(page)
	headers := []elf.Prog64{
		{Type: uint32(elf.PT_PHDR), Flags: uint32(elf.PF_R), Vaddr: 0x40, Filesz: 0x100},
		{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: 0, Filesz: p + 8},
		{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W), Vaddr: p, Filesz: p},
		{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R), Vaddr: 2*p + 8, Filesz: 8},
	}
	got := readOnly(headers, base+0x40)
	if len(got) != 1 || uintptr(unsafe.Pointer(&got[0][0])) != base || len(got[0]) != page {
		t.Errorf("got %d segments, want the page at %#x", len(got), base)
	}
}
