package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/libvm/state"
)

func ptr[T any](v T) *T { return &v }

func TestClean(t *testing.T) {
	for in, want := range map[string]string{"/a/../../b": "/b", "a/b/": "a/b", "../../a": "a", "/": "/"} {
		if got := clean(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestResources(t *testing.T) {
	const ram = 200 << 20
	tests := []struct {
		name string
		v2   bool
		in   *specs.LinuxResources
		want *cgroups.Resources
	}{
		{"none", false, nil, &cgroups.Resources{}},
		{"memory", false, &specs.LinuxResources{Memory: &specs.LinuxMemory{
			Limit: ptr(int64(100 << 20)), Swap: ptr(int64(150 << 20)), Reservation: ptr(int64(7)), Swappiness: ptr(uint64(3)), DisableOOMKiller: ptr(true)}},
			&cgroups.Resources{Memory: ram + Slack, MemorySwap: ram + Slack + 50<<20, MemoryReservation: 7, MemorySwappiness: ptr(uint64(3)), OomKillDisable: true}},
		{"unlimited memory", false, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1)), Swap: ptr(int64(-1))}},
			&cgroups.Resources{Memory: -1, MemorySwap: -1}},
		{"cpu", false, &specs.LinuxResources{CPU: &specs.LinuxCPU{
			Shares: ptr(uint64(1024)), Quota: ptr(int64(5)), Period: ptr(uint64(6)), Burst: ptr(uint64(7)), Cpus: "0", Mems: "1", Idle: ptr(int64(1))}},
			&cgroups.Resources{CpuShares: 1024, CpuWeight: 100, CpuQuota: 5, CpuPeriod: 6, CpuBurst: ptr(uint64(7)), CpusetCpus: "0", CpusetMems: "1", CPUIdle: ptr(int64(1))}},
		{"pids", false, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(1))}}, &cgroups.Resources{PidsLimit: ptr(int64(1 + Threads))}},
		{"any pids", false, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}, &cgroups.Resources{PidsLimit: ptr(int64(-1))}},
		{"disks", false, &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{
			Weight: ptr(uint16(500)), LeafWeight: ptr(uint16(300)),
			WeightDevice:            []specs.LinuxWeightDevice{weightDevice(8, 0, 400)},
			ThrottleReadBpsDevice:   []specs.LinuxThrottleDevice{throttleDevice(8, 0, 1)},
			ThrottleWriteBpsDevice:  []specs.LinuxThrottleDevice{throttleDevice(8, 0, 2)},
			ThrottleReadIOPSDevice:  []specs.LinuxThrottleDevice{throttleDevice(8, 0, 3)},
			ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{throttleDevice(8, 0, 4)}}},
			&cgroups.Resources{BlkioWeight: 500, BlkioLeafWeight: 300,
				BlkioWeightDevice:            []*cgroups.WeightDevice{cgroups.NewWeightDevice(8, 0, 400, 0)},
				BlkioThrottleReadBpsDevice:   []*cgroups.ThrottleDevice{cgroups.NewThrottleDevice(8, 0, 1)},
				BlkioThrottleWriteBpsDevice:  []*cgroups.ThrottleDevice{cgroups.NewThrottleDevice(8, 0, 2)},
				BlkioThrottleReadIOPSDevice:  []*cgroups.ThrottleDevice{cgroups.NewThrottleDevice(8, 0, 3)},
				BlkioThrottleWriteIOPSDevice: []*cgroups.ThrottleDevice{cgroups.NewThrottleDevice(8, 0, 4)}}},
		{"network and rdma", false, &specs.LinuxResources{
			Network: &specs.LinuxNetwork{ClassID: ptr(uint32(9)), Priorities: []specs.LinuxInterfacePriority{{Name: "eth0", Priority: 5}}},
			Rdma:    map[string]specs.LinuxRdma{"mlx5": {HcaHandles: ptr(uint32(2))}}},
			&cgroups.Resources{NetClsClassid: 9, NetPrioIfpriomap: []*cgroups.IfPrioMap{{Interface: "eth0", Priority: 5}},
				Rdma: map[string]cgroups.LinuxRdma{"mlx5": {HcaHandles: ptr(uint32(2))}}}},
		{"unified on v1", false, &specs.LinuxResources{Unified: map[string]string{"memory.high": "5"}}, &cgroups.Resources{}},
		{"unified", true, &specs.LinuxResources{Unified: map[string]string{
			"memory.max": "max", "memory.high": "5", "pids.max": "7", "cpu.weight": "3", "cgroup.freeze": "1"}},
			&cgroups.Resources{Unified: map[string]string{"memory.max": "max", "memory.high": "478150656", "pids.max": "2055", "cpu.weight": "3"}}},
		{"huge pages that the host does not count", false, &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "3MB", Limit: 1}, {Pagesize: "../x"}}}, &cgroups.Resources{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			place := state.Cgroup{Path: "/x", Paths: map[string]string{"devices": "/sys/fs/cgroup/devices/x"}}
			if tt.v2 {
				place.Paths = map[string]string{"": "/sys/fs/cgroup/x"}
			}
			g := &Group{place: place, manager: noManager{}}
			if diff := cmp.Diff(tt.want, g.resources(tt.in, ram), cmp.AllowUnexported(), cmp.Comparer(func(a, b *cgroups.WeightDevice) bool { return *a == *b }),
				cmp.Comparer(func(a, b *cgroups.ThrottleDevice) bool { return *a == *b })); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// noManager has no group.
type noManager struct{ cgroups.Manager }

func (noManager) Path(string) string { return "" }

func weightDevice(major, minor int64, weight uint16) specs.LinuxWeightDevice {
	d := specs.LinuxWeightDevice{Weight: &weight}
	d.Major, d.Minor = major, minor
	return d
}

func throttleDevice(major, minor int64, rate uint64) specs.LinuxThrottleDevice {
	d := specs.LinuxThrottleDevice{Rate: rate}
	d.Major, d.Minor = major, minor
	return d
}

func TestSystemdPath(t *testing.T) {
	_, err := Open("id", state.Cgroup{Path: "/a/b", Systemd: true})
	if err == nil || !strings.Contains(err.Error(), `expected cgroupsPath to be of format "slice:prefix:name"`) {
		t.Error(err)
	}
	if _, err := os.Lstat("/run/systemd/system"); err == nil {
		t.Skip("systemd is running")
	}
	if _, err := Open("id", state.Cgroup{Path: "a.slice:b:c", Systemd: true}); err == nil || !strings.Contains(err.Error(), "systemd not running") {
		t.Error(err)
	}
}

func TestProperties(t *testing.T) {
	got, err := properties(map[string]string{
		"org.systemd.property.TimeoutStopSec": "3", "org.systemd.property.CollectMode": "'inactive-or-failed'",
		"org.systemd.property.RuntimeMaxUSec": "uint64 5", "other": "x",
	})
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, p := range got {
		text = append(text, p.Name+"="+p.Value.String())
	}
	want := []string{`CollectMode="inactive-or-failed"`, "RuntimeMaxUSec=@t 5", "TimeoutStopUSec=@t 3000000"}
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
	for key, value := range map[string]string{"a b": "1", "Name": "'open", "WaitSec": "'x'", "GoSec": "-1", "lower": "1"} {
		if _, err := properties(map[string]string{PropertyPrefix + key: value}); err == nil {
			t.Errorf("%s=%s is a property", key, value)
		}
	}
}

// TestApply makes, joins, limits, leaves and removes a group of the machine's.
func TestApply(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes cgroups (try: sudo go test)")
	}
	path := "/" + filepath.Base(t.TempDir()) + "-" + t.Name()
	spec := &specs.Spec{Linux: &specs.Linux{CgroupsPath: path}}
	g, err := New("id", false, spec)
	if err != nil {
		t.Fatal(err)
	}
	place := g.Place()
	if len(place.Made) == 0 || len(place.Made) != len(place.Paths) {
		t.Fatalf("nothing of %v is to be made: %v", place.Paths, place.Made)
	}
	if err := g.Apply(-1); err != nil {
		t.Fatal(err)
	}
	devices := Devices{Lines: []string{"-a", "+c 1:3 rwm"}}
	if err := g.Set(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(5))}}, 1<<20, devices); err != nil {
		t.Error(err)
	}
	if list, err := os.ReadFile(g.manager.Path("devices") + "/devices.list"); err == nil && string(list) != "c 1:3 rwm\n" {
		t.Errorf("devices: %q", list)
	}
	again, err := Open("id", place)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Set(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(6))}}, 1<<20, Devices{}); err != nil {
		t.Error(err)
	}
	if second, err := New("id", false, spec); err != nil || len(second.Place().Made) != 0 {
		t.Errorf("a group that is there: %v, %v", second.Place().Made, err)
	}
	exit, err := OpenExit(place)
	if err != nil {
		t.Fatal(err)
	}
	defer exit.Close()
	if err := Remove("id", place); err != nil {
		t.Error(err)
	}
	for _, path := range place.Made {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
