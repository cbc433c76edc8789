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

// WaitEmpty waits until no process is in the cgroup or below it.
func (g *Group) WaitEmpty(ctx context.Context) error { return g.await(ctx, "populated 0") }

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
	return g.await(ctx, want)
}

// await waits until a line of cgroup.events is as wanted, or the cgroup is gone.
func (g *Group) await(ctx context.Context, want string) error {
	f, err := os.Open(g.dir + "/cgroup.events")
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
		if strings.Contains(string(b[:n]), want) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait for %q of cgroup %s: %w", want, g.Path, err)
		}
		// A change of the file is an exceptional condition (cgroup-v2.rst,
		// "cgroup.events"). The timeout lets ctx be looked at.
		p := [1]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		_, _ = unix.Poll(p[:], 100)
	}
}
