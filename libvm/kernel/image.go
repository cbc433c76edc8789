// Package kernel inspects the kernel that a VM is to boot. The file may come
// from anyone, so nothing in it is believed before it is checked, and an error
// names what is wrong and, where there is one, the cure.
package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Format is the container that a kernel comes in.
type Format int

// The formats that can be booted.
const (
	ELF     Format = iota + 1 // vmlinux: uncompressed, entered by PVH or at its 64-bit entry
	BzImage                   // the kernel's own format: compressed, with a boot header
)

// String returns the format's usual name.
func (f Format) String() string {
	switch f {
	case ELF:
		return "vmlinux"
	case BzImage:
		return "bzImage"
	}
	return fmt.Sprintf("Format(%d)", int(f))
}

// Image says what a kernel file is.
type Image struct {
	Format  Format
	Release string // as uname -r in the guest, or "" if the image does not say

	Entry    uint64 // ELF: physical address of the 64-bit entry point
	PVHEntry uint32 // ELF: physical address of the 32-bit PVH entry point, or 0

	Protocol uint16 // bzImage: boot protocol, major version in the high byte
}

// maxImage bounds the file. A vmlinux with all of its debug info is below it.
const maxImage = 1 << 30 // bytes

// ErrNotKernel says that a file is not a kernel at all.
var ErrNotKernel = errors.New("not a kernel")

// ErrNoPVH says that a vmlinux cannot be started by a VMM that uses PVH.
var ErrNoPVH = errors.New("ELF vmlinux without a PVH entry note: build it with CONFIG_PVH=y, or give the bzImage")

// CheckPVH returns ErrNoPVH if a VMM that loads ELF files by their PVH note, as
// QEMU does, cannot start the image. A bzImage needs none.
func (im Image) CheckPVH() error {
	if im.Format == ELF && im.PVHEntry == 0 {
		return ErrNoPVH
	}
	return nil
}

// Inspect reads the headers of the kernel in r, size bytes long, and its
// release. It accepts an x86-64 vmlinux and bzImage and nothing else.
func Inspect(r io.ReaderAt, size int64) (Image, error) {
	if size == 0 {
		return Image{}, fmt.Errorf("%w: the file is empty", ErrNotKernel)
	}
	if size > maxImage {
		return Image{}, fmt.Errorf("%w: %d MiB, at most %d are read", ErrNotKernel, size>>20, maxImage>>20)
	}
	// Covers the ELF header, and the boot header of a bzImage.
	head := make([]byte, min(size, setupHeaderEnd))
	if err := readAt(r, head, 0); err != nil {
		return Image{}, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		return inspectELF(r, size, head)
	case len(head) == setupHeaderEnd && string(head[offHdrS:offHdrS+4]) == "HdrS":
		return inspectBzImage(r, size, head)
	}
	return Image{}, fmt.Errorf("%w: %s", ErrNotKernel, describe(head))
}

// describe says what a file that is no kernel looks like.
func describe(head []byte) string {
	known := []struct {
		off   int
		magic string
		what  string
	}{
		{0, "\x1f\x8b", "gzip data: decompress it first"},
		{0, "\xfd7zXZ", "xz data: decompress it first"},
		{0, "\x28\xb5\x2f\xfd", "zstd data: decompress it first"},
		{0, "070701", "a cpio archive (an initramfs?)"},
		{0, "!<arch>\n", "an ar archive: if it is a .deb, unpack it with dpkg -x"},
		{0, "#!", "a script"},
		{0x38, "ARM\x64", "an arm64 Image, and an x86-64 kernel is needed"},
	}
	for _, k := range known {
		if len(head) >= k.off && bytes.HasPrefix(head[k.off:], []byte(k.magic)) {
			return k.what
		}
	}
	return fmt.Sprintf("neither an ELF vmlinux nor a bzImage (it starts with %q)", head[:min(len(head), 8)])
}

// readAt fills b from off. A file that ends early is a broken one.
func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read kernel at offset %#x: %w", off, err)
}
