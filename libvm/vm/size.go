package vm

import (
	"runtime"

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
	if c := r.CPU; c != nil && c.Quota != nil && *c.Quota > 0 {
		period := uint64(100_000) // µs, the kernel's default
		if c.Period != nil && *c.Period > 0 {
			period = *c.Period
		}
		quota := uint64(*c.Quota)
		cpus = int(min((quota+period-1)/period, uint64(min(runtime.NumCPU(), MaxCPUs))))
	}
	return memory, max(cpus, 1)
}
