package uapi

import (
	"testing"
	"unsafe"
)

// The numbers are what a C compiler says of linux/kvm.h and asm/kvm.h.
func TestLayout(t *testing.T) {
	for _, tt := range []struct {
		name      string
		got, want uintptr
	}{
		{"kvm_userspace_memory_region", unsafe.Sizeof(UserspaceMemoryRegion{}), 32},
		{"kvm_irqfd", unsafe.Sizeof(Irqfd{}), 32},
		{"kvm_irqfd.resamplefd", unsafe.Offsetof(Irqfd{}.Resamplefd), 12},
		{"kvm_ioeventfd", unsafe.Sizeof(Ioeventfd{}), 64},
		{"kvm_ioeventfd.fd", unsafe.Offsetof(Ioeventfd{}.FD), 20},
		{"kvm_ioeventfd.flags", unsafe.Offsetof(Ioeventfd{}.Flags), 24},
		{"kvm_pit_config", unsafe.Sizeof(PitConfig{}), 64},
		{"kvm_clock_data", unsafe.Sizeof(ClockData{}), 48},
		{"kvm_clock_data.flags", unsafe.Offsetof(ClockData{}.Flags), 8},
		{"kvm_clock_data.realtime", unsafe.Offsetof(ClockData{}.Realtime), 16},
		{"kvm_irqchip", unsafe.Sizeof(Irqchip{}), 520},
		{"kvm_irqchip.chip", unsafe.Offsetof(Irqchip{}.Chip), 8},
		{"kvm_regs", unsafe.Sizeof(Regs{}), 144},
		{"kvm_segment", unsafe.Sizeof(Segment{}), 24},
		{"kvm_dtable", unsafe.Sizeof(Dtable{}), 16},
		{"kvm_sregs", unsafe.Sizeof(Sregs{}), 312},
		{"kvm_sregs.tr", unsafe.Offsetof(Sregs{}.TR), 144},
		{"kvm_sregs.gdt", unsafe.Offsetof(Sregs{}.GDT), 192},
		{"kvm_sregs.cr0", unsafe.Offsetof(Sregs{}.CR0), 224},
		{"kvm_sregs.efer", unsafe.Offsetof(Sregs{}.EFER), 264},
		{"kvm_sregs.apic_base", unsafe.Offsetof(Sregs{}.APICBase), 272},
		{"kvm_sregs.interrupt_bitmap", unsafe.Offsetof(Sregs{}.InterruptBitmap), 280},
		{"kvm_mp_state", unsafe.Sizeof(MPState{}), 4},
		{"kvm_lapic_state", unsafe.Sizeof(LAPICState{}), 1024},
		{"kvm_vcpu_events", unsafe.Sizeof(VCPUEvents{}), 64},
		{"kvm_vcpu_events.nmi", unsafe.Offsetof(VCPUEvents{}.NMI), 12},
		{"kvm_vcpu_events.sipi_vector", unsafe.Offsetof(VCPUEvents{}.SIPIVector), 16},
		{"kvm_vcpu_events.flags", unsafe.Offsetof(VCPUEvents{}.Flags), 20},
		{"kvm_vcpu_events.smi", unsafe.Offsetof(VCPUEvents{}.SMI), 24},
		{"kvm_vcpu_events.exception_payload", unsafe.Offsetof(VCPUEvents{}.ExceptionPayload), 56},
		{"kvm_debugregs", unsafe.Sizeof(DebugRegs{}), 128},
		{"kvm_xsave", unsafe.Sizeof(Xsave{}), 4096},
		{"kvm_xcrs", unsafe.Sizeof(Xcrs{}), 392},
		{"kvm_xcrs.xcrs", unsafe.Offsetof(Xcrs{}.Xcrs), 8},
		{"kvm_cpuid_entry2", unsafe.Sizeof(CPUIDEntry2{}), 40},
		{"kvm_cpuid_entry2.edx", unsafe.Offsetof(CPUIDEntry2{}.EDX), 24},
		{"kvm_cpuid2", unsafe.Offsetof(CPUID2{}.Entries), 8},
		{"kvm_msr_entry", unsafe.Sizeof(MSREntry{}), 16},
		{"kvm_msrs", unsafe.Offsetof(MSRs{}.Entries), 8},
		{"kvm_run.immediate_exit", unsafe.Offsetof(Run{}.ImmediateExit), 1},
		{"kvm_run.exit_reason", unsafe.Offsetof(Run{}.ExitReason), 8},
		{"kvm_run.flags", unsafe.Offsetof(Run{}.Flags), 14},
		{"kvm_run.cr8", unsafe.Offsetof(Run{}.CR8), 16},
		{"kvm_run.io", unsafe.Offsetof(Run{}.Exit), 32},
		{"kvm_run.kvm_valid_regs", unsafe.Sizeof(Run{}), 288},
		{"kvm_run.io.port", 32 + unsafe.Offsetof(IO{}.Port), 34},
		{"kvm_run.io.count", 32 + unsafe.Offsetof(IO{}.Count), 36},
		{"kvm_run.io.data_offset", 32 + unsafe.Offsetof(IO{}.DataOffset), 40},
		{"kvm_run.mmio.data", 32 + unsafe.Offsetof(MMIO{}.Data), 40},
		{"kvm_run.mmio.len", 32 + unsafe.Offsetof(MMIO{}.Len), 48},
		{"kvm_run.mmio.is_write", 32 + unsafe.Offsetof(MMIO{}.IsWrite), 52},
		{"kvm_run.fail_entry.cpu", 32 + unsafe.Offsetof(FailEntry{}.CPU), 40},
		{"kvm_run.internal.ndata", 32 + unsafe.Offsetof(Internal{}.Ndata), 36},
		{"kvm_run.internal.data", 32 + unsafe.Offsetof(Internal{}.Data), 40},
		{"kvm_run.system_event.ndata", 32 + unsafe.Offsetof(SystemEvent{}.Ndata), 36},
		{"kvm_run.system_event.data", 32 + unsafe.Offsetof(SystemEvent{}.Data), 40},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, tt.got, tt.want)
		}
	}
}

