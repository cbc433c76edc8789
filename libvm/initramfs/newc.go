package initramfs

import (
	"fmt"
	"io"
	"math"
)

// The format is newc, as in the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst:
//
//	entry := header name NUL pad4 data pad4
//
// The header is a magic and 13 numbers of 8 hex digits. cavaliergopher/cpio
// reads it but writes no device numbers, which /dev/console needs, so the
// writer is here and the library checks it in the tests.
const newcMagic = "070701"

// File types and permissions of an entry's mode (S_IFREG and the like).
const (
	modeReg  = 0o100000
	modeDir  = 0o040000
	modeChar = 0o020000
)

// entry is one file of the archive. Its owner is root and its mtime the epoch,
// so that the same agent always makes the same archive.
type entry struct {
	name         string            // no leading slash
	mode         uint32            // type and permissions
	major, minor uint32            // of a device node
	data         []byte            // of a regular file
	from         *io.SectionReader // of one that is not in memory; nil: data
}

// size returns the bytes of the entry's content.
func (e entry) size() int64 {
	if e.from != nil {
		return e.from.Size()
	}
	return int64(len(e.data))
}

// archive writes entries to w and keeps the first error.
type archive struct {
	w   io.Writer
	ino uint32 // number of the last entry
	err error
}

func (a *archive) add(e entry) {
	if a.err != nil {
		return
	}
	if e.size() > math.MaxUint32 {
		a.err = fmt.Errorf("%q: %d bytes do not fit a newc archive", e.name, e.size())
		return
	}
	a.ino++
	nlink := 1
	if e.mode&modeDir != 0 {
		nlink = 2
	}
	a.write(header(a.ino, nlink, e))
	a.write(e.data)
	a.copy(e.from)
	a.write(pad(e.size()))
}

// close ends the archive. The kernel stops reading at the trailer.
func (a *archive) close() error {
	a.write(header(0, 1, entry{name: "TRAILER!!!"}))
	return a.err
}

func (a *archive) write(b []byte) {
	if a.err != nil || len(b) == 0 {
		return
	}
	n, err := a.w.Write(b)
	if err == nil && n != len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		a.err = fmt.Errorf("write initramfs: %w", err)
	}
}

// copyBytes is what is copied at a time: it stays in the processor's cache.
const copyBytes = 64 << 10

func (a *archive) copy(r *io.SectionReader) {
	if a.err != nil || r == nil {
		return
	}
	// Not io.Copy's own ways: those of a file are for other files.
	_, err := io.CopyBuffer(struct{ io.Writer }{a.w}, struct{ io.Reader }{r}, make([]byte, copyBytes))
	if err != nil {
		a.err = fmt.Errorf("write initramfs: %w", err)
	}
}

// header returns an entry's header and name with their padding.
func header(ino uint32, nlink int, e entry) []byte {
	// ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor
	// rdevminor namesize check
	h := fmt.Appendf(make([]byte, 0, 128), "%s%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		newcMagic, ino, e.mode, 0, 0, nlink, 0, e.size(), 0, 0, e.major, e.minor, len(e.name)+1, 0, e.name)
	return append(h, pad(int64(len(h)))...)
}

// pad returns the zeros that bring n bytes to a multiple of 4.
func pad(n int64) []byte {
	return make([]byte, -n&3)
}
