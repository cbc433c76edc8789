package bundle

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/agent/cpulist"
)

// checkScheduling checks scheduler, ioPriority and execCPUAffinity
// (runtime-spec v1.3 config.md, "Linux Process"). The words are runc's.
func checkScheduling(p *specs.Process) error {
	if err := checkScheduler(p.Scheduler); err != nil {
		return fmt.Errorf("process.scheduler: %w", err)
	}
	if err := checkIOPriority(p.IOPriority); err != nil {
		return fmt.Errorf("process.ioPriority: %w", err)
	}
	if a := p.ExecCPUAffinity; a != nil {
		if _, err := cpulist.Parse(a.Initial); err != nil {
			return fmt.Errorf("process.execCPUAffinity: bad CPUAffinity.Initial: %w", err)
		}
		if _, err := cpulist.Parse(a.Final); err != nil {
			return fmt.Errorf("process.execCPUAffinity: bad CPUAffinity.Final: %w", err)
		}
	}
	return nil
}

func checkScheduler(s *specs.Scheduler) error {
	if s == nil {
		return nil
	}
	switch s.Policy {
	case "":
		return errors.New("scheduler policy is required")
	case specs.SchedOther, specs.SchedBatch:
		if s.Nice < -20 || s.Nice > 19 {
			return fmt.Errorf("invalid scheduler.nice: %d when scheduler.policy is %s", s.Nice, s.Policy)
		}
	case specs.SchedISO:
		return errors.New("scheduler policy SCHED_ISO is not in the Linux kernel: use SCHED_RR or SCHED_OTHER")
	case specs.SchedFIFO, specs.SchedRR, specs.SchedIdle, specs.SchedDeadline:
	default:
		return fmt.Errorf("invalid scheduler policy: %s", s.Policy)
	}
	if s.Priority != 0 && s.Policy != specs.SchedFIFO && s.Policy != specs.SchedRR {
		return errors.New("scheduler.priority can only be specified for SchedFIFO or SchedRR policy")
	}
	if s.Policy != specs.SchedDeadline && (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0) {
		return errors.New("scheduler runtime/deadline/period can only be specified for SchedDeadline policy")
	}
	known := []specs.LinuxSchedulerFlag{
		specs.SchedFlagResetOnFork, specs.SchedFlagReclaim, specs.SchedFlagDLOverrun, specs.SchedFlagKeepPolicy,
		specs.SchedFlagKeepParams, specs.SchedFlagUtilClampMin, specs.SchedFlagUtilClampMax,
	}
	for _, f := range s.Flags {
		if !slices.Contains(known, f) {
			return fmt.Errorf("invalid scheduler flag: %s", f)
		}
	}
	return nil
}

func checkIOPriority(p *specs.LinuxIOPriority) error {
	switch {
	case p == nil:
	case p.Priority < 0 || p.Priority > 7:
		return fmt.Errorf("invalid ioPriority.Priority: %d", p.Priority)
	case p.Class != specs.IOPRIO_CLASS_RT && p.Class != specs.IOPRIO_CLASS_BE && p.Class != specs.IOPRIO_CLASS_IDLE:
		return fmt.Errorf("invalid ioPriority.Class: %q", p.Class)
	}
	return nil
}
