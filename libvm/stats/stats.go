// Package stats is what `runv events` prints: the form of runc's types.Stats (runc
// v1.3 types/events.go), names and order included, as that is on a host with cgroup
// v2.
package stats

import "github.com/opencontainers/cgroups"

// Event is a line of `runv events`.
type Event struct {
	Type string `json:"type"` // "stats" or "oom"
	ID   string `json:"id"`   // of the container
	Data *Stats `json:"data,omitempty"`
}

// Stats is what a container uses.
type Stats struct {
	CPU        CPU                `json:"cpu"`
	CPUSet     CPUSet             `json:"cpuset"`
	Memory     Memory             `json:"memory"`
	Pids       Pids               `json:"pids"`
	Blkio      Blkio              `json:"blkio"`
	Hugetlb    map[string]Hugetlb `json:"hugetlb"`
	IntelRdt   struct{}           `json:"intel_rdt"`
	Interfaces []*Interface       `json:"network_interfaces"`
}

// CPU is time of the guest's processors, ns.
type CPU struct {
	Usage      CPUUsage          `json:"usage,omitempty"`
	Throttling Throttling        `json:"throttling,omitempty"`
	PSI        *cgroups.PSIStats `json:"psi,omitempty"`
}

// CPUUsage is in ns.
type CPUUsage struct {
	Total  uint64 `json:"total,omitempty"`
	Kernel uint64 `json:"kernel"`
	User   uint64 `json:"user"`
}

// Throttling says how often a quota was used up.
type Throttling struct {
	Periods          uint64 `json:"periods,omitempty"`
	ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
	ThrottledTime    uint64 `json:"throttledTime,omitempty"` // ns
}

// CPUSet is cgroup v1's alone; its zeros are printed.
type CPUSet struct {
	CPUExclusive          uint64 `json:"cpu_exclusive"`
	MemHardwall           uint64 `json:"mem_hardwall"`
	MemExclusive          uint64 `json:"mem_exclusive"`
	MemoryMigrate         uint64 `json:"memory_migrate"`
	MemorySpreadPage      uint64 `json:"memory_spread_page"`
	MemorySpreadSlab      uint64 `json:"memory_spread_slab"`
	MemoryPressure        uint64 `json:"memory_pressure"`
	SchedLoadBalance      uint64 `json:"sched_load_balance"`
	SchedRelaxDomainLevel int64  `json:"sched_relax_domain_level"`
}

// Memory is in bytes.
type Memory struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     MemoryEntry       `json:"usage,omitempty"`
	Swap      MemoryEntry       `json:"swap,omitempty"` // memory and swap
	Kernel    MemoryEntry       `json:"kernel,omitempty"`
	KernelTCP MemoryEntry       `json:"kernelTCP,omitempty"`
	Raw       map[string]uint64 `json:"raw,omitempty"` // memory.stat
	PSI       *cgroups.PSIStats `json:"psi,omitempty"`
}

// MemoryEntry is in bytes; no limit is 2^64-1.
type MemoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// Pids counts processes; no limit is 0.
type Pids struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

// Blkio is what was read from and written to the guest's disks.
type Blkio struct {
	ServiceBytes []BlkioEntry      `json:"ioServiceBytesRecursive,omitempty"`
	Serviced     []BlkioEntry      `json:"ioServicedRecursive,omitempty"`
	PSI          *cgroups.PSIStats `json:"psi,omitempty"`
}

// BlkioEntry is a number of bytes or operations.
type BlkioEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"` // "Read" or "Write"
	Value uint64 `json:"value,omitempty"`
}

// Hugetlb is about huge pages of a size; bytes.
type Hugetlb struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// Interface is a network interface of the container but the loopback.
type Interface struct {
	Name      string
	RxBytes   uint64
	RxPackets uint64
	RxErrors  uint64
	RxDropped uint64
	TxBytes   uint64
	TxPackets uint64
	TxErrors  uint64
	TxDropped uint64
}
