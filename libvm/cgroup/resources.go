package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Slack is the memory, in bytes, that a VM may use on the host beside its RAM: the
// monitor, QEMU with what it translates, page tables, and what the kernel charges
// for files and sockets.
const Slack = 256 << 20

// Threads is how many threads a VM may have beside the processes of its workload,
// which are not the host's: most of all two for each Unix socket and stream that is
// relayed, of which the guest can open 512. Go dies if it cannot make one.
const Threads = 2048

// Set writes limits, as far as r names any, and, with a list, which devices the
// group's processes may use. ram is the VM's, in bytes.
func (g *Group) Set(r *specs.LinuxResources, ram uint64, devices Devices) error {
	all := g.resources(r, ram)
	var err error
	if all.CPUIdle != nil && *all.CPUIdle == 0 {
		// Before the shares, which the kernel refuses for an idle group.
		err = g.manager.Set(&cgroups.Resources{CPUIdle: all.CPUIdle})
	}
	if err == nil {
		err = g.manager.Set(all)
	}
	if err != nil {
		return fmt.Errorf("error setting cgroup config: %w", err)
	}
	return g.setDevices(devices)
}

// v2 says whether the host has the unified hierarchy only.
func (g *Group) v2() bool { _, ok := g.place.Paths[""]; return ok && len(g.place.Paths) == 1 }

// resources says what the host's group of a container is limited to.
func (g *Group) resources(r *specs.LinuxResources, ram uint64) *cgroups.Resources {
	out := &cgroups.Resources{}
	if r == nil {
		return out
	}
	setMemory(out, r.Memory, ram)
	setCPU(out, r.CPU)
	if r.Pids != nil && r.Pids.Limit != nil {
		n := *r.Pids.Limit
		if n > 0 {
			n += Threads
		}
		out.PidsLimit = &n
	}
	setBlockIO(out, r.BlockIO)
	for _, l := range r.HugepageLimits {
		// They are the guest's; where the host can count them, too, it does.
		if g.hasHugepages(l.Pagesize) {
			out.HugetlbLimit = append(out.HugetlbLimit, &cgroups.HugepageLimit{Pagesize: l.Pagesize, Limit: l.Limit})
		}
	}
	if n := r.Network; n != nil {
		if n.ClassID != nil {
			out.NetClsClassid = *n.ClassID
		}
		for _, p := range n.Priorities {
			out.NetPrioIfpriomap = append(out.NetPrioIfpriomap, &cgroups.IfPrioMap{Interface: p.Name, Priority: int64(p.Priority)})
		}
	}
	for device, l := range r.Rdma {
		if out.Rdma == nil {
			out.Rdma = map[string]cgroups.LinuxRdma{}
		}
		out.Rdma[device] = cgroups.LinuxRdma{HcaHandles: l.HcaHandles, HcaObjects: l.HcaObjects}
	}
	if g.v2() {
		out.Unified = unified(r.Unified, ram)
	}
	return out
}

// setMemory bounds the VM: whatever the workload's limit is, and becomes, the VM
// can use its RAM, and what it needs beside that.
func setMemory(out *cgroups.Resources, m *specs.LinuxMemory, ram uint64) {
	if m == nil {
		return
	}
	limit := deref(m.Limit)
	out.Memory = limit
	if limit > 0 {
		out.Memory = int64(ram) + Slack
	}
	out.MemorySwap = deref(m.Swap)
	if out.MemorySwap > 0 && limit > 0 {
		out.MemorySwap += out.Memory - limit
	}
	out.MemoryReservation = deref(m.Reservation)
	out.MemorySwappiness = m.Swappiness
	out.OomKillDisable = deref(m.DisableOOMKiller)
}

func setCPU(out *cgroups.Resources, c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	out.CpuShares = deref(c.Shares)
	out.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(out.CpuShares)
	out.CpuQuota, out.CpuPeriod, out.CpuBurst = deref(c.Quota), deref(c.Period), c.Burst
	out.CpusetCpus, out.CpusetMems, out.CPUIdle = c.Cpus, c.Mems, c.Idle
}

func setBlockIO(out *cgroups.Resources, b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	out.BlkioWeight, out.BlkioLeafWeight = deref(b.Weight), deref(b.LeafWeight)
	for _, d := range b.WeightDevice {
		out.BlkioWeightDevice = append(out.BlkioWeightDevice, cgroups.NewWeightDevice(d.Major, d.Minor, deref(d.Weight), deref(d.LeafWeight)))
	}
	for _, t := range []struct {
		to   *[]*cgroups.ThrottleDevice
		from []specs.LinuxThrottleDevice
	}{
		{&out.BlkioThrottleReadBpsDevice, b.ThrottleReadBpsDevice},
		{&out.BlkioThrottleWriteBpsDevice, b.ThrottleWriteBpsDevice},
		{&out.BlkioThrottleReadIOPSDevice, b.ThrottleReadIOPSDevice},
		{&out.BlkioThrottleWriteIOPSDevice, b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.from {
			*t.to = append(*t.to, cgroups.NewThrottleDevice(d.Major, d.Minor, d.Rate))
		}
	}
}

// unified are the files of cgroup v2 that are the host's business, too, with the
// VM's own needs on top. Those of the core, cgroup.freeze say, are about the
// workload.
func unified(files map[string]string, ram uint64) map[string]string {
	var out map[string]string
	for name, value := range files {
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 63)
		switch {
		case strings.HasPrefix(name, "cgroup."):
			continue
		case err != nil:
		case name == "memory.max" || name == "memory.high":
			value = strconv.FormatUint(max(n, ram)+Slack, 10)
		case name == "pids.max":
			value = strconv.FormatUint(n+Threads, 10)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = value
	}
	return out
}

// hasHugepages says whether the group counts pages of a size, "2MB" say.
func (g *Group) hasHugepages(size string) bool {
	if strings.Contains(size, "/") {
		return false
	}
	dir, file := g.manager.Path("hugetlb"), "hugetlb."+size+".limit_in_bytes"
	if g.v2() {
		file = "hugetlb." + size + ".max"
	}
	if dir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, file))
	return !errors.Is(err, fs.ErrNotExist)
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
