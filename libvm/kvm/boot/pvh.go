package boot

import (
	"encoding/binary"

	"runv/libvm/mem"
)

// The sizes of what a kernel that is entered by PVH reads (Xen's
// public/arch-x86/hvm/start_info.h, version 1), in bytes, and where it is: the
// start info at the place of boot_params, its tables behind it.
const (
	startInfoBytes = 56
	moduleBytes    = 32
	memmapBytes    = 24

	startInfoMagic   = 0x336ec578
	startInfoVersion = 1

	modulesStart = paramsStart + 0x100
	memmapStart  = paramsStart + 0x200
)

// writeStartInfo writes struct hvm_start_info, with one module, the initramfs.
func (l *loader) writeStartInfo(p Params) error {
	regions := memoryMap(l.mem.Regions())
	page, err := l.mem.Slice(paramsStart, uint64(memmapStart-paramsStart)+uint64(len(regions))*memmapBytes)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	info := page[:startInfoBytes]
	le.PutUint32(info[0:], startInfoMagic)
	le.PutUint32(info[4:], startInfoVersion)
	if p.Initrd.Size > 0 {
		le.PutUint32(info[12:], 1) // nr_modules
		le.PutUint64(info[16:], uint64(modulesStart))
		m := page[modulesStart-paramsStart:][:moduleBytes]
		le.PutUint64(m[0:], uint64(l.initrd))
		le.PutUint64(m[8:], uint64(p.Initrd.Size))
	}
	le.PutUint64(info[24:], uint64(cmdStart))
	le.PutUint64(info[32:], uint64(p.RSDP))
	le.PutUint64(info[40:], uint64(memmapStart))
	le.PutUint32(info[48:], uint32(len(regions)))
	for i, r := range regions {
		e := page[memmapStart-paramsStart+mem.GPA(i)*memmapBytes:][:memmapBytes]
		le.PutUint64(e[0:], r.addr)
		le.PutUint64(e[8:], r.size)
		le.PutUint32(e[16:], r.typ)
	}
	return nil
}
