// Package kvm is runv's own virtual machine monitor: a machine of RAM, virtio-mmio
// devices, a serial port and what the kernel's KVM has in it (local APICs, IO-APIC,
// clock). No firmware, no PCI, no QEMU.
//
//	Start: memory ─ VM ─ interrupt controllers ─ devices ─ kernel ─ vCPUs ─ threads
//	end:   vCPUs stop ─ devices stop ─ eventfds ─ VM ─ memory is unmapped
//
// Each vCPU is a goroutine locked to its thread that does nothing but KVM_RUN and
// what that returns with. Queue notifications and interrupts do not come past
// it: eventfds carry them between kernel and devices.
package kvm

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/kvm/acpi"
	"runv/libvm/kvm/boot"
	"runv/libvm/kvm/uapi"
	"runv/libvm/mem"
	"runv/libvm/virtio"
	"runv/libvm/vm"
)

// consoleTail is how many bytes of the guest's console are kept for an error.
const consoleTail = 32 << 10

// Backend starts VMs on KVM.
type Backend struct {
	kvm  *os.File
	have features
	pvh  bool // boot.Params.PVH
}

var _ vm.Backend = (*Backend)(nil)

// New opens /dev/kvm and checks what it can do. It fails with ErrUnusable. The
// caller closes the backend; VMs that run do not need it.
func New() (*Backend, error) {
	f, have, err := open()
	if err != nil {
		return nil, err
	}
	return &Backend{kvm: f, have: have}, nil
}

// Name returns "kvm".
func (b *Backend) Name() string { return "kvm" }

// Close closes /dev/kvm.
func (b *Backend) Close() error { return b.kvm.Close() }

// Start makes a machine and lets it run; see vm.Backend. The kernel's file is
// read before it returns.
func (b *Backend) Start(ctx context.Context, c vm.Config, devices []virtio.Device) (vm.VM, error) {
	return b.StartMachine(ctx, c, devices)
}

// StartMachine is Start, for callers that want more than a vm.VM has.
func (b *Backend) StartMachine(_ context.Context, c vm.Config, devices []virtio.Device) (*Machine, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if c.CPUs > b.have.maxVCPUs {
		return nil, fmt.Errorf("%d cpus: kvm on this host has at most %d", c.CPUs, b.have.maxVCPUs)
	}
	m, err := b.newMachine(c.Most(), c.Memory)
	if err != nil {
		return nil, err
	}
	if err := m.assemble(b, c, devices); err != nil {
		m.free() //nolint:errcheck // the first error counts
		return nil, err
	}
	m.start()
	return m, nil
}

// assemble is everything between an empty VM and its first instruction.
func (m *Machine) assemble(b *Backend, c vm.Config, devices []virtio.Device) error {
	if err := m.addDevices(devices); err != nil {
		return err
	}
	m.timing.Devices = time.Now()
	entry, err := m.load(c, b.pvh)
	if err != nil {
		return err
	}
	m.timing.Loaded = time.Now()
	if err := m.addVCPUs(b, c.CPUs); err != nil {
		return err
	}
	return m.vcpus[0].enter(entry)
}

