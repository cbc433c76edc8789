// Package uapi is the kernel's KVM interface, linux/kvm.h and asm/kvm.h of
// Linux 6.1 for x86-64, under its own names. A struct says which C struct it
// lays out, and the tests hold it to that.
package uapi

// KVM_API_VERSION is the version that KVM_GET_API_VERSION must return: it has
// not changed since Linux 2.6.22.
const KVM_API_VERSION = 12

// ioctls of /dev/kvm.
const (
	KVM_GET_API_VERSION     = 0xae00
	KVM_CREATE_VM           = 0xae01
	KVM_GET_MSR_INDEX_LIST  = 0xc004ae02
	KVM_CHECK_EXTENSION     = 0xae03
	KVM_GET_VCPU_MMAP_SIZE  = 0xae04
	KVM_GET_SUPPORTED_CPUID = 0xc008ae05
)

// ioctls of a VM.
const (
	KVM_CREATE_VCPU            = 0xae41
	KVM_SET_USER_MEMORY_REGION = 0x4020ae46
	KVM_SET_TSS_ADDR           = 0xae47
	KVM_SET_IDENTITY_MAP_ADDR  = 0x4008ae48
	KVM_CREATE_IRQCHIP         = 0xae60
	KVM_GET_IRQCHIP            = 0xc208ae62
	KVM_SET_IRQCHIP            = 0x8208ae63
	KVM_IRQFD                  = 0x4020ae76
	KVM_CREATE_PIT2            = 0x4040ae77
	KVM_IOEVENTFD              = 0x4040ae79
	KVM_SET_CLOCK              = 0x4030ae7b
	KVM_GET_CLOCK              = 0x8030ae7c
)

// ioctls of a vCPU.
const (
	KVM_RUN             = 0xae80
	KVM_GET_REGS        = 0x8090ae81
	KVM_SET_REGS        = 0x4090ae82
	KVM_GET_SREGS       = 0x8138ae83
	KVM_SET_SREGS       = 0x4138ae84
	KVM_GET_MSRS        = 0xc008ae88
	KVM_SET_MSRS        = 0x4008ae89
	KVM_GET_LAPIC       = 0x8400ae8e
	KVM_SET_LAPIC       = 0x4400ae8f
	KVM_SET_CPUID2      = 0x4008ae90
	KVM_GET_MP_STATE    = 0x8004ae98
	KVM_SET_MP_STATE    = 0x4004ae99
	KVM_GET_VCPU_EVENTS = 0x8040ae9f
	KVM_SET_VCPU_EVENTS = 0x4040aea0
	KVM_GET_DEBUGREGS   = 0x8080aea1
	KVM_SET_DEBUGREGS   = 0x4080aea2
	KVM_SET_TSC_KHZ     = 0xaea2
	KVM_GET_TSC_KHZ     = 0xaea3
	KVM_GET_XSAVE       = 0x9000aea4
	KVM_SET_XSAVE       = 0x5000aea5
	KVM_GET_XCRS        = 0x8188aea6
	KVM_SET_XCRS        = 0x4188aea7
	KVM_KVMCLOCK_CTRL   = 0xaead
)

// Capabilities for KVM_CHECK_EXTENSION.
const (
	KVM_CAP_IRQCHIP               = 0
	KVM_CAP_USER_MEMORY           = 3
	KVM_CAP_SET_TSS_ADDR          = 4
	KVM_CAP_EXT_CPUID             = 7
	KVM_CAP_NR_VCPUS              = 9
	KVM_CAP_NR_MEMSLOTS           = 10
	KVM_CAP_MP_STATE              = 14
	KVM_CAP_IRQFD                 = 32
	KVM_CAP_PIT2                  = 33
	KVM_CAP_IOEVENTFD             = 36
	KVM_CAP_SET_IDENTITY_MAP_ADDR = 37
	KVM_CAP_ADJUST_CLOCK          = 39
	KVM_CAP_VCPU_EVENTS           = 41
	KVM_CAP_DEBUGREGS             = 50
	KVM_CAP_XSAVE                 = 55
	KVM_CAP_XCRS                  = 56
	KVM_CAP_TSC_CONTROL           = 60
	KVM_CAP_GET_TSC_KHZ           = 61
	KVM_CAP_MAX_VCPUS             = 66
	KVM_CAP_TSC_DEADLINE_TIMER    = 72
	KVM_CAP_KVMCLOCK_CTRL         = 76
	KVM_CAP_IMMEDIATE_EXIT        = 136
)

// Values of Run.ExitReason.
const (
	KVM_EXIT_UNKNOWN        = 0
	KVM_EXIT_IO             = 2
	KVM_EXIT_DEBUG          = 4
	KVM_EXIT_HLT            = 5
	KVM_EXIT_MMIO           = 6
	KVM_EXIT_SHUTDOWN       = 8
	KVM_EXIT_FAIL_ENTRY     = 9
	KVM_EXIT_INTR           = 10
	KVM_EXIT_INTERNAL_ERROR = 17
	KVM_EXIT_SYSTEM_EVENT   = 24
)

// Directions of an I/O exit.
const (
	KVM_EXIT_IO_IN  = 0
	KVM_EXIT_IO_OUT = 1
)

// Types of a system event.
const (
	KVM_SYSTEM_EVENT_SHUTDOWN = 1
	KVM_SYSTEM_EVENT_RESET    = 2
	KVM_SYSTEM_EVENT_CRASH    = 3
)

// Suberrors of an internal error.
const (
	KVM_INTERNAL_ERROR_EMULATION              = 1
	KVM_INTERNAL_ERROR_SIMUL_EX               = 2
	KVM_INTERNAL_ERROR_DELIVERY_EV            = 3
	KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON = 4
)

// Flags of Irqfd, Ioeventfd and PitConfig.
const (
	KVM_IRQFD_FLAG_DEASSIGN      = 1 << 0
	KVM_IOEVENTFD_FLAG_DATAMATCH = 1 << 0
	KVM_IOEVENTFD_FLAG_PIO       = 1 << 1
	KVM_IOEVENTFD_FLAG_DEASSIGN  = 1 << 2
	KVM_PIT_SPEAKER_DUMMY        = 1 << 0
)

// Values of MPState.
const (
	KVM_MP_STATE_RUNNABLE      = 0
	KVM_MP_STATE_UNINITIALIZED = 1
	KVM_MP_STATE_INIT_RECEIVED = 2
	KVM_MP_STATE_HALTED        = 3
	KVM_MP_STATE_SIPI_RECEIVED = 4
)

// Irqchip.ChipID.
const (
	KVM_IRQCHIP_PIC_MASTER = 0
	KVM_IRQCHIP_PIC_SLAVE  = 1
	KVM_IRQCHIP_IOAPIC     = 2
)

// KVM_CPUID_FLAG_SIGNIFCANT_INDEX says that a leaf has subleaves (the spelling
// is the kernel's).
const KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1 << 0
