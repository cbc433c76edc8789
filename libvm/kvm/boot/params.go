package boot

import (
	"encoding/binary"
	"fmt"

	"runv/libvm/mem"
)

// Offsets in struct boot_params, asm/bootparam.h; the setup_header is a part of
// it, at the same offset as in a bzImage.
const (
	offACPIRSDP      = 0x070 // acpi_rsdp_addr (8)
	offE820Entries   = 0x1e8 // e820_entries (1)
	offSetupHeader   = 0x1f1 // hdr
	offSetupSects    = 0x1f1 // (1)
	offBootFlag      = 0x1fe // 0xaa55 (2)
	offJump          = 0x200 // a short jump over the header: its second byte is the header's length from 0x202
	offHdrS          = 0x202 // "HdrS" (4)
	offVersion       = 0x206 // boot protocol (2)
	offTypeOfLoader  = 0x210 // (1)
	offLoadflags     = 0x211 // (1)
	offRamdiskImage  = 0x218 // (4)
	offRamdiskSize   = 0x21c // (4)
	offCmdLinePtr    = 0x228 // (4)
	offInitrdAddrMax = 0x22c // highest address of the initramfs (4)
	offAlignment     = 0x230 // kernel_alignment (4)
	offRelocatable   = 0x234 // relocatable_kernel (1)
	offXloadflags    = 0x236 // (2)
	offCmdlineSize   = 0x238 // longest command line without its NUL (4)
	offSetupData     = 0x250 // (8)
	offPrefAddress   = 0x258 // pref_address (8)
	offInitSize      = 0x260 // bytes that the kernel needs from where it is loaded, init_size (4)
	offSetupEnd      = 0x290 // where e820_table limits the header
	offE820Table     = 0x2d0 // e820_table, 128 entries of 20 bytes

	paramsBytes = 4096
	maxE820     = 128
)

const (
	loaderUndefined = 0xff // type_of_loader: no id assigned
	loadedHigh      = 1 << 0
	bootFlag        = 0xaa55
	protocol        = 0x20f // 2.15, what a vmlinux is told: it reads no field of the header by version
	cmdlineSize     = 2047  // COMMAND_LINE_SIZE of x86 without the NUL, bytes
)

// bootParams is struct boot_params, paramsBytes long.
type bootParams []byte

func (b bootParams) put32(off int, v uint32) { binary.LittleEndian.PutUint32(b[off:], v) }

func (b bootParams) put64(off int, v uint64) { binary.LittleEndian.PutUint64(b[off:], v) }

// setVmlinux fills in the header of a kernel that has none.
func (b bootParams) setVmlinux() {
	binary.LittleEndian.PutUint16(b[offBootFlag:], bootFlag)
	copy(b[offHdrS:], "HdrS")
	binary.LittleEndian.PutUint16(b[offVersion:], protocol)
	b[offTypeOfLoader] = loaderUndefined
	b[offLoadflags] = loadedHigh
	b.put32(offAlignment, 16<<20)
	b.put32(offCmdlineSize, cmdlineSize)
}

// setInitrd says where the initramfs is, below 4 GiB.
func (b bootParams) setInitrd(at mem.GPA, size uint64) {
	b.put32(offRamdiskImage, uint32(at))
	b.put32(offRamdiskSize, uint32(size))
}

func (b bootParams) setCmdline(at mem.GPA) { b.put32(offCmdLinePtr, uint32(at)) }

func (b bootParams) setRSDP(at mem.GPA) { b.put64(offACPIRSDP, uint64(at)) }

// Types of an e820 entry.
const (
	e820RAM      = 1
	e820Reserved = 2
)

// e820 is struct boot_e820_entry.
type e820 struct {
	addr, size uint64 // bytes
	typ        uint32
}

// memoryMap describes the regions, the first of which has the hole of a PC
// below 1 MiB.
func memoryMap(regions []mem.Region) []e820 {
	m := []e820{
		{0, uint64(lowEnd), e820RAM},
		{uint64(lowEnd), 0xa0000 - uint64(lowEnd), e820Reserved},
		{uint64(TablesStart), uint64(himem - TablesStart), e820Reserved},
	}
	for i, r := range regions {
		at, n := uint64(r.GPA), uint64(len(r.Host))
		if i == 0 {
			at, n = uint64(himem), n-uint64(himem)
		}
		m = append(m, e820{at, n, e820RAM})
	}
	return m
}

func (b bootParams) setE820(m []e820) error {
	if len(m) > maxE820 {
		return fmt.Errorf("memory map of %d entries: at most %d fit", len(m), maxE820)
	}
	b[offE820Entries] = byte(len(m))
	for i, e := range m {
		off := offE820Table + 20*i
		b.put64(off, e.addr)
		b.put64(off+8, e.size)
		b.put32(off+16, e.typ)
	}
	return nil
}
