package kvm

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"runv/libvm/kvm/uapi"
	"runv/libvm/mem"
	"runv/libvm/vm"
)

// ram is the guest's memory: one memfd, mapped once, of which KVM and the
// devices see the part below the hole and the part above it. Go's garbage
// collector knows nothing of the mapping.
type ram struct {
	fd    *os.File
	host  []byte
	given uint64 // bytes of host that the guest has
	slots uint32 // that KVM knows
	mem   *mem.Memory
}

// newRAM makes size bytes of memory (mem.NewFile), of which the guest has the first
// given.
func newRAM(size, given uint64) (_ *ram, err error) {
	fd, err := mem.NewFile(size)
	if err != nil {
		return nil, err
	}
	r := &ram{fd: fd, given: given}
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
	r.mem, err = mem.New(r.regions(0, given)...)
	return r, err
}

// regions are the bytes of the RAM from begin to end, where the guest has them.
func (r *ram) regions(begin, end uint64) (out []mem.Region) {
	const low = uint64(holeStart)
	if begin < low {
		n := min(end, low)
		out = append(out, mem.Region{GPA: mem.GPA(begin), Host: r.host[begin:n:n]})
	}
	if end > low {
		begin = max(begin, low)
		out = append(out, mem.Region{GPA: mem.GPA(vm.Address(begin)), Host: r.host[begin:end:end]})
	}
	return out
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

// register gives regions to a VM, a slot for each.
func (r *ram) register(vmfd int, regions []mem.Region) error {
	for _, region := range regions {
		slot := uapi.UserspaceMemoryRegion{
			Slot:          r.slots,
			GuestPhysAddr: uint64(region.GPA),
			MemorySize:    uint64(len(region.Host)),
			UserspaceAddr: address(region.Host),
		}
		if _, err := uapi.IoctlPtr(vmfd, uapi.KVM_SET_USER_MEMORY_REGION, &slot, "KVM_SET_USER_MEMORY_REGION"); err != nil {
			return fmt.Errorf("map gpa %#x size %#x: %w", region.GPA, len(region.Host), err)
		}
		r.slots++
	}
	return nil
}

// AddBlock has the guest, and the devices, have the block of RAM at a guest physical
// address, too (vm.Growth). One that they have is left alone.
func (m *Machine) AddBlock(address uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping.Load() {
		return vm.ErrClosed
	}
	r := m.ram
	begin := vm.Offset(address)
	end := begin + vm.BlockBytes
	switch {
	case end <= r.given:
		return nil
	case begin < r.given || end > uint64(len(r.host)):
		return fmt.Errorf("no block of memory at gpa %#x", address)
	}
	if err := r.register(m.vmfd, r.regions(begin, end)); err != nil {
		return err
	}
	r.given = end
	// One region to each side of the hole: what the guest hands over may lie across blocks.
	return r.mem.Set(r.regions(0, end)...)
}

// close unmaps the memory, which nobody may use any more.
func (r *ram) close() {
	if r.host != nil {
		unix.Munmap(r.host) //nolint:errcheck // our own mapping
		r.host = nil
	}
	r.fd.Close() //nolint:errcheck // memory only
}