// newMachine makes a VM with interrupt controllers, and memory, of which the guest has
// the first given bytes.
func (b *Backend) newMachine(memory, given uint64) (_ *Machine, err error) {
	m := &Machine{console: vm.NewTail(consoleTail), ending: make(chan struct{}), done: make(chan struct{}), vmfd: -1, clockCtrl: b.have.clockCtrl, xcrs: b.have.xcrs}
	m.resumed.L = &m.mu
	m.timing.Begin = time.Now()
	defer func() {
		if err != nil {
			m.free() //nolint:errcheck // the first error counts
		}
	}()
	if m.ram, err = newRAM(memory, given); err != nil {
		return nil, err
	}
	if m.vmfd, err = uapi.Ioctl(int(b.kvm.Fd()), uapi.KVM_CREATE_VM, 0, "KVM_CREATE_VM"); err != nil {
		return nil, err
	}
	unix.CloseOnExec(m.vmfd) // KVM does so itself; it costs nothing to be sure
	if _, err := uapi.Ioctl(m.vmfd, uapi.KVM_SET_TSS_ADDR, uintptr(tssStart), "KVM_SET_TSS_ADDR"); err != nil {
		return nil, err
	}
	at := uint64(identityMap)
	if _, err := uapi.IoctlPtr(m.vmfd, uapi.KVM_SET_IDENTITY_MAP_ADDR, &at, "KVM_SET_IDENTITY_MAP_ADDR"); err != nil {
		return nil, err
	}
	if err := m.ram.register(m.vmfd, m.ram.mem.Regions()); err != nil {
		return nil, err
	}
	if _, err := uapi.Ioctl(m.vmfd, uapi.KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP"); err != nil {
		return nil, err
	}
	if !b.have.tscDeadline {
		// A kernel whose APIC timer does not count in TSC ticks calibrates it
		// against the PIT.
		pit := uapi.PitConfig{Flags: uapi.KVM_PIT_SPEAKER_DUMMY}
		if _, err := uapi.IoctlPtr(m.vmfd, uapi.KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2"); err != nil {
			return nil, err
		}
	}
	if m.serialIRQ, err = newLine(m.vmfd, serialGSI); err != nil {
		return nil, err
	}
	m.ports = &ports{
		serial: serial{out: m.console, irq: func() { m.serialIRQ.raise() }}, //nolint:errcheck // an eventfd that KVM empties
		clock:  cmos{now: time.Now},
		end:    m.end,
	}
	return m, nil
}

// load puts kernel, initramfs and tables into memory.
func (m *Machine) load(c vm.Config, pvh bool) (boot.State, error) {
	kernel, err := openFile(c.Kernel)
	if err != nil {
		return boot.State{}, fmt.Errorf("guest kernel: %w", err)
	}
	defer kernel.Close() //nolint:errcheck // only read from
	k, err := source(kernel)
	if err != nil {
		return boot.State{}, fmt.Errorf("guest kernel: %w", err)
	}
	initrd, err := source(c.Initrd)
	if err != nil {
		return boot.State{}, fmt.Errorf("initramfs: %w", err)
	}
	p := boot.Params{Cmdline: commandLine(c, len(m.windows)), Initrd: initrd, PVH: pvh}
	if c.ACPI {
		if p.RSDP, err = m.writeACPI(c.CPUs); err != nil {
			return boot.State{}, err
		}
	} else if err := boot.WriteMPTable(m.ram.mem, c.CPUs); err != nil {
		return boot.State{}, err
	}
	s, err := boot.Load(m.ram.mem, k, p)
	if err != nil {
		return boot.State{}, fmt.Errorf("guest kernel %q: %w", c.Kernel, err)
	}
	return s, nil
}

// openFile opens a regular file: what is not one might never end, or never open.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close() //nolint:errcheck // not what we want
		return nil, fmt.Errorf("%q is not a regular file", path)
	}
	return f, nil
}

// source makes f something to load from, by mapping it where that is possible.
func source(f *os.File) (boot.File, error) {
	st, err := f.Stat()
	if err != nil {
		return boot.File{}, err
	}
	return boot.File{ReaderAt: f, Size: st.Size(), Map: func(off int64, dst []byte) error {
		return mapOver(dst, f, off)
	}}, nil
}

// generationBytes is the size of a VM generation id.
const generationBytes = 16

// writeACPI describes the machine for kernels that want ACPI.
func (m *Machine) writeACPI(cpus int) (root mem.GPA, err error) {
	c := acpi.Config{
		CPUs: cpus, Serial: portSerial, SerialGSI: serialGSI,
		SleepControl: portSleepCtl, SleepStatus: portSleepSts, Reset: portReset,
		GenerationID: generationID,
	}
	for i := range m.windows {
		c.Devices = append(c.Devices, acpi.MMIODevice{Base: deviceBase(i), Size: mmioSize, GSI: deviceGSI(i)})
	}
	id, err := m.ram.mem.Slice(generationID, generationBytes)
	if err != nil {
		return 0, err
	}
	rand.Read(id) //nolint:errcheck // never fails
	return acpi.Write(m.ram.mem, boot.TablesStart, tablesSize, c)
}
