package uapi

import "structs"

// UserspaceMemoryRegion is struct kvm_userspace_memory_region.
type UserspaceMemoryRegion struct {
	_             structs.HostLayout
	Slot          uint32
	Flags         uint32
	GuestPhysAddr uint64 // bytes
	MemorySize    uint64 // bytes
	UserspaceAddr uint64 // address in this process
}

// Irqfd is struct kvm_irqfd.
type Irqfd struct {
	_          structs.HostLayout
	FD         uint32
	GSI        uint32
	Flags      uint32
	Resamplefd uint32
	_          [16]uint8
}

// Ioeventfd is struct kvm_ioeventfd.
type Ioeventfd struct {
	_         structs.HostLayout
	Datamatch uint64
	Addr      uint64 // guest physical address, or port
	Len       uint32 // bytes of the write: 1, 2, 4 or 8
	FD        int32
	Flags     uint32
	_         [36]uint8
}

// PitConfig is struct kvm_pit_config.
type PitConfig struct {
	_     structs.HostLayout
	Flags uint32
	_     [15]uint32
}

// ClockData is struct kvm_clock_data.
type ClockData struct {
	_        structs.HostLayout
	Clock    uint64 // ns of the kvmclock
	Flags    uint32
	_        uint32
	Realtime uint64 // ns since the epoch
	HostTSC  uint64
	_        [4]uint32
}

// Irqchip is struct kvm_irqchip; Chip is one of the states of its union.
type Irqchip struct {
	_      structs.HostLayout
	ChipID uint32
	_      uint32
	Chip   [512]uint8
}
