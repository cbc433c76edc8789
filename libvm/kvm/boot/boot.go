// Package boot puts a kernel into a guest's memory, ready to be entered: Linux
// in long mode, others by PVH in protected mode. For Linux it follows Documentation/x86/boot.rst of Linux 6.1 ("The Linux/x86
// Boot Protocol", 64-bit Boot Protocol) for bzImage and vmlinux alike: a vmlinux
// has the same entry point, with the registers and boot_params that the
// decompressor of a bzImage would pass on.
//
// The kernel's file comes from anyone: whatever is read from it is checked
// against the guest's memory before it is used.
package boot

import (
	"errors"
	"fmt"
	"io"

	"runv/libvm/kernel"
	"runv/libvm/mem"
)

// Where things are in the first MiB of a guest. The kernel treats all of it as
// free, but for what the e820 map reserves, once it has copied what it needs.
//
//	0x00500  GDT, 4 entries
//	0x07000  boot_params                      1 page
//	0x08000  stack, grows down from 0x8ff0    1 page
//	0x09000  page tables: PML4, PDPT, 4 PDs   6 pages
//	0x20000  command line                     1 page
//	0x9fc00  end of conventional memory
//	0xe0000  ACPI tables (TablesStart)        64 KiB, reserved
//	0xf0000  MP tables (MPTableStart)         64 KiB, reserved
const (
	gdtStart    mem.GPA = 0x500
	paramsStart mem.GPA = 0x7000
	stackTop    mem.GPA = 0x8ff0
	pml4Start   mem.GPA = 0x9000
	cmdStart    mem.GPA = 0x20000
	lowEnd      mem.GPA = 0x9fc00

	// TablesStart is where ACPI tables belong: the root pointer of a PC is
	// searched for from here on, too.
	TablesStart mem.GPA = 0xe0000
	// TablesSize is the room for them, in bytes.
	TablesSize = 64 << 10

	// MPTableStart is where Linux looks for an Intel MP table.
	MPTableStart mem.GPA = 0xf0000

	himem mem.GPA = 1 << 20 // where kernels begin
)

// maxInitrd is the first address that no kernel is asked to find its initramfs
// at or above, in bytes: initrd_addr_max of a 64-bit kernel plus one.
const maxInitrd mem.GPA = 0x8000_0000

const pageSize = 4096 // bytes

// ErrTooSmall says that the guest's memory does not hold kernel and initramfs.
var ErrTooSmall = errors.New("not enough memory for the kernel and its initramfs")

// File is a file to load from, of Size bytes.
type File struct {
	io.ReaderAt
	Size int64
	// Map, if not nil, maps len(dst) bytes of the file at off over dst, private
	// to the guest: what it does not write costs no memory and no time. All are
	// whole pages. What cannot be mapped is read.
	Map func(off int64, dst []byte) error
}

// Params is what a kernel gets besides itself.
type Params struct {
	Cmdline string
	Initrd  File    // Size 0: none
	RSDP    mem.GPA // ACPI's root pointer, 0 if there is none
	// PVH has a vmlinux entered by its PVH note. An ELF kernel that is no Linux
	// always is, if it has one.
	PVH bool
}

// State is how the first vCPU enters the kernel: on flat segments, in long mode on
// page tables that map the first 4 GiB to themselves, or in protected mode
// without paging.
type State struct {
	Protected bool // in 32-bit protected mode, with RBX: the PVH start info
	RBX       mem.GPA

	RIP, RSP, RSI mem.GPA // RSI: boot_params
	CR3           mem.GPA
	GDT           mem.GPA
	GDTLimit      uint16 // bytes - 1
	// InitrdStart is where the initramfs is, for whoever wants to see it.
	InitrdStart mem.GPA
}

// Load puts the kernel in k and everything it needs into m, whose first region
// begins at 0 and is still zero.
func Load(m *mem.Memory, k File, p Params) (State, error) {
	im, err := kernel.Inspect(k, k.Size)
	if err != nil {
		return State{}, err
	}
	regions := m.Regions()
	if len(regions) == 0 || regions[0].GPA != 0 || uint64(len(regions[0].Host)) <= uint64(himem) {
		return State{}, fmt.Errorf("boot: %w", ErrTooSmall)
	}
	l := &loader{mem: m, low: mem.GPA(len(regions[0].Host)), params: make(bootParams, paramsBytes)}
	switch im.Format {
	case kernel.ELF:
		l.pvh = im.PVHEntry != 0 && (p.PVH || im.Release == "")
		err = l.loadELF(k, mem.GPA(im.PVHEntry))
	case kernel.BzImage:
		err = l.loadBzImage(k)
	default:
		err = fmt.Errorf("boot: kernel of format %v", im.Format)
	}
	if err != nil {
		return State{}, err
	}
	if err := l.loadInitrd(p.Initrd); err != nil {
		return State{}, err
	}
	if err := l.finish(p); err != nil {
		return State{}, err
	}
	s := state(l.entry)
	s.InitrdStart = l.initrd
	if l.pvh {
		s = State{Protected: true, RBX: paramsStart, RIP: l.entry, GDT: gdtStart, GDTLimit: s.GDTLimit, InitrdStart: l.initrd}
	}
	return s, nil
}

func state(entry mem.GPA) State {
	return State{RIP: entry, RSP: stackTop, RSI: paramsStart, CR3: pml4Start, GDT: gdtStart, GDTLimit: gdtEntries*8 - 1}
}

// loader is a kernel on its way into memory.
type loader struct {
	mem     *mem.Memory
	low     mem.GPA // end of the memory below the hole
	params  bootParams
	pvh     bool // entered by PVH
	entry   mem.GPA
	end     mem.GPA // first address behind what the kernel needs to start
	initMax mem.GPA // first address at which the initramfs may not be
	cmdMax  int     // bytes of the command line, without its NUL
	initrd  mem.GPA
}

// read fills n bytes of guest memory at gpa from the file: whole pages are
// mapped, the rest is read, without a copy in between. The range must be memory
// that a kernel may occupy.
func (l *loader) read(f File, off int64, gpa mem.GPA, n uint64) error {
	if gpa < himem || gpa > l.low || n > uint64(l.low-gpa) {
		return fmt.Errorf("load %#x bytes at gpa %#x, memory up to %#x: %w", n, gpa, l.low, ErrTooSmall)
	}
	dst, err := l.mem.Slice(gpa, n)
	if err != nil {
		return err
	}
	if f.Map != nil && gpa%pageSize == 0 && off%pageSize == 0 && n >= pageSize {
		if off < 0 || uint64(off) > uint64(f.Size) || n > uint64(f.Size-off) {
			return fmt.Errorf("map %#x bytes at offset %#x: %w", n, off, io.ErrUnexpectedEOF)
		}
		whole := n &^ (pageSize - 1)
		if err := f.Map(off, dst[:whole]); err != nil {
			return fmt.Errorf("map %#x bytes at offset %#x: %w", whole, off, err)
		}
		dst, off = dst[whole:], off+int64(whole)
	}
	if got, err := f.ReadAt(dst, off); got < len(dst) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read %#x bytes at offset %#x: %w", n, off, err)
	}
	return nil
}

// loadInitrd puts the initramfs as high as it may be: away from the kernel,
// which may unpack or move itself upwards.
func (l *loader) loadInitrd(f File) error {
	if f.Size == 0 {
		return nil
	}
	top := min(l.low, l.initMax)
	if f.Size < 0 || uint64(f.Size) > uint64(top) {
		return fmt.Errorf("initramfs of %d bytes: %w", f.Size, ErrTooSmall)
	}
	at := (top - mem.GPA(f.Size)) &^ (pageSize - 1)
	if at < l.end {
		return fmt.Errorf("kernel up to gpa %#x, initramfs of %d bytes from %#x: %w", l.end, f.Size, at, ErrTooSmall)
	}
	if err := l.read(f, 0, at, uint64(f.Size)); err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	l.initrd = at
	l.params.setInitrd(at, uint64(f.Size))
	return nil
}

// finish writes what the kernel reads when it starts: command line, boot_params,
// descriptor and page tables.
func (l *loader) finish(p Params) error {
	if len(p.Cmdline) > l.cmdMax {
		return fmt.Errorf("kernel command line of %d bytes: the kernel takes %d", len(p.Cmdline), l.cmdMax)
	}
	cmd, err := l.mem.Slice(cmdStart, uint64(len(p.Cmdline))+1)
	if err != nil {
		return err
	}
	copy(cmd, p.Cmdline)
	if l.pvh {
		if err := l.writeStartInfo(p); err != nil {
			return err
		}
		return writeTables(l.mem)
	}
	l.params.setCmdline(cmdStart)
	l.params.setRSDP(p.RSDP)
	if err := l.params.setE820(memoryMap(l.mem.Regions())); err != nil {
		return err
	}
	page, err := l.mem.Slice(paramsStart, paramsBytes)
	if err != nil {
		return err
	}
	copy(page, l.params)
	return writeTables(l.mem)
}
