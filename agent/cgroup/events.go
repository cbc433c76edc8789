package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Files of a cgroup that say when they change.
const (
	cgroupEvents = "cgroup.events"
	memoryEvents = "memory.events"
)

// WaitEmpty waits until no process is in the cgroup or below it.
func (g *Group) WaitEmpty(ctx context.Context) error { return g.awaitLine(ctx, "populated 0") }

// AwaitOOM waits until more processes than seen were killed for want of memory, or
// ctx ends, and returns how many.
func (g *Group) AwaitOOM(ctx context.Context, seen uint64) uint64 {
	killed := seen
	_ = g.await(ctx, memoryEvents, func(events string) bool { // that ctx ended is no error here
		killed = oomKilled(events)
		return killed > seen
	})
	return killed
}

// Freeze stops every process in the cgroup and below it, or lets them go on, and
// waits until that is done. A frozen process can still be killed.
func (g *Group) Freeze(ctx context.Context, frozen bool) error {
	value, want := "0", "frozen 0"
	if frozen {
		value, want = "1", "frozen 1"
	}
	if err := os.WriteFile(g.dir+"/cgroup.freeze", []byte(value), 0); err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	return g.awaitLine(ctx, want)
}

// awaitLine waits until a line of cgroup.events is as wanted, or the cgroup is gone.
func (g *Group) awaitLine(ctx context.Context, want string) error {
	err := g.await(ctx, cgroupEvents, func(events string) bool { return strings.Contains(events, want) })
	if err != nil {
		return fmt.Errorf("wait for %q of cgroup %s: %w", want, g.Path, err)
	}
	return nil
}

// await waits until a file that tells of its changes is as wanted, or the cgroup is
// gone.
func (g *Group) await(ctx context.Context, file string, wanted func(string) bool) error {
	f, err := os.Open(g.dir + "/" + file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var b [256]byte
	for {
		n, err := f.ReadAt(b[:], 0)
		if n == 0 && err != nil {
			return nil // ENODEV: removed
		}
		if wanted(string(b[:n])) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		// A change of the file is an exceptional condition (cgroup-v2.rst,
		// "cgroup.events"). The timeout lets ctx be looked at.
		p := [1]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		_, _ = unix.Poll(p[:], 100)
	}
}
