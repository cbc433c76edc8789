package qemu

import (
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
