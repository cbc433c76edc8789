package kvm

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/thread"
	"runv/libvm/virtio"
	"runv/libvm/virtio/mmio"
	"runv/libvm/vm"
)

// window is a virtio-mmio device as the guest sees it: an array of registers.
// Read and Write get 1, 2, 4 or 8 bytes that may be anywhere in its page.
type window interface {
	Read(off uint64, p []byte)
	Write(off uint64, p []byte)
	State() (mmio.State, error)
	SetState(s mmio.State) error
	Close() error
}

// Machine is a running VM. It implements vm.VM.
type Machine struct {
	ram       *ram
	vmfd      int
	clockCtrl bool // features.clockCtrl
	xcrs      bool // features.xcrs
	console   *vm.Tail
	ports     *ports
	serialIRQ *line
	slots     []*slot
	windows   []window
	vcpus     []*vcpu
	running   sync.WaitGroup // vCPU threads
	places    func()         // frees those that their threads have
	timing    Timing
	firstRun  sync.Once

	ending chan struct{} // closed when the VM is to end
	done   chan struct{}
	err    error // why the VM ended, before done is closed

	mu      sync.Mutex
	resumed sync.Cond // of mu: paused, parked or stopping changed
	reason  error     // the first reason to end
	paused  int       // Pauses without their Resume
	parked  int       // vCPUs that wait for resumed, or have ended
	// stopping is set once and for all, with ending. The vCPUs look at it
	// without mu.
	stopping atomic.Bool
}

var _ vm.VM = (*Machine)(nil)

// Timing is when the parts of a start were done.
type Timing struct {
	Begin   time.Time // before KVM_CREATE_VM
	Devices time.Time // VM, memory, interrupt controllers and devices exist
	Loaded  time.Time // kernel, initramfs and tables are in memory
	Run     time.Time // before the first KVM_RUN

	CPU time.Duration // what this process had used at Run, since its begin
}

// Timing returns when the parts of the start were done.
func (m *Machine) Timing() Timing {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.timing
}

// addDevices gives each device its page and its interrupt.
func (m *Machine) addDevices(devices []virtio.Device) error {
	if len(devices) > maxDevices {
		return fmt.Errorf("%d virtio devices: at most %d have an interrupt", len(devices), maxDevices)
	}
	for i, d := range devices {
		irq, err := newLine(m.vmfd, deviceGSI(i))
		if err != nil {
			return err
		}
		s := &slot{vmfd: m.vmfd, base: deviceBase(i), irq: irq}
		m.slots = append(m.slots, s)
		m.windows = append(m.windows, newWindow(d, m.ram.mem, s))
	}
	return nil
}

// start lets all vCPUs run. Those but the first wait, in the kernel, until the
// guest starts them.
func (m *Machine) start() {
	// vCPUs are always in a system call.
	m.places = thread.Reserve(len(m.vcpus))
	for _, v := range m.vcpus {
		m.running.Go(v.loop)
	}
	go m.wait()
}

// wait waits until all vCPUs have ended, and frees everything. A vCPU that waits
// for a device to stop, as its driver wants, waits for its Close instead.
func (m *Machine) wait() {
	<-m.ending
	failures := make([]error, len(m.windows))
	for i, w := range m.windows {
		m.running.Go(func() { failures[i] = w.Close() })
	}
	m.running.Wait()
	m.places()
	err := errors.Join(append(failures, m.free())...)
	m.mu.Lock()
	if m.reason == nil {
		m.reason = ErrStuck // cannot be: vCPUs end for a reason
	}
	m.err = m.reason
	if err != nil && !errors.Is(m.reason, vm.ErrClosed) {
		m.err = fmt.Errorf("%w (and: %w)", m.reason, err)
	}
	m.mu.Unlock()
	close(m.done)
}

// free gives back everything that an incomplete or ended machine has, in the
// order in which parts need one another. No vCPU runs.
func (m *Machine) free() error {
	var errs []error // of windows that were not closed before
	for _, w := range m.windows {
		errs = append(errs, w.Close())
	}
	m.mu.Lock()
	for _, v := range m.vcpus {
		v.free()
	}
	m.mu.Unlock()
	for _, s := range m.slots {
		s.irq.close()
	}
	if m.serialIRQ != nil {
		m.serialIRQ.close()
	}
	if m.vmfd >= 0 {
		errs = append(errs, os.NewSyscallError("close", unix.Close(m.vmfd)))
		m.vmfd = -1
	}
	if m.ram != nil {
		m.ram.close()
	}
	return errors.Join(errs...)
}

// end ends the VM for the given reason, unless it has one already. It does not
// wait and may be called from a vCPU.
func (m *Machine) end(reason error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reason == nil {
		m.reason = reason
	}
	if !m.stopping.Swap(true) {
		close(m.ending)
	}
	m.resumed.Broadcast()
	for _, v := range m.vcpus {
		v.kick()
	}
}

// Done is closed when the VM has ended and nothing of it is left.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Err says why the VM ended: one of this package's errors, or vm.ErrClosed.
func (m *Machine) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// Console returns the last bytes that the guest sent to its serial port.
func (m *Machine) Console() []byte { return m.console.Bytes() }

// Close ends the VM at once, whatever the guest does, and waits for its end.
func (m *Machine) Close() error {
	m.end(vm.ErrClosed)
	<-m.done
	return nil
}

// CPUTime returns what the vCPUs have used, in ns: the guest's time and ours
// for its exits.
func (m *Machine) CPUTime() (int64, error) {
	var sum int64
	for _, v := range m.vcpus {
		n, err := v.cpuTime()
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// Pause stops all vCPUs and returns when none of them executes the guest. What
// an exit began is complete then. Each Pause wants its Resume.
func (m *Machine) Pause() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paused++
	for _, v := range m.vcpus {
		v.kick()
	}
	for m.parked < len(m.vcpus) && !m.stopping.Load() {
		m.resumed.Wait()
	}
	if m.stopping.Load() {
		return fmt.Errorf("pause: %w", errEnded)
	}
	return nil
}

// errEnded says that a VM cannot be paused or looked at any more.
var errEnded = errors.New("the virtual machine has ended")

// Resume undoes a Pause.
func (m *Machine) Resume() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.paused == 0 {
		return errors.New("resume: the virtual machine is not paused")
	}
	if m.paused--; m.paused > 0 {
		return nil
	}
	if m.clockCtrl && !m.stopping.Load() {
		for _, v := range m.vcpus {
			v.clockStopped()
		}
	}
	m.resumed.Broadcast()
	return nil
}

// admit is where a vCPU goes after it was interrupted. It waits while the VM
// is paused and reports whether to go on.
func (m *Machine) admit(v *vcpu) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.paused > 0 && !m.stopping.Load() {
		m.parked++
		m.resumed.Broadcast()
		m.resumed.Wait()
		m.parked--
	}
	// Under mu: whoever wants something of this vCPU from now on sets it again.
	v.run.SetImmediateExit(false)
	return !m.stopping.Load()
}
