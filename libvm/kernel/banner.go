package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
)

// banner begins the string that /proc/version shows, linux_banner in
// init/version.c; the release and a space follow.
const banner = "Linux version "

// elfRelease looks for the banner of a vmlinux. It is near the start of
// .rodata, so that section is read first, if there is a table of sections: the
// code before it is more than half of the file.
func elfRelease(r io.ReaderAt, size int64, h elf.Header64, progs []elf.Prog64) (string, error) {
	if off, n := rodata(r, size, h); n > 0 {
		if rel, err := findBanner(r, off, n); rel != "" || err != nil {
			return rel, err
		}
	}
	for _, p := range progs {
		if elf.ProgType(p.Type) != elf.PT_LOAD {
			continue
		}
		if rel, err := findBanner(r, int64(p.Off), int64(p.Filesz)); rel != "" || err != nil {
			return rel, err
		}
	}
	return "", nil
}

// findBanner looks for the banner in n bytes at off and returns its release.
func findBanner(r io.ReaderAt, off, n int64) (string, error) {
	const chunk = 64 << 10                       // bytes: it is in the first page, as a rule
	const overlap = len(banner) + maxRelease + 1 // bytes, so that no banner is cut in two
	buf := make([]byte, min(n, chunk+int64(overlap)))
	for n >= int64(len(banner)) {
		b := buf[:min(n, int64(len(buf)))]
		if err := readAt(r, b, off); err != nil {
			return "", err
		}
		if rel := bannerIn(b); rel != "" {
			return rel, nil
		}
		off, n = off+chunk, n-chunk
	}
	return "", nil
}

// bannerIn returns the release of the first banner in b that has one.
func bannerIn(b []byte) string {
	for {
		i := bytes.Index(b, []byte(banner))
		if i < 0 {
			return ""
		}
		b = b[i+len(banner):]
		word, _, ok := bytes.Cut(b[:min(len(b), maxRelease+1)], []byte{' '})
		if ok && isRelease(word) {
			return string(word)
		}
	}
}

// rodata returns where the section .rodata is in the file. A table of sections
// that is missing or makes no sense is no error: loading a kernel needs none.
func rodata(r io.ReaderAt, size int64, h elf.Header64) (off, n int64) {
	if h.Shnum == 0 || h.Shnum > maxShdrs || h.Shentsize != shdrSize || h.Shstrndx >= h.Shnum ||
		!inFile(h.Shoff, uint64(h.Shnum)*shdrSize, size) {
		return 0, 0
	}
	b := make([]byte, int(h.Shnum)*shdrSize)
	sections := make([]elf.Section64, h.Shnum)
	if readAt(r, b, int64(h.Shoff)) != nil {
		return 0, 0
	}
	if _, err := binary.Decode(b, binary.LittleEndian, sections); err != nil {
		return 0, 0
	}
	names := sections[h.Shstrndx]
	want := []byte(".rodata\x00")
	for _, s := range sections {
		at := names.Off + uint64(s.Name)
		if elf.SectionType(s.Type) != elf.SHT_PROGBITS || at < names.Off || !inFile(at, uint64(len(want)), size) {
			continue
		}
		got := make([]byte, len(want))
		if readAt(r, got, int64(at)) == nil && bytes.Equal(got, want) && inFile(s.Off, s.Size, size) {
			return int64(s.Off), int64(s.Size)
		}
	}
	return 0, 0
}
