package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// idleTime is how long a container is left alone before its memory is looked at:
// the monitor gives back what it needed to start when that is over.
const idleTime = 5 * time.Second

// kvmMemory tells what an idle container takes beyond its guest's RAM.
func (b *bench) kvmMemory(ctx context.Context, own, other runtime) error {
	dir, err := b.bundle(ctx, "idle", sleeps)
	if err != nil {
		return err
	}
	b.progress("memory of an idle container")
	for _, r := range []runtime{own, other} {
		if err := b.idle(ctx, r, dir); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

// idle adds the memory of an idle container.
func (b *bench) idle(ctx context.Context, r runtime, bundle string) (err error) {
	c, err := r.detached(ctx, bundle, "bench-idle")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.end()) }()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(idleTime):
	}
	var all pss
	goal := float64(goalBeyond)
	if err := all.add(c.pid, b.kernel); err != nil {
		return err
	}
	if r.name == overQEMU {
		goal = 0
		qemu, _, err := qemuOf(c.pid)
		if err != nil {
			return err
		}
		if err := all.add(qemu, b.kernel); err != nil {
			return err
		}
	}
	for _, v := range []struct {
		what        string
		value, goal float64
	}{
		{"guest-ram", all.guest, 0},
		{"beyond-guest-ram", all.beyond(), goal},
		{"heap-and-stacks", all.other, 0},
		{"files", all.file, 0},
		{"initramfs", all.initrd, 0},
	} {
		b.table.value("host-pss:"+r.name, v.what, "MB", v.value/mb, v.goal)
	}
	return nil
}

// streamBytes is what a reading of a stream's throughput sends.
const streamBytes = 16 << 20

// kvmStreams compares how fast a process's output comes to the host.
func (b *bench) kvmStreams(ctx context.Context, own, other runtime) (failed error) {
	dir, err := b.bundle(ctx, "stream", sleeps)
	if err != nil {
		return err
	}
	var variants []variant
	for _, r := range []runtime{own, other} {
		c, err := r.detached(ctx, dir, "bench-stream")
		if err != nil {
			return err
		}
		defer func() { failed = errors.Join(failed, c.end()) }()
		variants = append(variants, variant{r.name, func(ctx context.Context) ([]reading, error) { return c.stream(ctx) }})
	}
	all, err := b.interleave(ctx, "output of exec", b.n, variants...)
	if err != nil {
		return err
	}
	b.table.compare("vsock:stdout-of-exec", "MB/s", all, "", nil)
	return nil
}

// stream has a process write, and returns the MB/s from the first byte on.
func (c running) stream(ctx context.Context) ([]reading, error) {
	const block = 1 << 16
	cmd := c.runtime.command(ctx, "exec", c.id, "dd", "if=/dev/zero", "bs="+strconv.Itoa(block), "count="+strconv.Itoa(streamBytes/block))
	var stderr bytes.Buffer
	var out meter
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s exec: %w: %s", c.runtime.name, err, &stderr)
	}
	rate, err := out.rate(streamBytes)
	return []reading{{value: rate}}, err
}

// meter counts what is written to it, and notes when.
type meter struct {
	first, last time.Time
	head        int // bytes of the first write, which took an unknown time
	bytes       int
}

func (m *meter) Write(p []byte) (int, error) {
	m.last = time.Now()
	if m.bytes == 0 {
		m.first, m.head = m.last, len(p)
	}
	m.bytes += len(p)
	return len(p), nil
}

// rate returns the MB/s of a stream of so many bytes.
func (m *meter) rate(want int) (float64, error) {
	if m.bytes != want {
		return 0, fmt.Errorf("%d bytes came, and not %d", m.bytes, want)
	}
	took := m.last.Sub(m.first)
	if took <= 0 {
		return 0, errors.New("all bytes came at once")
	}
	return float64(m.bytes-m.head) / mb / took.Seconds(), nil
}

// filesPart is the part of the file system's work that is done: all of it would
// take an emulated host a quarter of an hour.
const filesPart = 8

// kvmFiles has the same work done over virtio-fs.
func (b *bench) kvmFiles(ctx context.Context, own, other runtime) error {
	dir, _, err := b.ioBundle(ctx, filesPart)
	if err != nil {
		return err
	}
	all, err := b.interleave(ctx, "file system", max(b.n/2, 1), works(own, dir), works(other, dir))
	if err != nil {
		return err
	}
	b.table.compareAll("fs:", "ms", all, nil)
	return nil
}
