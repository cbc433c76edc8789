package kvm

import (
	"errors"
	"fmt"
	"time"

	"runv/libvm/kvm/uapi"
	"runv/libvm/virtio/mmio"
)

// State is everything of a VM beside its memory that a snapshot has to hold: what
// KVM knows, and what drivers have told our devices. What those hold beside that,
// connections and open files, is theirs.
type State struct {
	Clock    uapi.ClockData  // kvm-clock
	Irqchips [3]uapi.Irqchip // two 8259s, IO-APIC
	VCPUs    []VCPUState
	Serial   SerialState
	CMOS     byte         // index of the register that is chosen
	Devices  []mmio.State // in the order of Start
}

// VCPUState is the state of one vCPU.
type VCPUState struct {
	MPState   uapi.MPState
	Regs      uapi.Regs
	Sregs     uapi.Sregs
	Xsave     uapi.Xsave
	Xcrs      uapi.Xcrs // empty where KVM has none
	DebugRegs uapi.DebugRegs
	LAPIC     uapi.LAPICState
	Events    uapi.VCPUEvents
	MSRs      []uapi.MSREntry
}

// savedMSRs are the MSRs that a Linux guest changes and Sregs do not hold
// (linux/msr-index.h, asm/kvm_para.h). Those that this KVM does not have are
// left out of a State. The TSC comes first, and its deadline last: that is
// relative to it, and to the state of the local APIC, set before.
var savedMSRs = [...]uint32{
	0x10,       // TSC
	0x3b,       // TSC_ADJUST
	0x1a0,      // MISC_ENABLE
	0x174,      // SYSENTER_CS
	0x175,      // SYSENTER_ESP
	0x176,      // SYSENTER_EIP
	0x277,      // PAT
	0x2ff,      // MTRR_DEF_TYPE
	0xda0,      // XSS
	0xc0000081, // STAR
	0xc0000082, // LSTAR
	0xc0000083, // CSTAR
	0xc0000084, // SYSCALL_MASK
	0xc0000102, // KERNEL_GS_BASE
	0xc0000103, // TSC_AUX
	0x48,       // SPEC_CTRL
	0x4b564d00, // KVM_WALL_CLOCK_NEW
	0x4b564d01, // KVM_SYSTEM_TIME_NEW
	0x4b564d02, // KVM_ASYNC_PF_EN
	0x4b564d03, // KVM_STEAL_TIME
	0x4b564d04, // KVM_PV_EOI_EN
	0x4b564d05, // KVM_POLL_CONTROL
	0x4b564d06, // KVM_ASYNC_PF_INT
	0x6e0,      // TSC_DEADLINE
}

// part is one ioctl of a state.
type part struct {
	name string
	do   func() error
}

func ioctl[T any](fd int, req uintptr, name string, v *T) part {
	return part{name, func() error { _, err := uapi.IoctlPtr(fd, req, v, name); return err }}
}

func do(parts ...part) error {
	for _, p := range parts {
		if err := p.do(); err != nil {
			return err
		}
	}
	return nil
}

// State returns the VM's state, which must be paused.
func (m *Machine) State() (*State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.quiet(); err != nil {
		return nil, fmt.Errorf("get state: %w", err)
	}
	s := &State{VCPUs: make([]VCPUState, len(m.vcpus))}
	for i, v := range m.vcpus {
		if err := v.get(&s.VCPUs[i]); err != nil {
			return nil, fmt.Errorf("vcpu %d: %w", i, err)
		}
	}
	for i := range s.Irqchips {
		s.Irqchips[i].ChipID = uint32(i)
		if err := do(ioctl(m.vmfd, uapi.KVM_GET_IRQCHIP, "KVM_GET_IRQCHIP", &s.Irqchips[i])); err != nil {
			return nil, err
		}
	}
	if err := do(ioctl(m.vmfd, uapi.KVM_GET_CLOCK, "KVM_GET_CLOCK", &s.Clock)); err != nil {
		return nil, err
	}
	s.Serial, s.CMOS = m.ports.serial.state(), m.ports.clock.chosen()
	for i, w := range m.windows {
		d, err := settled(w)
		if err != nil {
			return nil, fmt.Errorf("device %d: %w", i, err)
		}
		s.Devices = append(s.Devices, d)
	}
	return s, nil
}

// How long a device may take to finish the requests that it has in hand, and how
// often it is asked.
const (
	settleTime = 5 * time.Second
	settleLook = time.Millisecond
)

// settled returns the state of a device once it has no request in hand. None
// comes while the vCPUs stand.
func settled(w window) (mmio.State, error) {
	for end := time.Now().Add(settleTime); ; time.Sleep(settleLook) {
		s, err := w.State()
		if !errors.Is(err, mmio.ErrBusy) || time.Now().After(end) {
			return s, err
		}
	}
}

