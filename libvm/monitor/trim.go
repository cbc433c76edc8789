package monitor

import (
	"context"
	"debug/elf"
	"os"
	"runtime/debug"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// trimDelay is how long after its container was made the monitor trims its
// memory: not while it has work that somebody waits for.
const trimDelay = time.Second

// trimLater gives back, after a while, what the monitor needed to start. It
// returns when that is done or ctx has ended.
func trimLater(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(trimDelay):
		trim()
	}
}

// trim gives back the heap's free pages, and unmaps the program's pages: those
// that the monitor still uses come back from the page cache, at a fault for
// sixteen of them, and make less than a fifth. The others served the start.
func trim() {
	debug.FreeOSMemory()
	for _, s := range readOnlySegments() {
		unix.Madvise(s, unix.MADV_DONTNEED) //nolint:errcheck // what stays costs memory only
	}
}

// Entries of the auxiliary vector, uapi/linux/auxvec.h.
const (
	atPHDR  = 3 // address of the program headers
	atPHENT = 4 // bytes of one
	atPHNUM = 5
)

// readOnlySegments returns the parts of this program, as it is mapped, that
// nothing can have written to: code and constants.
func readOnlySegments() [][]byte {
	vector, err := unix.Auxv()
	if err != nil {
		return nil
	}
	aux := map[uintptr]uintptr{}
	for _, e := range vector {
		aux[e[0]] = e[1]
	}
	if aux[atPHDR] == 0 || aux[atPHENT] != unsafe.Sizeof(elf.Prog64{}) {
		return nil
	}
	headers := unsafe.Slice((*elf.Prog64)(pointer(aux[atPHDR])), aux[atPHNUM])
	return readOnly(headers, aux[atPHDR])
}

// readOnly returns those of the segments that are read-only, in whole pages, given
// the address at which the headers are. PT_PHDR says where the linker put them:
// that is elsewhere if the program is position-independent.
func readOnly(headers []elf.Prog64, at uintptr) [][]byte {
	var bias uintptr
	var segments [][]byte
	page := uintptr(os.Getpagesize())
	for _, h := range headers {
		switch elf.ProgType(h.Type) {
		case elf.PT_PHDR:
			bias = at - uintptr(h.Vaddr)
		case elf.PT_LOAD:
			if elf.ProgFlag(h.Flags)&elf.PF_W != 0 {
				continue
			}
			begin := (bias + uintptr(h.Vaddr) + page - 1) &^ (page - 1)
			end := (bias + uintptr(h.Vaddr+h.Filesz)) &^ (page - 1)
			if begin < end {
				segments = append(segments, unsafe.Slice((*byte)(pointer(begin)), end-begin))
			}
		}
	}
	return segments
}

// pointer makes an address a pointer; what is there is none of Go's memory.
func pointer(address uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&address)) }
