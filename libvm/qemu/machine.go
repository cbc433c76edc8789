package qemu

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"runv/libvm/vm"
)

// note keeps the first reason that QEMU gave for its end.
func (m *machine) note(reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reason == "" {
		m.reason = reason
	}
}

// PID returns QEMU's process id.
func (m *machine) PID() int { return m.cmd.Process.Pid }

// trim frees the memory that the kernel has not been given. QEMU puts the initramfs
// at the end of all that the machine has, from where the kernel has copied it.
func (m *machine) trim() error {
	begin, end := int64(m.config.Memory), int64(m.config.Most())
	if begin == end {
		return nil
	}
	err := unix.Fallocate(int(m.ram.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, begin, end-begin)
	return os.NewSyscallError("fallocate", err)
}

// Pause stops QEMU as a whole; see vm.VM. The "stop" of QMP would stop the
// devices, too, and to a backend of vhost-user that looks as if the guest had
// reset them, with all of its connections.
func (m *machine) Pause() error {
	if err := m.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		return fmt.Errorf("stop qemu: %w", err)
	}
	for {
		// It returns once all threads have stopped, or QEMU was reaped.
		err := unix.Waitid(unix.P_PID, m.PID(), nil, unix.WSTOPPED, nil)
		if err == unix.EINTR {
			continue
		} else if err != nil {
			return fmt.Errorf("wait until qemu stops: %w", err)
		}
		return nil
	}
}

// Resume undoes a Pause.
func (m *machine) Resume() error {
	if err := m.cmd.Process.Signal(unix.SIGCONT); err != nil {
		return fmt.Errorf("continue qemu: %w", err)
	}
	return nil
}

// cpuclockSched is CPUCLOCK_SCHED of the kernel's include/linux/
// posix-timers_types.h: the process clock that counts what was really run.
const cpuclockSched = 2

// CPUTime returns what QEMU, all threads, user and system, has used, in ns.
func (m *machine) CPUTime() (int64, error) {
	// The clock id of another process as clock_getcpuclockid(3) makes it. Unlike
	// a file in /proc it names the process in our own pid namespace, whichever
	// /proc is mounted.
	clock := int32(^m.cmd.Process.Pid)<<3 | cpuclockSched
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return ts.Nano(), nil
}

// oneLine makes b fit into an error message.
func oneLine(b []byte) string {
	s := strings.Join(strings.Fields(vm.Printable(b)), " ")
	if s == "" {
		return "(it said nothing)"
	}
	return s
}
