package cgroup

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

func TestSettings(t *testing.T) {
	tests := []struct {
		name string
		r    *specs.LinuxResources
		want string // "file=value file=value"
		err  string
	}{
		{"none", nil, "", ""},
		{"memory", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](100), Reservation: ptr[int64](50)}},
			"memory.max=100 memory.low=50", ""},
		{"unlimited", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](-1)}},
			"memory.swap.max=max memory.max=max", ""},
		{"swap", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](100), Swap: ptr[int64](150)}},
			"memory.swap.max=50 memory.max=100", ""},
		{"no swap", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](100), Swap: ptr[int64](100)}},
			"memory.swap.max=0 memory.max=100", ""},
		{"less swap than memory", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](100), Swap: ptr[int64](99)}},
			"", "linux.resources.memory.swap: memory+swap limit should be >= memory limit"},
		{"swap alone", &specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr[int64](99)}},
			"", "linux.resources.memory.swap: unable to set swap limit without memory limit"},
		{"cpu", &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr[uint64](1024), Quota: ptr[int64](50000), Period: ptr[uint64](20000)}},
			"cpu.weight=100 cpu.max=50000 20000", ""},
		{"quota alone", &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr[int64](50000)}}, "cpu.max=50000 100000", ""},
		{"no quota", &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr[int64](-1)}}, "cpu.max=max 100000", ""},
		{"idle", &specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr[int64](1), Shares: ptr[uint64](2)}}, "cpu.idle=1", ""},
		{"sets", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-1", Mems: "0", Burst: ptr[uint64](5)}},
			"cpu.max.burst=5 cpuset.cpus=0-1 cpuset.mems=0", ""},
		{"realtime", &specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimeRuntime: ptr[int64](5)}},
			"", "linux.resources.cpu.realtimeRuntime: cgroup v2 has no realtime limits"},
		{"pids", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](9)}}, "pids.max=9", ""},
		{"any pids", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](-1)}}, "pids.max=max", ""},
		{"huge pages", &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 7}}},
			"hugetlb.2MB.max=7", ""},
		{"unified", &specs.LinuxResources{Unified: map[string]string{"memory.high": "5", "cpu.weight": "3"}},
			"cpu.weight=3 memory.high=5", ""},
		{"unified elsewhere", &specs.LinuxResources{Unified: map[string]string{"../memory.high": "5"}},
			"", `unified resource "../memory.high" must be a file name (no slashes)`},
		{"unified without controller", &specs.LinuxResources{Unified: map[string]string{"tasks": "5"}},
			"", `unified resource "tasks" must be in the form CONTROLLER.PARAMETER`},
		{"weight", &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr[uint16](500)}},
			"io.bfq.weight=500 io.weight=4950", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list, err := settings(tt.r)
			if (err == nil) != (tt.err == "") || (err != nil && err.Error() != tt.err) {
				t.Fatalf("%v, want %s", err, tt.err)
			}
			var got []string
			for _, s := range list {
				got = append(got, s.file+"="+s.value)
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{2: 1, 1024: 100, 262144: 10000, 1 << 40: 10000, 512: 59} {
		if got := weight(shares); got != want {
			t.Errorf("shares %d: weight %d, want %d", shares, got, want)
		}
	}
}

func TestPath(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", "/id"},
		{"/a/b", "/a/b"},
		{"a/../../b", "/b"},
		{"system.slice:docker:abc", "/system.slice/docker-abc.scope"},
		{":libpod:abc", "/system.slice/libpod-abc.scope"},
		{"a-b.slice:x:y", "/a.slice/a-b.slice/x-y.scope"},
		{"-.slice:x:y", "/x-y.scope"},
		{"a.slice::b.slice", "/a.slice/b.slice"},
		{"a--b.slice:x:y", ""},
		{"a/b.slice:x:y", ""},
		{"noslice:x:y", ""},
	}
	for _, tt := range tests {
		got, err := Path(tt.in, "id")
		if (err != nil) != (tt.want == "") || got != tt.want {
			t.Errorf("%q: %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}
