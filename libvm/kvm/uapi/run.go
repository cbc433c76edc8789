package uapi

import (
	"structs"
	"sync/atomic"
	"unsafe"
)

// Run is the head of struct kvm_run, the page that a vCPU shares with KVM. It is
// mapped, never allocated by Go.
type Run struct {
	_                          structs.HostLayout
	RequestInterruptWindow     uint8
	ImmediateExit              uint8 // as its first four bytes, see SetImmediateExit
	_                          [6]uint8
	ExitReason                 uint32
	ReadyForInterruptInjection uint8
	IfFlag                     uint8
	Flags                      uint16
	CR8                        uint64
	APICBase                   uint64
	Exit                       [256]uint8 // the union, by ExitReason
}

// RunBytes is the size of struct kvm_run; the mapping is larger.
const RunBytes = 2352

// SetImmediateExit has the next KVM_RUN, or one that a signal interrupts,
// return EINTR at once. It may be called from any thread.
func (r *Run) SetImmediateExit(on bool) {
	// Go's atomics have no byte; the four bytes begin at an aligned address, and
	// the others are ours (request_interrupt_window) or padding.
	word := (*uint32)(unsafe.Pointer(r))
	if on {
		atomic.StoreUint32(word, 1<<8)
	} else {
		atomic.StoreUint32(word, 0)
	}
}

// IO is the union's member for KVM_EXIT_IO.
type IO struct {
	_          structs.HostLayout
	Direction  uint8
	Size       uint8 // bytes of each access
	Port       uint16
	Count      uint32
	DataOffset uint64 // from the start of the mapping
}

// MMIO is the union's member for KVM_EXIT_MMIO.
type MMIO struct {
	_        structs.HostLayout
	PhysAddr uint64
	Data     [8]uint8
	Len      uint32 // bytes
	IsWrite  uint8
}

// FailEntry is the union's member for KVM_EXIT_FAIL_ENTRY.
type FailEntry struct {
	_      structs.HostLayout
	Reason uint64 // hardware_entry_failure_reason
	CPU    uint32
}

// Internal is the union's member for KVM_EXIT_INTERNAL_ERROR.
type Internal struct {
	_        structs.HostLayout
	Suberror uint32
	Ndata    uint32
	Data     [16]uint64
}

// SystemEvent is the union's member for KVM_EXIT_SYSTEM_EVENT.
type SystemEvent struct {
	_     structs.HostLayout
	Type  uint32
	Ndata uint32
	Data  [16]uint64
}

// IO returns what a KVM_EXIT_IO says.
func (r *Run) IO() *IO { return (*IO)(unsafe.Pointer(&r.Exit)) }

// MMIO returns what a KVM_EXIT_MMIO says.
func (r *Run) MMIO() *MMIO { return (*MMIO)(unsafe.Pointer(&r.Exit)) }

// FailEntry returns what a KVM_EXIT_FAIL_ENTRY says.
func (r *Run) FailEntry() *FailEntry { return (*FailEntry)(unsafe.Pointer(&r.Exit)) }

// Internal returns what a KVM_EXIT_INTERNAL_ERROR says.
func (r *Run) Internal() *Internal { return (*Internal)(unsafe.Pointer(&r.Exit)) }

// SystemEvent returns what a KVM_EXIT_SYSTEM_EVENT says.
func (r *Run) SystemEvent() *SystemEvent { return (*SystemEvent)(unsafe.Pointer(&r.Exit)) }
