package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"runv/libvm/mem"
)

const (
	sectorSize = 512   // bytes
	entry64    = 0x200 // of the 64-bit entry point from the start of the protected-mode code
)

// loadBzImage loads the protected-mode part of a bzImage, which kernel.Inspect
// has accepted (protocol 2.12 or later, with a 64-bit entry point), and takes
// its header over. The kernel decompresses itself.
func (l *loader) loadBzImage(f File) error {
	head := make(bootParams, offSetupEnd)
	if n, err := f.ReadAt(head, 0); n < len(head) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read bzImage header: %w", err)
	}
	le := binary.LittleEndian
	sects := int64(head[offSetupSects])
	if sects == 0 {
		sects = 4
	}
	setup := (sects + 1) * sectorSize
	if setup >= f.Size {
		return fmt.Errorf("bzImage truncated: %d bytes, and the setup code alone is %d", f.Size, setup)
	}
	at := himem
	if head[offRelocatable] != 0 {
		at = mem.GPA(le.Uint64(head[offPrefAddress:]))
	}
	code, need := uint64(f.Size-setup), uint64(le.Uint32(head[offInitSize:]))
	need = max(need, code)
	if at < himem || at >= l.low || need > uint64(l.low-at) {
		return fmt.Errorf("bzImage needs %#x bytes at gpa %#x, memory from %#x to %#x: %w", need, at, himem, l.low, ErrTooSmall)
	}
	if code <= entry64 {
		return fmt.Errorf("bzImage truncated: %d bytes of code", code)
	}
	if err := l.read(f, setup, at, code); err != nil {
		return fmt.Errorf("bzImage: %w", err)
	}
	// The header ends where the jump at its beginning leads to.
	end := min(offHdrS+int(head[offJump+1]), offSetupEnd)
	copy(l.params[offSetupHeader:end], head[offSetupHeader:end])
	l.params[offTypeOfLoader] = loaderUndefined
	l.params.put64(offSetupData, 0) // a list of ours, and we have none
	l.entry, l.end = at+entry64, at+mem.GPA(need)
	l.initMax = mem.GPA(le.Uint32(head[offInitrdAddrMax:])) + 1
	l.cmdMax = int(min(le.Uint32(head[offCmdlineSize:]), cmdlineSize))
	return nil
}
