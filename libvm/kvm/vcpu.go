package kvm

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"runv/libvm/kvm/boot"
	"runv/libvm/kvm/uapi"
)

// vcpu is one virtual processor.
type vcpu struct {
	m       *Machine
	id      int // number of its local APIC too
	fd      int
	mapping []byte    // struct kvm_run and the data of I/O exits, shared with KVM
	run     *uapi.Run // the head of mapping

	tid     atomic.Int32 // its thread while that runs the guest, 0 before and after
	started int64        // CPU time that the thread had used before, ns
	used    atomic.Int64 // CPU time, ns, once the thread has ended
}

// addVCPUs makes n vCPUs. KVM has all but the first wait for the guest's
// start-up interrupts.
func (m *Machine) addVCPUs(b *Backend, n int) error {
	host, err := supportedCPUID(int(b.kvm.Fd()))
	if err != nil {
		return err
	}
	t := newTopology(n)
	for id := range n {
		v, err := m.newVCPU(id, b.have.mmapSize)
		if err != nil {
			return fmt.Errorf("vcpu %d: %w", id, err)
		}
		m.vcpus = append(m.vcpus, v)
		if err := v.setUp(guestCPUID(host, id, t, b.have.tscDeadline)); err != nil {
			return fmt.Errorf("vcpu %d: %w", id, err)
		}
	}
	return nil
}

func (m *Machine) newVCPU(id, mmapSize int) (*vcpu, error) {
	fd, err := uapi.Ioctl(m.vmfd, uapi.KVM_CREATE_VCPU, uintptr(id), "KVM_CREATE_VCPU")
	if err != nil {
		return nil, err
	}
	b, err := unix.Mmap(fd, 0, mmapSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd) //nolint:errcheck // unused
		return nil, os.NewSyscallError("mmap", err)
	}
	return &vcpu{m: m, id: id, fd: fd, mapping: b, run: (*uapi.Run)(unsafe.Pointer(&b[0]))}, nil
}

// free runs under m.mu, so that nobody kicks what is no longer mapped.
func (v *vcpu) free() {
	if v.run == nil {
		return
	}
	v.run = nil
	unix.Munmap(v.mapping) //nolint:errcheck // our own mapping
	unix.Close(v.fd)       //nolint:errcheck // KVM has nothing to write back
}

// MSRs that firmware sets before a kernel runs (Intel SDM volume 4).
const (
	msrMiscEnable  = 0x1a0
	msrMTRRDefType = 0x2ff

	miscFastString = 1 << 0
	mtrrEnable     = 1 << 11
	mtrrWriteBack  = 6 // the type of all memory that no MTRR names
)

// Registers of the local APIC by offset (Intel SDM volume 3, table 11-1), and how
// firmware connects its two pins: to the 8259, and to NMIs.
const (
	apicLVT0 = 0x350
	apicLVT1 = 0x360

	deliveryNMI    = 4 << 8
	deliveryExtINT = 7 << 8
)

// setUp gives the vCPU its features and what firmware would have set.
func (v *vcpu) setUp(cpuid *uapi.CPUID2) error {
	if _, err := uapi.IoctlPtr(v.fd, uapi.KVM_SET_CPUID2, cpuid, "KVM_SET_CPUID2"); err != nil {
		return err
	}
	msrs := &uapi.MSRs{}
	set := func(index uint32, data uint64) {
		msrs.Entries[msrs.NMSRs] = uapi.MSREntry{Index: index, Data: data}
		msrs.NMSRs++
	}
	set(msrMiscEnable, miscFastString)
	set(msrMTRRDefType, mtrrEnable|mtrrWriteBack)
	if err := v.setMSRs(msrs); err != nil {
		return err
	}
	var apic uapi.LAPICState
	if _, err := uapi.IoctlPtr(v.fd, uapi.KVM_GET_LAPIC, &apic, "KVM_GET_LAPIC"); err != nil {
		return err
	}
	setDelivery(&apic, apicLVT0, deliveryExtINT)
	setDelivery(&apic, apicLVT1, deliveryNMI)
	_, err := uapi.IoctlPtr(v.fd, uapi.KVM_SET_LAPIC, &apic, "KVM_SET_LAPIC")
	return err
}

// setDelivery sets the delivery mode of an entry of the local vector table, and
// unmasks it.
func setDelivery(apic *uapi.LAPICState, reg int, mode uint32) {
	apic.Regs[reg+1] = apic.Regs[reg+1]&^7 | byte(mode>>8)
	apic.Regs[reg+2] &^= 1 // mask, bit 16
}

// setMSRs sets MSRs and says which one KVM did not take.
func (v *vcpu) setMSRs(msrs *uapi.MSRs) error {
	n, err := uapi.IoctlPtr(v.fd, uapi.KVM_SET_MSRS, msrs, "KVM_SET_MSRS")
	if err != nil {
		return err
	}
	if n < int(msrs.NMSRs) {
		e := msrs.Entries[n]
		return fmt.Errorf("KVM_SET_MSRS: msr %#x does not take %#x", e.Index, e.Data)
	}
	return nil
}

