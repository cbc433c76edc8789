package uapi

import "structs"

// Regs is struct kvm_regs.
type Regs struct {
	_                                    structs.HostLayout
	RAX, RBX, RCX, RDX                   uint64
	RSI, RDI, RSP, RBP                   uint64
	R8, R9, R10, R11, R12, R13, R14, R15 uint64
	RIP, RFLAGS                          uint64
}

// Segment is struct kvm_segment.
type Segment struct {
	_        structs.HostLayout
	Base     uint64
	Limit    uint32
	Selector uint16
	Type     uint8
	Present  uint8
	DPL      uint8
	DB       uint8
	S        uint8
	L        uint8
	G        uint8
	AVL      uint8
	Unusable uint8
	_        uint8
}

// Dtable is struct kvm_dtable.
type Dtable struct {
	_     structs.HostLayout
	Base  uint64
	Limit uint16
	_     [3]uint16
}

// Sregs is struct kvm_sregs.
type Sregs struct {
	_                       structs.HostLayout
	CS, DS, ES, FS, GS, SS  Segment
	TR, LDT                 Segment
	GDT, IDT                Dtable
	CR0, CR2, CR3, CR4, CR8 uint64
	EFER                    uint64
	APICBase                uint64
	InterruptBitmap         [4]uint64
}

// MPState is struct kvm_mp_state.
type MPState struct {
	_       structs.HostLayout
	MPState uint32
}

// LAPICState is struct kvm_lapic_state: the registers of the local APIC, each
// 4 bytes at a multiple of 16.
type LAPICState struct {
	_    structs.HostLayout
	Regs [1024]uint8
}

// VCPUEvents is struct kvm_vcpu_events, pending events of a vCPU.
type VCPUEvents struct {
	_                   structs.HostLayout
	Exception           [8]uint8 // injected, nr, has_error_code, pending, error_code
	Interrupt           [4]uint8 // injected, nr, soft, shadow
	NMI                 [4]uint8 // injected, pending, masked, pad
	SIPIVector          uint32
	Flags               uint32
	SMI                 [4]uint8 // smm, pending, smm_inside_nmi, latched_init
	TripleFault         uint8
	_                   [26]uint8
	ExceptionHasPayload uint8
	ExceptionPayload    uint64
}

// DebugRegs is struct kvm_debugregs.
type DebugRegs struct {
	_     structs.HostLayout
	DB    [4]uint64
	DR6   uint64
	DR7   uint64
	Flags uint64
	_     [9]uint64
}

// Xsave is struct kvm_xsave.
type Xsave struct {
	_      structs.HostLayout
	Region [1024]uint32
}

// Xcrs is struct kvm_xcrs.
type Xcrs struct {
	_      structs.HostLayout
	NrXcrs uint32
	Flags  uint32
	Xcrs   [16]Xcr
	_      [16]uint64
}

// Xcr is struct kvm_xcr.
type Xcr struct {
	_     structs.HostLayout
	Xcr   uint32
	_     uint32
	Value uint64
}

// CPUIDEntry2 is struct kvm_cpuid_entry2.
type CPUIDEntry2 struct {
	_                  structs.HostLayout
	Function           uint32
	Index              uint32
	Flags              uint32
	EAX, EBX, ECX, EDX uint32
	_                  [3]uint32
}

// MaxCPUIDEntries bounds a CPUID2, as KVM itself does (KVM_MAX_CPUID_ENTRIES).
const MaxCPUIDEntries = 256

// CPUID2 is struct kvm_cpuid2 with room for the entries that follow it.
type CPUID2 struct {
	_       structs.HostLayout
	Nent    uint32
	_       uint32
	Entries [MaxCPUIDEntries]CPUIDEntry2
}

// MSREntry is struct kvm_msr_entry.
type MSREntry struct {
	_     structs.HostLayout
	Index uint32
	_     uint32
	Data  uint64
}

// MaxMSRs bounds an MSRs, as KVM itself does (MAX_IO_MSRS).
const MaxMSRs = 256

// MSRs is struct kvm_msrs with room for the entries that follow it.
type MSRs struct {
	_       structs.HostLayout
	NMSRs   uint32
	_       uint32
	Entries [MaxMSRs]MSREntry
}
