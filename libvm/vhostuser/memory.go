package vhostuser

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"runv/libvm/mem"
)

// table is the guest's memory, as the front-end described it and as we mapped
// it. It stays mapped until unmap, which comes after the queues have stopped.
type table struct {
	mem     *mem.Memory
	regions []memRegion
	files   []fileID // what is mapped: whether a new table is the old one
	maps    [][]byte
}

// fileID tells two files apart.
type fileID struct{ dev, ino uint64 }

// errNotSealed: a mapping of a file that can shrink is a SIGBUS in waiting, and
// a SIGBUS is the end of the process, not of the connection.
var errNotSealed = errors.New("cannot be sealed against shrinking (use memory-backend-memfd)")

// mapTable maps regions, each of which is in the descriptor of the same index.
// The descriptors stay the caller's: a mapping does not need its own.
func mapTable(regions []memRegion, fds []int) (*table, error) {
	if len(regions) != len(fds) {
		return nil, fmt.Errorf("%d descriptors for %d memory regions", len(fds), len(regions))
	}
	t := &table{regions: regions}
	var rs []mem.Region
	for i, r := range regions {
		host, err := t.mapRegion(r, fds[i])
		if err != nil {
			t.unmap()
			return nil, fmt.Errorf("memory region gpa %#x size %#x: %w", r.guestPhysAddr, r.memorySize, err)
		}
		rs = append(rs, mem.Region{GPA: mem.GPA(r.guestPhysAddr), Host: host})
	}
	m, err := mem.New(rs...)
	if err != nil {
		t.unmap()
		return nil, err
	}
	t.mem = m
	return t, nil
}

// mapRegion maps r and returns its bytes.
func (t *table) mapRegion(r memRegion, fd int) ([]byte, error) {
	st, err := sealed(fd)
	if err != nil {
		return nil, err
	}
	end := r.mmapOffset + r.memorySize
	if r.memorySize == 0 || end < r.memorySize || st.Size < 0 || end > uint64(st.Size) {
		return nil, fmt.Errorf("offset %#x in a file of %#x bytes", r.mmapOffset, st.Size)
	}
	if r.userspaceAddr+r.memorySize < r.memorySize {
		return nil, fmt.Errorf("front-end address %#x wraps", r.userspaceAddr)
	}
	// The block size is the page size, 4 KiB or that of the huge pages.
	page := uint64(max(st.Blksize, int64(unix.Getpagesize())))
	below := r.mmapOffset % page
	length := (below + r.memorySize + page - 1) / page * page
	m, err := unix.Mmap(fd, int64(r.mmapOffset-below), int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	t.maps = append(t.maps, m)
	t.files = append(t.files, fileID{dev: st.Dev, ino: st.Ino})
	return m[below : below+r.memorySize : below+r.memorySize], nil
}

// sealed makes sure that fd's file cannot shrink any more, and returns its
// status, whose size is a lower bound from now on.
func sealed(fd int) (*unix.Stat_t, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotSealed, os.NewSyscallError("fcntl", err))
	}
	if seals&unix.F_SEAL_SHRINK == 0 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK); err != nil {
			return nil, fmt.Errorf("%w: %w", errNotSealed, os.NewSyscallError("fcntl", err))
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	return &st, nil
}

// same says whether regions in fds are what is mapped already.
func (t *table) same(regions []memRegion, fds []int) bool {
	if t == nil || len(regions) != len(t.regions) || len(regions) != len(fds) {
		return false
	}
	for i, r := range regions {
		var st unix.Stat_t
		if r != t.regions[i] || unix.Fstat(fds[i], &st) != nil || t.files[i] != (fileID{dev: st.Dev, ino: st.Ino}) {
			return false
		}
	}
	return true
}

// gpa translates an address of the front-end.
func (t *table) gpa(uva uint64) (mem.GPA, error) {
	for _, r := range t.regions {
		if uva >= r.userspaceAddr && uva-r.userspaceAddr < r.memorySize {
			return mem.GPA(r.guestPhysAddr + (uva - r.userspaceAddr)), nil
		}
	}
	return 0, fmt.Errorf("front-end address %#x: %w", uva, mem.ErrUnmapped)
}

// unmap ends the mappings. Nothing may use them any more.
func (t *table) unmap() {
	if t == nil {
		return
	}
	for _, m := range t.maps {
		unix.Munmap(m) //nolint:errcheck // it fails only for what is not mapped
	}
	t.maps, t.mem = nil, nil
}