// Bits of the control registers (Intel SDM volume 3, §2.5) and of EFER.
const (
	cr0PE = 1 << 0
	cr0ET = 1 << 4
	cr0NE = 1 << 5
	cr0WP = 1 << 16
	cr0PG = 1 << 31

	cr4PAE = 1 << 5

	eferLME = 1 << 8
	eferLMA = 1 << 10

	rflagsReserved = 1 << 1 // always set
)

// enter sets the registers with which the first vCPU begins.
func (v *vcpu) enter(s boot.State) error {
	var sregs uapi.Sregs
	if _, err := uapi.IoctlPtr(v.fd, uapi.KVM_GET_SREGS, &sregs, "KVM_GET_SREGS"); err != nil {
		return err
	}
	data := uapi.Segment{Limit: 0xffffffff, Selector: boot.SelectorDS, Type: 3, Present: 1, DB: 1, S: 1, G: 1}
	sregs.CS = uapi.Segment{Limit: 0xffffffff, Selector: boot.SelectorCS, Type: 11, Present: 1, S: 1, L: 1, G: 1}
	sregs.DS, sregs.ES, sregs.FS, sregs.GS, sregs.SS = data, data, data, data, data
	sregs.GDT = uapi.Dtable{Base: uint64(s.GDT), Limit: s.GDTLimit}
	sregs.CR0 = cr0PE | cr0ET | cr0NE | cr0WP | cr0PG
	sregs.CR3 = uint64(s.CR3)
	sregs.CR4 = cr4PAE
	sregs.EFER = eferLME | eferLMA
	if s.Protected {
		sregs.CS.Selector, sregs.CS.L, sregs.CS.DB = boot.SelectorCode32, 0, 1
		sregs.CR0, sregs.CR3, sregs.CR4, sregs.EFER = cr0PE|cr0ET, 0, 0, 0
	}
	if _, err := uapi.IoctlPtr(v.fd, uapi.KVM_SET_SREGS, &sregs, "KVM_SET_SREGS"); err != nil {
		return err
	}
	regs := uapi.Regs{RIP: uint64(s.RIP), RSP: uint64(s.RSP), RBP: uint64(s.RSP), RSI: uint64(s.RSI), RBX: uint64(s.RBX), RFLAGS: rflagsReserved}
	_, err := uapi.IoctlPtr(v.fd, uapi.KVM_SET_REGS, &regs, "KVM_SET_REGS")
	return err
}

// loop executes the guest until the VM ends. It is the vCPU's thread.
func (v *vcpu) loop() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread() // nothing of the thread was changed
	v.begin()
	defer v.finish()
	v.m.firstRun.Do(func() {
		v.m.mu.Lock()
		v.m.timing.Run, v.m.timing.CPU = time.Now(), processTime()
		v.m.mu.Unlock()
	})
	for !v.m.stopping.Load() {
		switch err := uapi.RunVCPU(v.fd); {
		case errors.Is(err, unix.EAGAIN): // a start-up interrupt came
		case errors.Is(err, unix.EINTR): // a kick, or a signal of Go's scheduler
			if !v.m.admit(v) {
				return
			}
		case err != nil:
			v.m.end(fmt.Errorf("%w: vcpu %d: %w%s", ErrStuck, v.id, err, v.describe()))
			return
		default:
			if err := v.exit(); err != nil {
				v.m.end(err)
				return
			}
		}
	}
}

// begin notes the thread. From here on it can be kicked.
func (v *vcpu) begin() {
	v.started = threadTime(0)
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	v.tid.Store(int32(unix.Gettid()))
}

// finish counts the vCPU as parked for good.
func (v *vcpu) finish() {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	v.used.Store(threadTime(0) - v.started)
	v.tid.Store(0)
	v.m.parked++
	v.m.resumed.Broadcast()
}

// kick has KVM_RUN return, now or when it is called next, so that the vCPU
// looks what is wanted of it. The caller holds m.mu.
//
// The signal is the one by which Go's scheduler preempts goroutines: the runtime
// has a handler for it that minds nothing unexpected.
func (v *vcpu) kick() {
	if v.run == nil {
		return // the VM has ended
	}
	v.run.SetImmediateExit(true)
	if tid := v.tid.Load(); tid != 0 {
		unix.Tgkill(unix.Getpid(), int(tid), unix.SIGURG) //nolint:errcheck // the thread is ours and lives
	}
}

// clockStopped tells the guest that it did not run for a while, so that its
// watchdogs do not bark.
func (v *vcpu) clockStopped() {
	// EINVAL: the guest has no kvm-clock.
	uapi.Ioctl(v.fd, uapi.KVM_KVMCLOCK_CTRL, 0, "KVM_KVMCLOCK_CTRL") //nolint:errcheck // as said
}

// cpuTime returns the CPU time used so far, in ns.
func (v *vcpu) cpuTime() (int64, error) {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	tid := v.tid.Load()
	if tid == 0 {
		return v.used.Load(), nil
	}
	return threadTime(tid) - v.started, nil
}

// processTime returns the CPU time of this process.
func processTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// threadTime returns the CPU time of a thread of this process, 0 for the caller's
// own, in ns.
func threadTime(tid int32) int64 {
	// The clock of a thread as pthread_getcpuclockid(3) makes it:
	// CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED of the kernel's posix-timers.h.
	clock := int32(unix.CLOCK_THREAD_CPUTIME_ID)
	if tid != 0 {
		clock = ^tid<<3 | 4 | 2
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}
