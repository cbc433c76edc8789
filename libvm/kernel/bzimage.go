package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// The real-mode header of a bzImage, Documentation/x86/boot.rst ("The Real-Mode
// Kernel Header"). All fields are little endian.
const (
	offSetupSects    = 0x1f1 // size of the setup code after the boot sector, 512-byte sectors (1 byte)
	offBootFlag      = 0x1fe // 0xaa55 (2)
	offHdrS          = 0x202 // magic "HdrS" (4)
	offVersion       = 0x206 // boot protocol (2)
	offKernelVersion = 0x20e // the version string, less 0x200 (2)
	offLoadflags     = 0x211 // (1)
	offXloadflags    = 0x236 // (2)

	setupHeaderEnd = 0x238 // end of what we read of it

	bootFlag       = 0xaa55
	loadedHigh     = 1 << 0 // loadflags LOADED_HIGH: protected-mode code at 1 MiB, so a bzImage and no zImage
	xlfKernel64    = 1 << 0 // xloadflags XLF_KERNEL_64: has the 64-bit entry point at 0x200
	minProtocol    = 0x20c  // 2.12 (Linux 3.8): the first with xloadflags
	sectorSize     = 512    // bytes
	defSetupSects  = 4      // what setup_sects 0 means
	maxVersionText = 256    // bytes of the version string that are looked at
)

// inspectBzImage reads a bzImage whose first setupHeaderEnd bytes are head.
func inspectBzImage(r io.ReaderAt, size int64, head []byte) (Image, error) {
	le := binary.LittleEndian
	im := Image{Format: BzImage, Protocol: le.Uint16(head[offVersion:])}
	if flag := le.Uint16(head[offBootFlag:]); flag != bootFlag {
		return Image{}, fmt.Errorf("%w: boot sector flag %#x, want %#x", ErrNotKernel, flag, bootFlag)
	}
	if im.Protocol < minProtocol {
		return Image{}, fmt.Errorf("bzImage with boot protocol %d.%d: 2.12 (Linux 3.8) or later is needed",
			im.Protocol>>8, im.Protocol&0xff)
	}
	if head[offLoadflags]&loadedHigh == 0 {
		return Image{}, fmt.Errorf("%w: a zImage, and a bzImage is needed", ErrNotKernel)
	}
	if le.Uint16(head[offXloadflags:])&xlfKernel64 == 0 {
		return Image{}, fmt.Errorf("bzImage of a 32-bit kernel, and an x86-64 kernel is needed")
	}
	sects := int64(head[offSetupSects])
	if sects == 0 {
		sects = defSetupSects
	}
	setup := (sects + 1) * sectorSize
	if setup >= size {
		return Image{}, fmt.Errorf("bzImage truncated: %d bytes, and the setup code alone is %d", size, setup)
	}
	var err error
	im.Release, err = bzRelease(r, int64(le.Uint16(head[offKernelVersion:])), setup)
	return im, err
}

// bzRelease returns the release that the version string at ptr+0x200 begins
// with, "6.1.0-56-cloud-amd64 (debian-kernel@…) #1 SMP …".
func bzRelease(r io.ReaderAt, ptr, setup int64) (string, error) {
	if ptr == 0 {
		return "", nil
	}
	off := ptr + 0x200
	if off >= setup {
		return "", fmt.Errorf("bzImage version string at %#x is outside of the setup code of %#x bytes", off, setup)
	}
	b := make([]byte, min(maxVersionText, setup-off))
	if err := readAt(r, b, off); err != nil {
		return "", err
	}
	word, _, _ := bytes.Cut(b, []byte{0})
	word, _, _ = bytes.Cut(word, []byte{' '})
	if !isRelease(word) {
		return "", fmt.Errorf("bzImage version string begins with %q, which is no kernel release", word)
	}
	return string(word), nil
}

// isRelease reports whether b can be a kernel release: it becomes part of a
// path, so it has no slash, and does not begin with a dot.
func isRelease(b []byte) bool {
	if len(b) == 0 || len(b) > maxRelease || b[0] < '0' || b[0] > '9' {
		return false
	}
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case bytes.IndexByte([]byte("._+~-"), c) >= 0:
		default:
			return false
		}
	}
	return true
}

const maxRelease = 64 // bytes, __NEW_UTS_LEN
