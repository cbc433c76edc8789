package vm

import (
	"runtime"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestCountCPUs(t *testing.T) {
	for list, want := range map[string]int{"": 0, "0": 1, "0-1": 2, "0,2-3, 2": 3, "3-1": 0, "x": 0, "0-99999": 0} {
		if got := countCPUs(list); got != want {
			t.Errorf("%q: got %d, want %d", list, got, want)
		}
	}
}

func TestLargestLimit(t *testing.T) {
	for _, ram := range []uint64{0, 48 * MiB, 65 * MiB, 194 * MiB, 512 * MiB, 64 << 30} {
		limit := int64(LargestLimit(ram))
		size := func(limit int64) uint64 {
			n, _ := Size(&specs.Spec{Linux: &specs.Linux{Resources: &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}}}, 0, 1)
			return n
		}
		if limit > 0 && size(limit) > ram || size(limit+1) <= ram {
			t.Errorf("RAM of %d: %d", ram, limit)
		}
	}
}

func TestSize(t *testing.T) {
	ptr := func(n int64) *int64 { return &n }
	host := min(runtime.NumCPU(), MaxCPUs)
	for _, tt := range []struct {
		name   string
		r      *specs.LinuxResources
		memory uint64 // MiB
		cpus   int
	}{
		{"no limits", nil, 512, 1},
		{"memory", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(128 * MiB)}}, 194, 1},
		{"no limit of memory", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(-1)}}, 512, 1},
		{"quota of one and a half", &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(150000)}}, 512, min(2, host)},
		{"cpus", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-1"}}, 512, min(2, host)},
		{"cpus and a quota of less", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-1", Quota: ptr(50000)}}, 512, 1},
		{"cpus and a quota of more", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0", Quota: ptr(500000)}}, 512, 1},
	} {
		memory, cpus := Size(&specs.Spec{Linux: &specs.Linux{Resources: tt.r}}, 512*MiB, 1)
		if memory != tt.memory*MiB || cpus != tt.cpus {
			t.Errorf("%s: got %d MiB, %d cpus, want %d, %d", tt.name, memory/MiB, cpus, tt.memory, tt.cpus)
		}
	}
}