// The number of an ioctl holds the size of its struct in bits 16 to 29.
func TestIoctlSizes(t *testing.T) {
	for _, tt := range []struct {
		name string
		req  uintptr
		size uintptr
	}{
		{"KVM_SET_USER_MEMORY_REGION", KVM_SET_USER_MEMORY_REGION, unsafe.Sizeof(UserspaceMemoryRegion{})},
		{"KVM_GET_IRQCHIP", KVM_GET_IRQCHIP, unsafe.Sizeof(Irqchip{})},
		{"KVM_SET_IRQCHIP", KVM_SET_IRQCHIP, unsafe.Sizeof(Irqchip{})},
		{"KVM_IRQFD", KVM_IRQFD, unsafe.Sizeof(Irqfd{})},
		{"KVM_CREATE_PIT2", KVM_CREATE_PIT2, unsafe.Sizeof(PitConfig{})},
		{"KVM_IOEVENTFD", KVM_IOEVENTFD, unsafe.Sizeof(Ioeventfd{})},
		{"KVM_SET_CLOCK", KVM_SET_CLOCK, unsafe.Sizeof(ClockData{})},
		{"KVM_GET_REGS", KVM_GET_REGS, unsafe.Sizeof(Regs{})},
		{"KVM_SET_SREGS", KVM_SET_SREGS, unsafe.Sizeof(Sregs{})},
		{"KVM_SET_MSRS", KVM_SET_MSRS, unsafe.Offsetof(MSRs{}.Entries)},
		{"KVM_SET_LAPIC", KVM_SET_LAPIC, unsafe.Sizeof(LAPICState{})},
		{"KVM_SET_CPUID2", KVM_SET_CPUID2, unsafe.Offsetof(CPUID2{}.Entries)},
		{"KVM_SET_MP_STATE", KVM_SET_MP_STATE, unsafe.Sizeof(MPState{})},
		{"KVM_SET_VCPU_EVENTS", KVM_SET_VCPU_EVENTS, unsafe.Sizeof(VCPUEvents{})},
		{"KVM_SET_DEBUGREGS", KVM_SET_DEBUGREGS, unsafe.Sizeof(DebugRegs{})},
		{"KVM_GET_XSAVE", KVM_GET_XSAVE, unsafe.Sizeof(Xsave{})},
		{"KVM_SET_XCRS", KVM_SET_XCRS, unsafe.Sizeof(Xcrs{})},
	} {
		if got := tt.req >> 16 & 0x3fff; got != tt.size {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.size)
		}
	}
}

func TestImmediateExitIsItsByte(t *testing.T) {
	var r Run
	r.SetImmediateExit(true)
	if r.ImmediateExit != 1 || r.RequestInterruptWindow != 0 {
		t.Errorf("got immediate_exit %d, request_interrupt_window %d", r.ImmediateExit, r.RequestInterruptWindow)
	}
	r.SetImmediateExit(false)
	if r.ImmediateExit != 0 {
		t.Errorf("got immediate_exit %d, want 0", r.ImmediateExit)
	}
}
