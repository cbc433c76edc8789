// Package mem is guest memory as the devices see it: regions of guest physical
// addresses (GPA) that are mapped into this process.
package mem

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
)

// GPA is a guest physical address, in bytes from the start of the guest's
// physical address space.
type GPA uint64

// ErrUnmapped says that a guest address range is not, or not wholly, inside one
// region of guest memory. It is the guest's mistake, never ours.
var ErrUnmapped = errors.New("address outside guest memory")

// Region is one contiguous piece of guest memory. Host holds Size bytes that
// stay mapped for as long as the Memory is in use; the guest changes them at
// any time, so a reader copies a field once, checks the copy, and uses the copy.
type Region struct {
	GPA  GPA
	Host []byte
}

// end is the first GPA behind the region.
func (r Region) end() GPA { return r.GPA + GPA(len(r.Host)) }

// Memory is a set of regions, sorted by GPA. It only ever grows.
type Memory struct {
	regions atomic.Pointer[[]Region]
}

// New makes a Memory of regions, which must not be empty, wrap around the end
// of the address space, or overlap one another.
func New(regions ...Region) (*Memory, error) {
	m := &Memory{}
	if err := m.Set(regions...); err != nil {
		return nil, err
	}
	return m, nil
}

// Set replaces the regions by others, as New takes them, in which all of the present
// ones are, at the same places. A Slice of before stays good.
func (m *Memory) Set(regions ...Region) error {
	rs := slices.Clone(regions)
	slices.SortFunc(rs, func(a, b Region) int {
		switch {
		case a.GPA < b.GPA:
			return -1
		case a.GPA > b.GPA:
			return 1
		}
		return 0
	})
	for i, r := range rs {
		if len(r.Host) == 0 || r.end() < r.GPA {
			return fmt.Errorf("memory region gpa %#x size %#x: empty or wraps", r.GPA, len(r.Host))
		}
		if i > 0 && rs[i-1].end() > r.GPA {
			return fmt.Errorf("memory regions at gpa %#x and %#x overlap", rs[i-1].GPA, r.GPA)
		}
	}
	m.regions.Store(&rs)
	return nil
}

// Regions returns the regions, sorted by GPA. The caller does not change them.
func (m *Memory) Regions() []Region { return *m.regions.Load() }

// Slice returns the n bytes of guest memory that start at gpa, without copying.
// It fails with ErrUnmapped unless one region holds them all. n == 0 gives an
// empty slice wherever gpa points.
func (m *Memory) Slice(gpa GPA, n uint64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	for _, r := range m.Regions() {
		if gpa < r.GPA || gpa >= r.end() {
			continue
		}
		off := uint64(gpa - r.GPA)
		if n > uint64(len(r.Host))-off {
			break
		}
		return r.Host[off : off+n : off+n], nil
	}
	return nil, fmt.Errorf("gpa %#x size %#x: %w", gpa, n, ErrUnmapped)
}
