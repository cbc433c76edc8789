package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bzImage makes a bzImage that Inspect accepts; f changes it.
func bzImage(f func(b []byte)) []byte {
	b := make([]byte, 8<<10)
	le := binary.LittleEndian
	b[offSetupSects] = 7
	le.PutUint16(b[offBootFlag:], bootFlag)
	copy(b[offHdrS:], "HdrS")
	le.PutUint16(b[offVersion:], 0x20f)
	le.PutUint16(b[offKernelVersion:], 0x300)
	copy(b[0x500:], "6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP\x00")
	b[offLoadflags] = loadedHigh
	le.PutUint16(b[offXloadflags:], xlfKernel64)
	if f != nil {
		f(b)
	}
	return b
}

// vmlinux makes an ELF kernel of one loaded segment and one of notes; f changes
// its headers before they are laid out.
func vmlinux(notes []byte, f func(h *elf.Header64, load, note *elf.Prog64)) []byte {
	text := []byte("text Linux version %s (none)\x00 Linux version 6.1.192-runv (runv@runv) (gcc) #1 SMP\x00")
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Entry: 0x1000000, Phoff: ehdrSize, Ehsize: ehdrSize, Phentsize: phdrSize, Phnum: 2,
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	at := uint64(ehdrSize + 2*phdrSize)
	load := elf.Prog64{Type: uint32(elf.PT_LOAD), Off: at, Paddr: 0x1000000, Filesz: uint64(len(text)), Memsz: 4096}
	note := elf.Prog64{Type: uint32(elf.PT_NOTE), Off: at + uint64(len(text)), Filesz: uint64(len(notes))}
	if f != nil {
		f(&h, &load, &note)
	}
	var b bytes.Buffer
	for _, v := range []any{h, load, note} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	b.Write(text)
	b.Write(notes)
	b.Write(make([]byte, setupHeaderEnd))
	return b.Bytes()
}

// note makes an ELF note.
func note(name string, typ uint32, desc []byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(len(name)))
	b = le.AppendUint32(b, uint32(len(desc)))
	b = le.AppendUint32(b, typ)
	for _, part := range [][]byte{[]byte(name), desc} {
		b = append(b, part...)
		b = append(b, make([]byte, -len(b)&3)...)
	}
	return b
}

func pvhNotes() []byte {
	return append(note("GNU\x00", 3, make([]byte, 20)), note("Xen\x00", xenPhys32Entry, []byte{0x10, 0, 0, 1})...)
}

func TestInspect(t *testing.T) {
	tests := []struct {
		name string
		file []byte
		want Image
	}{
		{"bzImage", bzImage(nil), Image{Format: BzImage, Release: "6.1.0-56-cloud-amd64", Protocol: 0x20f}},
		{"bzImage, no version", bzImage(func(b []byte) { clear(b[offKernelVersion : offKernelVersion+2]) }),
			Image{Format: BzImage, Protocol: 0x20f}},
		{"vmlinux", vmlinux(pvhNotes(), nil),
			Image{Format: ELF, Release: "6.1.192-runv", Entry: 0x1000000, PVHEntry: 0x1000010}},
		{"vmlinux, 8-byte note", vmlinux(note("Xen\x00", xenPhys32Entry, []byte{8: 0}[:8]), nil),
			Image{Format: ELF, Release: "6.1.192-runv", Entry: 0x1000000}},
		{"vmlinux, other notes", vmlinux(note("Xen\x00", 6, []byte("linux\x00")), nil),
			Image{Format: ELF, Release: "6.1.192-runv", Entry: 0x1000000}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Inspect(bytes.NewReader(tt.file), int64(len(tt.file)))
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			noPVH := tt.want.Format == ELF && tt.want.PVHEntry == 0
			if err := got.CheckPVH(); errors.Is(err, ErrNoPVH) != noPVH {
				t.Errorf("CheckPVH: got %v", err)
			}
		})
	}
}

