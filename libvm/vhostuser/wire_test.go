package vhostuser

import (
	"testing"
	"unsafe"
)

// TestLayouts compares the structs with the sizes and offsets of QEMU's, which
// are those of the parsers.
func TestLayouts(t *testing.T) {
	tests := []struct {
		name      string
		got, want uintptr
	}{
		{"VhostUserMsg header", unsafe.Sizeof(header{}), headerBytes},
		{"header.flags", unsafe.Offsetof(header{}.flags), 4},
		{"header.size", unsafe.Offsetof(header{}.size), 8},
		{"vhost_vring_state", unsafe.Sizeof(vringState{}), vringBytes},
		{"vhost_vring_state.num", unsafe.Offsetof(vringState{}.num), 4},
		{"vhost_vring_addr", unsafe.Sizeof(vringAddr{}), vringAddrBytes},
		{"vhost_vring_addr.flags", unsafe.Offsetof(vringAddr{}.flags), 4},
		{"vhost_vring_addr.desc", unsafe.Offsetof(vringAddr{}.desc), 8},
		{"vhost_vring_addr.used", unsafe.Offsetof(vringAddr{}.used), 16},
		{"vhost_vring_addr.avail", unsafe.Offsetof(vringAddr{}.avail), 24},
		{"vhost_vring_addr.log", unsafe.Offsetof(vringAddr{}.log), 32},
		{"VhostUserMemoryRegion", unsafe.Sizeof(memRegion{}), memRegionBytes},
		{"VhostUserMemoryRegion.memory_size", unsafe.Offsetof(memRegion{}.memorySize), 8},
		{"VhostUserMemoryRegion.userspace_addr", unsafe.Offsetof(memRegion{}.userspaceAddr), 16},
		{"VhostUserMemoryRegion.mmap_offset", unsafe.Offsetof(memRegion{}.mmapOffset), 24},
		{"VhostUserConfig", unsafe.Sizeof(configSpace{}), configBytes},
		{"VhostUserConfig.size", unsafe.Offsetof(configSpace{}.size), 4},
		{"VhostUserConfig.flags", unsafe.Offsetof(configSpace{}.flags), 8},
		{"the longest payload", maxPayload, 268},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, tt.got, tt.want)
		}
	}
}

// TestParsers has each field at its place in bytes as the compiler lays them out.
func TestParsers(t *testing.T) {
	h := header{request: 0x01020304, flags: 0x05060708, size: 0x090a0b0c}
	if got := parseHeader(bytesOf(&h)); got != h {
		t.Errorf("parseHeader = %+v, want %+v", got, h)
	}
	v := vringState{index: 0x01020304, num: 0x05060708}
	if got := parseVringState(bytesOf(&v)); got != v {
		t.Errorf("parseVringState = %+v, want %+v", got, v)
	}
	a := vringAddr{index: 1, flags: 2, desc: 3 << 40, used: 4 << 40, avail: 5 << 40, log: 6 << 40}
	if got := parseVringAddr(bytesOf(&a)); got != a {
		t.Errorf("parseVringAddr = %+v, want %+v", got, a)
	}
	r := memRegion{guestPhysAddr: 1 << 40, memorySize: 2 << 40, userspaceAddr: 3 << 40, mmapOffset: 4 << 40}
	if got, err := parseMemTable(append(u64(1), bytesOf(&r)...)); err != nil || len(got) != 1 || got[0] != r {
		t.Errorf("parseMemTable = %+v, %v, want %+v", got, err, r)
	}
	c := configSpace{offset: 7, size: 3, flags: 9}
	if got, data, err := parseConfig(append(bytesOf(&c), "abc"...)); err != nil || got != c || string(data) != "abc" {
		t.Errorf("parseConfig = %+v, %q, %v, want %+v", got, data, err, c)
	}
}

func bytesOf[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }
