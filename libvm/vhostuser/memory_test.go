package vhostuser

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"runv/libvm/mem"
	"runv/libvm/virtio/rng"
)

func TestMapTable(t *testing.T) {
	const page = 4096
	memfd := newMemfd(t, 4*page, 0)
	defer unix.Close(memfd) //nolint:errcheck // ours
	plain, err := os.Create(filepath.Join(t.TempDir(), "ram"))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close() //nolint:errcheck // a test's
	if err := plain.Truncate(4 * page); err != nil {
		t.Fatal(err)
	}
	unsealable, err := unix.MemfdCreate("ram", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(unsealable) //nolint:errcheck // ours
	region := func(gpa, size, uva, off uint64) memRegion {
		return memRegion{guestPhysAddr: gpa, memorySize: size, userspaceAddr: uva, mmapOffset: off}
	}
	tests := []struct {
		name    string
		regions []memRegion
		fds     []int
		sealErr bool
	}{
		{"behind the end", []memRegion{region(0, 4*page, 0, 1)}, []int{memfd}, false},
		{"offset behind the end", []memRegion{region(0, 1, 0, 5*page)}, []int{memfd}, false},
		{"end wraps", []memRegion{region(0, math.MaxUint64, 0, page)}, []int{memfd}, false},
		{"huge", []memRegion{region(0, 1<<62, 0, 0)}, []int{memfd}, false},
		{"empty", []memRegion{region(0, 0, 0, 0)}, []int{memfd}, false},
		{"front-end address wraps", []memRegion{region(0, 2*page, math.MaxUint64-page, 0)}, []int{memfd}, false},
		{"guest address wraps", []memRegion{region(math.MaxUint64-page, 2*page, 0, 0)}, []int{memfd}, false},
		{"overlap", []memRegion{region(0, 2*page, 0, 0), region(page, page, 1<<30, 0)}, []int{memfd, memfd}, false},
		{"not a memfd", []memRegion{region(0, page, 0, 0)}, []int{int(plain.Fd())}, true},
		{"memfd that forbids seals", []memRegion{region(0, page, 0, 0)}, []int{unsealable}, true},
		{"second one is bad", []memRegion{region(0, page, 0, 0), region(1<<30, page, 0, 0)}, []int{memfd, int(plain.Fd())}, true},
		{"descriptor too many", []memRegion{region(0, page, 0, 0)}, []int{memfd, memfd}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tab, err := mapTable(tt.regions, tt.fds)
			if err == nil {
				tab.unmap()
				t.Fatal("mapTable took it")
			}
			if errors.Is(err, errNotSealed) != tt.sealErr {
				t.Errorf("mapTable: %v, sealing error %v", err, tt.sealErr)
			}
		})
	}
}

// TestMapTableSeals: the file that we map cannot be cut off under us, though it
// came without a seal; and bytes and addresses are where they should be.
func TestMapTableSeals(t *testing.T) {
	const page = 4096
	memfd := newMemfd(t, 4*page, 0)
	defer unix.Close(memfd) //nolint:errcheck // ours
	for i := range 4 {
		if _, err := unix.Pwrite(memfd, []byte{byte('a' + i)}, int64(i*page)); err != nil {
			t.Fatal(err)
		}
	}
	regions := []memRegion{
		{guestPhysAddr: 0x100000, memorySize: page, userspaceAddr: 0x7000, mmapOffset: 3 * page},
		{guestPhysAddr: 0, memorySize: 2 * page, userspaceAddr: 0x10000, mmapOffset: page},
	}
	tab, err := mapTable(regions, []int{memfd, memfd})
	if err != nil {
		t.Fatal(err)
	}
	defer tab.unmap()
	if err := unix.Ftruncate(memfd, page); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncate of mapped memory: %v, want EPERM", err)
	}
	for uva, want := range map[uint64]byte{0x7000: 'd', 0x10000: 'b', 0x11000: 'c'} {
		gpa, err := tab.gpa(uva)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := tab.mem.Slice(gpa, 1); err != nil || s[0] != want {
			t.Errorf("byte at %#x (gpa %#x): %q, %v, want %q", uva, gpa, s, err, want)
		}
	}
	for _, uva := range []uint64{0, 0x6fff, 0x8000, 0xffff, 0x12000, math.MaxUint64} {
		if gpa, err := tab.gpa(uva); !errors.Is(err, mem.ErrUnmapped) {
			t.Errorf("gpa of %#x = %#x, %v, want ErrUnmapped", uva, gpa, err)
		}
	}
}

// TestMemoryIsReplaced: a running device goes on in new memory, and is left alone
// by the same memory.
func TestMemoryIsReplaced(t *testing.T) {
	d := &Recorder{Device: rng.New()}
	f := newFrontend(t, d)
	f.connect(1)
	f.boot(defaultFeatures, 1, 0)
	f.request(0, f.calls[0], room(8))
	f.ok(VHOST_USER_SET_MEM_TABLE, memTable(wholeRAM), f.memfd)
	if got := len(d.Started()); got != 1 {
		t.Errorf("the same memory started the device again (%d)", got)
	}
	half := wholeRAM
	half.memorySize /= 2
	f.ok(VHOST_USER_SET_MEM_TABLE, memTable(half), f.memfd)
	if u := f.request(0, f.calls[0], room(8)); u.Len != 8 {
		t.Errorf("%d bytes, want 8", u.Len)
	}
	if got := len(d.Started()); got != 2 {
		t.Errorf("device was started %d times, want 2", got)
	}
}
