package task

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/cpulist"
)

// rlimitNames are the resources of getrlimit(2) in the order of their numbers on
// x86-64; the spec puts RLIMIT_ before them.
var rlimitNames = [...]string{
	"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS",
	"SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
}

// defaultNofile is what a workload gets that asks for nothing: the soft limit
// that select(2) can count to, and the kernel's ceiling (fs.nr_open). The
// agent's own soft limit is no use: the Go runtime raised it.
const (
	defaultNofileSoft = 1024
	defaultNofileHard = 1 << 20
)

// SetLimits sets the resource limits of a process that has not exec'd yet.
func SetLimits(pid int, limits []specs.POSIXRlimit) error {
	nofile := unix.Rlimit{Cur: defaultNofileSoft, Max: defaultNofileHard}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &nofile, nil); err != nil {
		// Only with fewer privileges than PID 1 of a guest has: the hard
		// limit stays then.
		var l unix.Rlimit
		if unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &l) == nil {
			l.Cur = min(l.Max, defaultNofileSoft)
			_ = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &l, nil)
		}
	}
	for _, l := range limits {
		r := slices.Index(rlimitNames[:], strings.TrimPrefix(strings.ToUpper(l.Type), "RLIMIT_"))
		if r < 0 {
			return fmt.Errorf("unknown rlimit %q", l.Type)
		}
		if err := unix.Prlimit(pid, r, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
			return fmt.Errorf("error setting rlimit type %s: %w", l.Type, err)
		}
	}
	return nil
}

// SetOOMScoreAdj sets how readily the kernel kills a process when memory ends.
func SetOOMScoreAdj(pid int, adj *int) error {
	if adj == nil {
		return nil
	}
	path := "/proc/" + strconv.Itoa(pid) + "/oom_score_adj"
	if err := os.WriteFile(path, []byte(strconv.Itoa(*adj)), 0); err != nil {
		return fmt.Errorf("set oomScoreAdj %d: %w", *adj, err)
	}
	return nil
}

// ioprioClasses are the classes of ioprio_set(2) by number.
var ioprioClasses = [...]specs.IOPriorityClass{
	1: specs.IOPRIO_CLASS_RT, 2: specs.IOPRIO_CLASS_BE, 3: specs.IOPRIO_CLASS_IDLE,
}

// SetIOPriority sets the I/O class and priority of a process.
func SetIOPriority(pid int, p *specs.LinuxIOPriority) error {
	if p == nil {
		return nil
	}
	class := slices.Index(ioprioClasses[:], p.Class)
	if class < 1 {
		return fmt.Errorf("invalid io priority class: %s", p.Class)
	}
	const whoProcess, classShift = 1, 13
	_, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, uintptr(pid), uintptr(class<<classShift|p.Priority))
	if errno != 0 {
		return fmt.Errorf("failed to set io priority: %w", errno)
	}
	return nil
}

// schedPolicies are the policies of linux/sched.h by number, schedFlags its flags
// by bit.
var schedPolicies = [...]specs.LinuxSchedulerPolicy{
	specs.SchedOther, specs.SchedFIFO, specs.SchedRR, specs.SchedBatch,
	specs.SchedISO, specs.SchedIdle, specs.SchedDeadline,
}

var schedFlags = [...]specs.LinuxSchedulerFlag{
	specs.SchedFlagResetOnFork, specs.SchedFlagReclaim, specs.SchedFlagDLOverrun,
	specs.SchedFlagKeepPolicy, specs.SchedFlagKeepParams,
	specs.SchedFlagUtilClampMin, specs.SchedFlagUtilClampMax,
}

// SetScheduler sets the scheduling policy of a process.
func SetScheduler(pid int, s *specs.Scheduler) error {
	if s == nil {
		return nil
	}
	policy := slices.Index(schedPolicies[:], s.Policy)
	if policy < 0 {
		return fmt.Errorf("invalid scheduler policy: %s", s.Policy)
	}
	attr := unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: uint32(policy), Nice: s.Nice, Priority: uint32(s.Priority),
		Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
	}
	for _, f := range s.Flags {
		bit := slices.Index(schedFlags[:], f)
		if bit < 0 {
			return fmt.Errorf("invalid scheduler flag: %s", f)
		}
		attr.Flags |= 1 << bit
	}
	if err := unix.SchedSetAttr(pid, &attr, 0); err != nil {
		return fmt.Errorf("error setting scheduler: %w", err)
	}
	return nil
}

// SetInitialAffinity binds the calling thread, which is to fork a process, to the
// CPUs that the process starts on. The caller ends the thread.
func SetInitialAffinity(a *specs.CPUAffinity) error {
	if a == nil {
		return nil
	}
	return setAffinity(0, "initial", a.Initial)
}

// SetFinalAffinity binds a process that is in its cgroup to its CPUs: without a
// list of them, those of its cgroup. Kernels before 6.2 do that by themselves.
func SetFinalAffinity(pid int, a *specs.CPUAffinity) error {
	switch {
	case a == nil || a.Initial == "" && a.Final == "":
		return nil
	case a.Final != "":
		return setAffinity(pid, "final", a.Final)
	}
	var all unix.CPUSet
	all.Fill() // the kernel leaves out what is not there
	if err := unix.SchedSetaffinity(pid, &all); err != nil {
		return fmt.Errorf("error setting final CPU affinity: %w", err)
	}
	return nil
}

func setAffinity(pid int, which, list string) error {
	set, err := cpulist.Parse(list)
	if err != nil || set == nil {
		return err
	}
	if err := unix.SchedSetaffinity(pid, set); err != nil {
		return fmt.Errorf("error setting %s CPU affinity: %w", which, err)
	}
	return nil
}