// SetState sets the VM's state, which must be paused, to one of a VM of the same
// shape, whose drivers have not begun to use its devices. Its memory is the
// caller's concern.
func (m *Machine) SetState(s *State) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.quiet(); err != nil {
		return fmt.Errorf("set state: %w", err)
	}
	if len(s.VCPUs) != len(m.vcpus) || len(s.Devices) != len(m.windows) {
		return fmt.Errorf("set state of %d vcpus and %d devices in a virtual machine of %d and %d",
			len(s.VCPUs), len(s.Devices), len(m.vcpus), len(m.windows))
	}
	for i := range s.Irqchips {
		if err := do(ioctl(m.vmfd, uapi.KVM_SET_IRQCHIP, "KVM_SET_IRQCHIP", &s.Irqchips[i])); err != nil {
			return err
		}
	}
	clock := uapi.ClockData{Clock: s.Clock.Clock}
	if err := do(ioctl(m.vmfd, uapi.KVM_SET_CLOCK, "KVM_SET_CLOCK", &clock)); err != nil {
		return err
	}
	for i, v := range m.vcpus {
		if err := v.set(&s.VCPUs[i]); err != nil {
			return fmt.Errorf("vcpu %d: %w", i, err)
		}
	}
	m.ports.serial.setState(s.Serial)
	m.ports.clock.choose(s.CMOS)
	for i, w := range m.windows {
		if err := w.SetState(s.Devices[i]); err != nil {
			return fmt.Errorf("device %d: %w", i, err)
		}
	}
	return nil
}

// quiet says why the state cannot be touched. It runs under m.mu.
func (m *Machine) quiet() error {
	switch {
	case m.stopping.Load():
		return errEnded
	case m.paused == 0 || m.parked < len(m.vcpus):
		return errors.New("the virtual machine is not paused")
	}
	return nil
}

func (v *vcpu) get(s *VCPUState) error {
	// The MP state first: reading it has KVM work off pending INIT and start-up
	// interrupts, which changes the rest.
	if err := do(
		ioctl(v.fd, uapi.KVM_GET_MP_STATE, "KVM_GET_MP_STATE", &s.MPState),
		ioctl(v.fd, uapi.KVM_GET_REGS, "KVM_GET_REGS", &s.Regs),
		ioctl(v.fd, uapi.KVM_GET_SREGS, "KVM_GET_SREGS", &s.Sregs),
		ioctl(v.fd, uapi.KVM_GET_XSAVE, "KVM_GET_XSAVE", &s.Xsave),
		ioctl(v.fd, uapi.KVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS", &s.DebugRegs),
		ioctl(v.fd, uapi.KVM_GET_LAPIC, "KVM_GET_LAPIC", &s.LAPIC),
		ioctl(v.fd, uapi.KVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS", &s.Events),
	); err != nil {
		return err
	}
	if v.m.xcrs {
		if err := do(ioctl(v.fd, uapi.KVM_GET_XCRS, "KVM_GET_XCRS", &s.Xcrs)); err != nil {
			return err
		}
	}
	for _, index := range savedMSRs {
		one := &uapi.MSRs{NMSRs: 1}
		one.Entries[0].Index = index
		n, err := uapi.IoctlPtr(v.fd, uapi.KVM_GET_MSRS, one, "KVM_GET_MSRS")
		if err != nil {
			return err
		}
		if n == 1 {
			s.MSRs = append(s.MSRs, one.Entries[0])
		}
	}
	return nil
}

func (v *vcpu) set(s *VCPUState) error {
	if v.m.xcrs {
		if err := do(ioctl(v.fd, uapi.KVM_SET_XCRS, "KVM_SET_XCRS", &s.Xcrs)); err != nil {
			return err
		}
	}
	if err := do(
		ioctl(v.fd, uapi.KVM_SET_REGS, "KVM_SET_REGS", &s.Regs),
		ioctl(v.fd, uapi.KVM_SET_XSAVE, "KVM_SET_XSAVE", &s.Xsave),
		ioctl(v.fd, uapi.KVM_SET_SREGS, "KVM_SET_SREGS", &s.Sregs),
		ioctl(v.fd, uapi.KVM_SET_DEBUGREGS, "KVM_SET_DEBUGREGS", &s.DebugRegs),
		ioctl(v.fd, uapi.KVM_SET_LAPIC, "KVM_SET_LAPIC", &s.LAPIC),
	); err != nil {
		return err
	}
	for _, e := range s.MSRs {
		one := &uapi.MSRs{NMSRs: 1}
		one.Entries[0] = e
		// KVM shows some MSRs, as 0, that a guest without the feature cannot set.
		if err := v.setMSRs(one); err != nil && e.Data != 0 {
			return err
		}
	}
	return do(
		ioctl(v.fd, uapi.KVM_SET_VCPU_EVENTS, "KVM_SET_VCPU_EVENTS", &s.Events),
		ioctl(v.fd, uapi.KVM_SET_MP_STATE, "KVM_SET_MP_STATE", &s.MPState))
}
