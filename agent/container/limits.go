package container

import (
	"context"
	"strconv"
	"time"

	"runv/agent/cgroup"
	"runv/agent/wire"
)

// Update changes the limits of the container to those of resources
// (wire.MarshalResources); with checkMemory not below what is in use.
func (c *Container) Update(resources []byte, checkMemory bool) error {
	r, err := wire.UnmarshalResources(resources)
	if err != nil {
		return err
	}
	if m := r.Memory; checkMemory && m != nil {
		if err := c.group.CheckMemory(m.Limit, m.Swap); err != nil {
			return err
		}
	}
	return c.group.Apply(r)
}

// Metrics reads what the container uses.
func (c *Container) Metrics() []cgroup.File {
	files := c.group.Metrics()
	if f, err := cgroup.ReadMetric("/proc/"+strconv.Itoa(c.Pid())+"/net/dev", "net/dev"); err == nil {
		files = append(files, f) // there is none once the process has ended
	}
	return files
}

// oomWait is how long AwaitOOM waits at most: a host that does not want to know
// any more does not say so.
const oomWait = 10 * time.Second

// AwaitOOM waits until more processes than seen were killed for want of memory, or
// the container has ended, or some seconds, and returns how many, and whether.
func (c *Container) AwaitOOM(ctx context.Context, seen uint64) (killed uint64, ended bool) {
	ctx, cancel := context.WithTimeout(ctx, oomWait)
	defer cancel()
	over := make(chan struct{})
	defer close(over)
	go func() { // ends with this call
		select {
		case <-c.init.proc.Done():
			cancel()
		case <-over:
		}
	}()
	killed = c.group.AwaitOOM(ctx, seen)
	select {
	case <-c.init.proc.Done():
		return killed, true
	default:
		return killed, false
	}
}
