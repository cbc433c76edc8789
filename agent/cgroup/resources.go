package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// setting is one file of a cgroup and what is written to it.
type setting struct {
	field string // of linux.resources, for errors
	file  string
	value string
	// missingOK: the file may be absent, as without swap in the kernel the
	// limit holds anyway.
	missingOK bool
}

// Apply writes the limits of linux.resources. Devices are a BPF program
// (AttachDevices); the rest of blockIO, network and rdma name devices of the host,
// and are its business.
func (g *Group) Apply(r *specs.LinuxResources) error {
	list, err := settings(r)
	if err != nil {
		return err
	}
	for _, s := range list {
		if err := g.write(s); err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) write(s setting) error {
	err := os.WriteFile(g.dir+"/"+s.file, []byte(s.value), 0)
	missing := errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) // os.WriteFile would create it
	switch {
	case err == nil || s.missingOK && missing:
		return nil
	case missing && strings.HasPrefix(s.field, "unified."):
		// The words are runc's.
		if controller, _, _ := strings.Cut(s.file, "."); !g.has(controller) {
			return fmt.Errorf("unified resource %q can't be set: controller %q not available", s.file, controller)
		}
		return fmt.Errorf("unable to set unified resource %q: %w", s.file, err)
	}
	return fmt.Errorf("linux.resources.%s: write %q: %w", s.field, s.value, err)
}

// has says whether the cgroup has a controller.
func (g *Group) has(controller string) bool {
	b, err := os.ReadFile(g.dir + "/cgroup.controllers")
	return err == nil && (controller == "cgroup" || slices.Contains(strings.Fields(string(b)), controller))
}

func settings(r *specs.LinuxResources) ([]setting, error) {
	if r == nil {
		return nil, nil
	}
	list, err := memory(r.Memory)
	if err != nil {
		return nil, err
	}
	c, err := cpu(r.CPU)
	if err != nil {
		return nil, err
	}
	list = append(list, c...)
	if p := r.Pids; p != nil && p.Limit != nil && *p.Limit != 0 {
		list = append(list, setting{field: "pids.limit", file: "pids.max", value: limit(*p.Limit)})
	}
	if b := r.BlockIO; b != nil && deref(b.Weight) != 0 {
		// Of either, and only if the guest has a disk.
		list = append(list,
			setting{"blockIO.weight", "io.bfq.weight", strconv.Itoa(int(*b.Weight)), true},
			setting{"blockIO.weight", "io.weight", strconv.Itoa(ioWeight(*b.Weight)), true})
	}
	for _, h := range r.HugepageLimits {
		if strings.ContainsAny(h.Pagesize, "/ ") {
			return nil, fmt.Errorf("linux.resources.hugepageLimits: page size %q", h.Pagesize)
		}
		// Pages of a size that this processor does not have cannot be used.
		list = append(list, setting{"hugepageLimits", "hugetlb." + h.Pagesize + ".max", strconv.FormatUint(h.Limit, 10), true})
	}
	keys := make([]string, 0, len(r.Unified))
	for k := range r.Unified {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		// The words are runc's.
		if strings.Contains(k, "/") {
			return nil, fmt.Errorf("unified resource %q must be a file name (no slashes)", k)
		}
		if !strings.Contains(k, ".") {
			return nil, fmt.Errorf("unified resource %q must be in the form CONTROLLER.PARAMETER", k)
		}
		list = append(list, setting{field: "unified." + k, file: k, value: r.Unified[k]})
	}
	return list, nil
}

// limit writes a limit in bytes or processes: every negative one is none.
func limit(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

func memory(m *specs.LinuxMemory) ([]setting, error) {
	if m == nil {
		return nil, nil
	}
	var list []setting
	mem := deref(m.Limit)
	swap, err := swapLimit(deref(m.Swap), mem)
	if err != nil {
		return nil, fmt.Errorf("linux.resources.memory.swap: %w", err)
	}
	if swap != 0 || (m.Swap != nil && *m.Swap == mem && mem > 0) {
		list = append(list, setting{"memory.swap", "memory.swap.max", limit(swap), true})
	}
	if mem != 0 {
		list = append(list, setting{field: "memory.limit", file: "memory.max", value: limit(mem)})
	}
	if n := deref(m.Reservation); n != 0 {
		list = append(list, setting{field: "memory.reservation", file: "memory.low", value: limit(n)})
	}
	return list, nil
}

// swapLimit turns memory+swap of the spec into swap alone, as cgroup v2 has it.
// 0 is unset.
func swapLimit(memSwap, mem int64) (int64, error) {
	switch {
	case mem == -1 && memSwap == 0:
		return -1, nil // "unlimited memory" meant both in version 1
	case memSwap == -1, memSwap == 0, mem == -1:
		return memSwap, nil
	case mem == 0:
		return 0, errors.New("unable to set swap limit without memory limit")
	case mem < 0:
		return 0, fmt.Errorf("invalid memory value: %d", mem)
	case memSwap < mem:
		return 0, errors.New("memory+swap limit should be >= memory limit")
	}
	return memSwap - mem, nil
}

func cpu(c *specs.LinuxCPU) ([]setting, error) {
	if c == nil {
		return nil, nil
	}
	if deref(c.RealtimePeriod) != 0 || deref(c.RealtimeRuntime) != 0 {
		return nil, errors.New("linux.resources.cpu.realtimeRuntime: cgroup v2 has no realtime limits")
	}
	var list []setting
	if c.Idle != nil {
		list = append(list, setting{field: "cpu.idle", file: "cpu.idle", value: strconv.FormatInt(*c.Idle, 10)})
	}
	// The kernel refuses a weight for an idle cgroup.
	if n := deref(c.Shares); n != 0 && deref(c.Idle) != 1 {
		list = append(list, setting{field: "cpu.shares", file: "cpu.weight", value: strconv.FormatUint(weight(n), 10)})
	}
	if quota, period := deref(c.Quota), deref(c.Period); quota != 0 || period != 0 {
		v := "max"
		if quota > 0 {
			v = strconv.FormatInt(quota, 10)
		}
		if period == 0 {
			period = 100000 // µs, the kernel's default
		}
		list = append(list, setting{field: "cpu.quota", file: "cpu.max", value: v + " " + strconv.FormatUint(period, 10)})
	}
	if n := deref(c.Burst); n != 0 {
		list = append(list, setting{field: "cpu.burst", file: "cpu.max.burst", value: strconv.FormatUint(n, 10)})
	}
	if c.Cpus != "" {
		list = append(list, setting{field: "cpu.cpus", file: "cpuset.cpus", value: c.Cpus})
	}
	if c.Mems != "" {
		list = append(list, setting{field: "cpu.mems", file: "cpuset.mems", value: c.Mems})
	}
	return list, nil
}

// weight turns shares of version 1, 2 to 262144, into a weight of version 2, 1 to
// 10000, so that the minima, the maxima and the defaults (1024 and 100) agree:
// the formula of opencontainers/cgroups v0.1.0.
func weight(shares uint64) uint64 {
	if shares <= 2 {
		return 1
	}
	if shares >= 262144 {
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612.0-7.0/34.0)))
}

// ioWeight turns a weight of version 1, 10 to 1000, into one of version 2, 1 to
// 10000: the line of opencontainers/cgroups v0.1.0.
func ioWeight(w uint16) int { return 1 + (max(int(w), 10)-10)*9999/990 }

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
