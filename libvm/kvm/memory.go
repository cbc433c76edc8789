package kvm

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"runv/libvm/kvm/uapi"
	"runv/libvm/mem"
)

// ram is the guest's memory: one memfd, mapped once, of which KVM and the
// devices see the part below the hole and the part above it. Go's garbage
// collector knows nothing of the mapping.
type ram struct {
	fd   *os.File
	host []byte
	mem  *mem.Memory
}

// newRAM makes size bytes of memory (mem.NewFile).
func newRAM(size uint64) (_ *ram, err error) {
	fd, err := mem.NewFile(size)
	if err != nil {
		return nil, err
	}
	r := &ram{fd: fd}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.host, err = unix.Mmap(int(fd.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE); err != nil {
		return nil, fmt.Errorf("map %d MiB of guest memory: %w", size>>20, os.NewSyscallError("mmap", err))
	}
	// A core dump of the monitor is no place for it; huge pages where the host
	// has them for shared memory.
	unix.Madvise(r.host, unix.MADV_DONTDUMP) //nolint:errcheck // advice
	unix.Madvise(r.host, unix.MADV_HUGEPAGE) //nolint:errcheck // advice
	regions := []mem.Region{{GPA: 0, Host: r.host}}
	if size > uint64(holeStart) {
		regions = []mem.Region{{GPA: 0, Host: r.host[:holeStart:holeStart]}, {GPA: holeEnd, Host: r.host[holeStart:]}}
	}
	r.mem, err = mem.New(regions...)
	return r, err
}

// mapOver maps whole pages of f over dst, a part of a ram: the page cache's until
// the guest writes to them. They go with the ram. A file that is changed in place
// changes in guests that run, and one that is cut short ends them; kernels are
// installed by rename.
func mapOver(dst []byte, f *os.File, off int64) error {
	_, err := unix.MmapPtr(int(f.Fd()), off, unsafe.Pointer(unsafe.SliceData(dst)), uintptr(len(dst)),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	// All at once is cheaper than a fault for each page (Linux 5.14).
	unix.Madvise(dst, unix.MADV_POPULATE_READ) //nolint:errcheck // advice
	return nil
}

// register gives the memory to a VM, a slot for each region.
func (r *ram) register(vmfd int) error {
	for i, region := range r.mem.Regions() {
		slot := uapi.UserspaceMemoryRegion{
			Slot:          uint32(i),
			GuestPhysAddr: uint64(region.GPA),
			MemorySize:    uint64(len(region.Host)),
			UserspaceAddr: address(region.Host),
		}
		if _, err := uapi.IoctlPtr(vmfd, uapi.KVM_SET_USER_MEMORY_REGION, &slot, "KVM_SET_USER_MEMORY_REGION"); err != nil {
			return fmt.Errorf("map gpa %#x size %#x: %w", region.GPA, len(region.Host), err)
		}
	}
	return nil
}

// close unmaps the memory, which nobody may use any more.
func (r *ram) close() {
	if r.host != nil {
		unix.Munmap(r.host) //nolint:errcheck // our own mapping
		r.host = nil
	}
	r.fd.Close() //nolint:errcheck // memory only
}
