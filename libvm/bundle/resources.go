package bundle

import (
	"fmt"
	"reflect"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// MaxResources bounds the JSON of an update: limits of every disk fit.
const MaxResources = 1 << 20 // bytes

// ParseResources decodes limits as `update --resources` takes them: linux.resources
// of config.json, of which what does not change can be left out.
func ParseResources(data []byte) (*specs.LinuxResources, error) {
	if len(data) > MaxResources {
		return nil, fmt.Errorf("resources are larger than %d bytes", MaxResources)
	}
	r := new(specs.LinuxResources)
	if err := decode("resources", data, r); err != nil {
		return nil, err
	}
	return r, nil
}

// Update returns the limits old with those of change, where that sets any: nil, 0
// and "" mean that nothing changes, as by runc and for Docker. Of a quota and its
// period one alone can change. With a new idle the shares are left as they are.
// What no update changes is returned as paths of config.json: an engine may send
// all that it knows.
func Update(old, change *specs.LinuxResources) (next *specs.LinuxResources, unchanged []string) {
	n := specs.LinuxResources{}
	if old != nil {
		n = *old
	}
	n.Memory = updateMemory(n.Memory, change.Memory)
	n.CPU = updateCPU(n.CPU, change.CPU)
	if p := change.Pids; p != nil && deref(p.Limit) != 0 {
		n.Pids = p
	}
	n.BlockIO = updateBlockIO(n.BlockIO, change.BlockIO)
	if change.Unified != nil {
		n.Unified = change.Unified
	}
	was, is := reflect.ValueOf(specs.LinuxResources{}), reflect.ValueOf(*change)
	if old != nil {
		was = reflect.ValueOf(*old)
	}
	for i := range is.NumField() {
		switch name := is.Type().Field(i).Name; name {
		case "Devices", "HugepageLimits", "Network", "Rdma":
			if !is.Field(i).IsZero() && !reflect.DeepEqual(is.Field(i).Interface(), was.Field(i).Interface()) {
				unchanged = append(unchanged, "linux.resources."+jsonName(is.Type().Field(i)))
			}
		}
	}
	return &n, unchanged
}

// replace sets a limit by a new one that says something.
func replace[T comparable](to **T, from *T) {
	var zero T
	if from != nil && *from != zero {
		*to = from
	}
}

func updateMemory(old, change *specs.LinuxMemory) *specs.LinuxMemory {
	if change == nil {
		return old
	}
	n := specs.LinuxMemory{}
	if old != nil {
		n = *old
	}
	replace(&n.Limit, change.Limit)
	replace(&n.Reservation, change.Reservation)
	if deref(change.Limit) == -1 && change.Swap == nil {
		n.Swap = nil // no limit of memory is none of both
	}
	replace(&n.Swap, change.Swap)
	n.CheckBeforeUpdate = change.CheckBeforeUpdate
	return &n
}

func updateCPU(old, change *specs.LinuxCPU) *specs.LinuxCPU {
	if change == nil {
		return old
	}
	n := specs.LinuxCPU{}
	if old != nil {
		n = *old
	}
	replace(&n.Shares, change.Shares)
	if change.Idle != nil {
		n.Idle = change.Idle
		if change.Shares == nil {
			n.Shares = nil // the kernel refuses a weight for an idle cgroup
		}
	}
	replace(&n.Quota, change.Quota)
	replace(&n.Period, change.Period)
	replace(&n.RealtimeRuntime, change.RealtimeRuntime)
	replace(&n.RealtimePeriod, change.RealtimePeriod)
	if change.Burst != nil {
		n.Burst = change.Burst
	}
	if change.Cpus != "" {
		n.Cpus = change.Cpus
	}
	if change.Mems != "" {
		n.Mems = change.Mems
	}
	return &n
}

func updateBlockIO(old, change *specs.LinuxBlockIO) *specs.LinuxBlockIO {
	if change == nil || deref(change.Weight) == 0 {
		return old
	}
	n := specs.LinuxBlockIO{}
	if old != nil {
		n = *old
	}
	n.Weight = change.Weight
	return &n
}

// CheckUpdate checks the limits of an update as those of config.json are.
func CheckUpdate(r *specs.LinuxResources) error {
	if err := newWalker().check(reflect.ValueOf(r).Elem(), "linux.resources", "linux.resources"); err != nil {
		return err
	}
	return checkResources(&specs.Linux{Resources: r})
}