func TestInspectErrors(t *testing.T) {
	le := binary.LittleEndian
	pvh := pvhNotes()
	head := func(s string) []byte { return append([]byte(s), make([]byte, 1024)...) }
	tests := []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "the file is empty"},
		{"gzip", head("\x1f\x8b\x08"), "decompress it first"},
		{"cpio", head("070701"), "an initramfs?"},
		{"deb", head("!<arch>\n"), "dpkg -x"},
		{"script", []byte("#!/bin/sh\n"), "a script"},
		{"text", []byte("hello"), `it starts with "hello"`},
		{"arm64", append(make([]byte, 0x38), head("ARM\x64")...), "x86-64 kernel is needed"},
		{"boot flag", bzImage(func(b []byte) { b[offBootFlag] = 0 }), "boot sector flag 0xaa00"},
		{"old", bzImage(func(b []byte) { le.PutUint16(b[offVersion:], 0x206) }), "boot protocol 2.6: 2.12"},
		{"zImage", bzImage(func(b []byte) { b[offLoadflags] = 0 }), "a zImage"},
		{"32-bit", bzImage(func(b []byte) { b[offXloadflags] = 0 }), "32-bit kernel"},
		{"truncated", bzImage(nil)[:2048], "bzImage truncated"},
		{"version outside", bzImage(func(b []byte) { le.PutUint16(b[offKernelVersion:], 0xff00) }), "outside of the setup code"},
		{"version garbage", bzImage(func(b []byte) { copy(b[0x500:], "../../etc ") }), "which is no kernel release"},
		{"short ELF", []byte("\x7fELF\x02\x01"), "ELF file of 6 bytes"},
		{"ELF32", head("\x7fELF\x01\x01\x01"), "ELFCLASS32"},
		{"big endian", head("\x7fELF\x02\x02\x01"), "ELFDATA2MSB"},
		{"arm64 ELF", vmlinux(pvh, func(h *elf.Header64, _, _ *elf.Prog64) { h.Machine = uint16(elf.EM_AARCH64) }), "EM_AARCH64"},
		{"module", vmlinux(pvh, func(h *elf.Header64, _, _ *elf.Prog64) { h.Type = uint16(elf.ET_REL) }), "a kernel module?"},
		{"no segments", vmlinux(pvh, func(h *elf.Header64, _, _ *elf.Prog64) { h.Phnum = 0 }), "0 program headers"},
		{"headers outside", vmlinux(pvh, func(h *elf.Header64, _, _ *elf.Prog64) { h.Phoff = ^uint64(0) - 8 }), "truncated"},
		{"segment outside", vmlinux(pvh, func(_ *elf.Header64, l, _ *elf.Prog64) { l.Off = ^uint64(0) }), "truncated?"},
		{"segment too small", vmlinux(pvh, func(_ *elf.Header64, l, _ *elf.Prog64) { l.Memsz = 1 }), "0x1 in memory"},
		{"nothing to load", vmlinux(pvh, func(_ *elf.Header64, l, _ *elf.Prog64) { l.Type = 0 }), "without anything to load"},
		{"broken note", vmlinux(le.AppendUint32(nil, 1<<31), func(_ *elf.Header64, _, n *elf.Prog64) { n.Filesz = 12 }), "broken note"},
		{"PVH note of 2 bytes", vmlinux(note("Xen\x00", xenPhys32Entry, []byte{1, 2}), nil), "broken PVH entry note"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Inspect(bytes.NewReader(tt.file), int64(len(tt.file)))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestInspectShrunk checks a file that is shorter than it was said to be, as
// when it is written to while it is read.
func TestInspectShrunk(t *testing.T) {
	b := vmlinux(pvhNotes(), nil)
	for n := range b {
		if n < ehdrSize+2*phdrSize+100 {
			if _, err := Inspect(bytes.NewReader(b[:n]), int64(len(b))); err == nil {
				t.Fatalf("%d of %d bytes: no error", n, len(b))
			}
		}
	}
}

func TestFindBannerAcrossChunks(t *testing.T) {
	const want = "6.1.192-runv"
	for _, at := range []int{0, 1<<20 - 20, 1<<20 - 1, 1 << 20, 1<<20 + 40, 2<<20 - 14} {
		b := make([]byte, 2<<20+200)
		copy(b[at:], banner+want+" (x)")
		got, err := findBanner(bytes.NewReader(b), 0, int64(len(b)))
		if err != nil || got != want {
			t.Errorf("banner at %#x: got %q, %v, want %q", at, got, err, want)
		}
	}
}

// TestInspectReal looks at a kernel that make kernel, or Debian, built.
func TestInspectReal(t *testing.T) {
	file := os.Getenv("RUNV_KERNEL")
	if file == "" {
		found, _ := filepath.Glob("/boot/vmlinuz-*-amd64")
		if len(found) == 0 {
			t.Skip("no kernel (try: RUNV_KERNEL=$(agent/kernel/build.sh) go test)")
		}
		file = found[0]
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	im, err := Inspect(f, fi.Size())
	if err != nil {
		t.Fatal(err)
	}
	if im.Release == "" {
		t.Errorf("%s: no release in %+v", file, im)
	}
	if err := im.CheckPVH(); err != nil {
		t.Error(err)
	}
}

func FuzzInspect(f *testing.F) {
	f.Add(bzImage(nil))
	f.Add(vmlinux(pvhNotes(), nil))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, b []byte) {
		im, err := Inspect(bytes.NewReader(b), int64(len(b)))
		if err == nil && im.Release != "" && !isRelease([]byte(im.Release)) {
			t.Errorf("release %q", im.Release)
		}
	})
}

func BenchmarkInspect(b *testing.B) {
	file := os.Getenv("RUNV_KERNEL")
	if file == "" {
		b.Skip("no kernel (try: RUNV_KERNEL=$(agent/kernel/build.sh) go test -bench .)")
	}
	f, err := os.Open(file)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Inspect(f, fi.Size()); err != nil {
			b.Fatal(err)
		}
	}
}
