package vm

import (
	"runtime"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Overhead is the RAM that kernel and agent use beside the workload's limit, in
// bytes: page structures, the kernel's text and data, the initramfs, the agent.
const Overhead = 64 * MiB

// Size returns the RAM, in bytes, and the number of vCPUs of a VM for spec: what
// its limits say, or the given defaults where it has none. A memory limit is
// the workload's, and the guest's own needs come on top.
func Size(spec *specs.Spec, memory uint64, cpus int) (uint64, int) {
	if spec.Linux == nil || spec.Linux.Resources == nil {
		return memory, cpus
	}
	r := spec.Linux.Resources
	if r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 {
		limit := uint64(*r.Memory.Limit)
		memory = max((limit+Overhead+limit/64+MiB-1)/MiB*MiB, MinMemory)
	}
	if c := r.CPU; c != nil {
		if n := countCPUs(c.Cpus); n > 0 {
			cpus = min(n, runtime.NumCPU(), MaxCPUs)
		}
	}
	if c := r.CPU; c != nil && c.Quota != nil && *c.Quota > 0 {
		period := uint64(100_000) // µs, the kernel's default
		if c.Period != nil && *c.Period > 0 {
			period = *c.Period
		}
		quota := uint64(*c.Quota)
		most := min(runtime.NumCPU(), MaxCPUs)
		if c.Cpus != "" {
			most = max(cpus, 1)
		}
		cpus = int(min((quota+period-1)/period, uint64(most)))
	}
	return memory, max(cpus, 1)
}

// Need returns the RAM, in bytes, that the memory limit of r takes; 0 without one.
func Need(r *specs.LinuxResources) uint64 {
	need, _ := Size(&specs.Spec{Linux: &specs.Linux{Resources: r}}, 0, 0)
	return need
}

// LargestLimit is the largest memory limit, in bytes, for which Size gives a VM of no
// more than ram.
func LargestLimit(ram uint64) uint64 {
	if ram < Overhead {
		return 0
	}
	limit := (ram - Overhead) / 65 * 64
	for limit+Overhead+limit/64 <= ram {
		limit++
	}
	return limit - 1
}

// countCPUs counts the processors of a list (cpuset(7) "List format"); 0 for an
// empty one, or what is no list.
func countCPUs(list string) int {
	seen := map[uint64]bool{}
	for part := range strings.SplitSeq(list, ",") {
		first, last, ok := strings.Cut(strings.TrimSpace(part), "-")
		if !ok {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 16)
		b, errB := strconv.ParseUint(last, 10, 16)
		if errA != nil || errB != nil {
			continue
		}
		for n := a; n <= b; n++ {
			seen[n] = true
		}
	}
	return len(seen)
}
