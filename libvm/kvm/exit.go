package kvm

import (
	"fmt"
	"strings"

	"runv/libvm/kvm/uapi"
	"runv/libvm/mem"
)

// exit does what KVM_RUN returned for. An error ends the VM.
func (v *vcpu) exit() error {
	r := v.run
	switch r.ExitReason {
	case uapi.KVM_EXIT_IO:
		return v.portIO(r.IO())
	case uapi.KVM_EXIT_MMIO:
		v.m.mmio(r.MMIO())
		return nil
	case uapi.KVM_EXIT_INTR:
		return nil
	case uapi.KVM_EXIT_SHUTDOWN:
		return fmt.Errorf("%w: vcpu %d%s", ErrTripleFault, v.id, v.describe())
	case uapi.KVM_EXIT_SYSTEM_EVENT:
		return systemEvent(r.SystemEvent())
	case uapi.KVM_EXIT_FAIL_ENTRY:
		e := r.FailEntry()
		return fmt.Errorf("%w: vcpu %d: the processor refused its state, reason %#x on cpu %d%s", ErrStuck, v.id, e.Reason, e.CPU, v.describe())
	case uapi.KVM_EXIT_INTERNAL_ERROR:
		return fmt.Errorf("%w: vcpu %d: %s%s", ErrStuck, v.id, internalError(r.Internal()), v.describe())
	}
	return fmt.Errorf("%w: vcpu %d: unexpected exit %d%s", ErrStuck, v.id, r.ExitReason, v.describe())
}

// portIO hands an access to the ports. Its data is in the mapping, where the
// kernel says.
func (v *vcpu) portIO(io *uapi.IO) error {
	off, n := io.DataOffset, uint64(io.Size)*uint64(io.Count)
	if off > uint64(len(v.mapping)) || n > uint64(len(v.mapping))-off {
		return fmt.Errorf("%w: vcpu %d: %d bytes of I/O data at %#x, mapping of %#x", ErrStuck, v.id, n, off, len(v.mapping))
	}
	v.m.ports.handle(io, v.mapping[off:off+n])
	return nil
}

// mmio hands an access to the device at its address. Where there is none, reads
// see ones and writes nothing.
func (m *Machine) mmio(a *uapi.MMIO) {
	p := a.Data[:min(a.Len, uint32(len(a.Data)))]
	w, off := m.window(mem.GPA(a.PhysAddr))
	switch {
	case w == nil && a.IsWrite == 0:
		for i := range p {
			p[i] = 0xff
		}
	case w == nil:
	case a.IsWrite != 0:
		w.Write(off, p)
	default:
		clear(p)
		w.Read(off, p)
	}
}

// window returns the device whose page has gpa, and the offset in it.
func (m *Machine) window(gpa mem.GPA) (window, uint64) {
	if gpa < mmioStart {
		return nil, 0
	}
	off := uint64(gpa - mmioStart)
	if i := off / mmioSize; i < uint64(len(m.windows)) {
		return m.windows[i], off % mmioSize
	}
	return nil, 0
}

// systemEvent is a hypervisor's way to end a guest.
func systemEvent(e *uapi.SystemEvent) error {
	switch e.Type {
	case uapi.KVM_SYSTEM_EVENT_SHUTDOWN:
		return ErrPowerOff
	case uapi.KVM_SYSTEM_EVENT_RESET:
		return ErrReset
	case uapi.KVM_SYSTEM_EVENT_CRASH:
		return ErrCrash
	}
	return fmt.Errorf("%w: system event %d", ErrStuck, e.Type)
}

// internalError names an error of KVM itself, with what it says about it.
func internalError(e *uapi.Internal) string {
	name := fmt.Sprintf("internal error %d of kvm", e.Suberror)
	switch e.Suberror {
	case uapi.KVM_INTERNAL_ERROR_EMULATION:
		name = "kvm cannot emulate an instruction"
	case uapi.KVM_INTERNAL_ERROR_SIMUL_EX:
		name = "simultaneous exceptions"
	case uapi.KVM_INTERNAL_ERROR_DELIVERY_EV:
		name = "an exit while an event was delivered"
	case uapi.KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
		name = "an exit that kvm does not know"
	}
	var data strings.Builder
	for _, d := range e.Data[:min(e.Ndata, uint32(len(e.Data)))] {
		fmt.Fprintf(&data, " %#x", d)
	}
	return name + data.String()
}

// describe returns the registers that say where the vCPU is, for an error.
func (v *vcpu) describe() string {
	var regs uapi.Regs
	var sregs uapi.Sregs
	if _, err := uapi.IoctlPtr(v.fd, uapi.KVM_GET_REGS, &regs, "KVM_GET_REGS"); err != nil {
		return ""
	}
	if _, err := uapi.IoctlPtr(v.fd, uapi.KVM_GET_SREGS, &sregs, "KVM_GET_SREGS"); err != nil {
		return ""
	}
	return fmt.Sprintf(" (rip %#x rsp %#x rflags %#x rax %#x rcx %#x rdx %#x cr0 %#x cr2 %#x cr3 %#x cr4 %#x efer %#x)",
		regs.RIP, regs.RSP, regs.RFLAGS, regs.RAX, regs.RCX, regs.RDX, sregs.CR0, sregs.CR2, sregs.CR3, sregs.CR4, sregs.EFER)
}
