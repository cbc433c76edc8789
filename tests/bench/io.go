package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ioBundle makes the bundle in which a part of the work is done (1: all, 2: half
// of it …), and returns the program.
func (b *bench) ioBundle(ctx context.Context, part int) (dir string, program []byte, err error) {
	dir, err = b.bundle(ctx, "io", func(s *specs.Spec) {
		s.Process.Args = []string{"/work"}
		s.Process.Env = append(s.Process.Env, "BENCH_CONTAINER=1", fmt.Sprintf("BENCH_PART=%d", part))
		s.Root.Readonly = false
		s.Linux.ReadonlyPaths = nil // it drops the guest's caches
		s.Linux.MaskedPaths = nil
	})
	if err != nil {
		return "", nil, err
	}
	if program, err = os.ReadFile(b.work); err != nil {
		return "", nil, err
	}
	if err := os.WriteFile(dir+"/rootfs/work", program, 0o755); err != nil {
		return "", nil, err
	}
	return dir, program, writeSourceTree(dir+"/rootfs/src.tar", part)
}

// works is the work in a container.
func works(r runtime, bundle string) variant {
	return variant{r.name, func(ctx context.Context) ([]reading, error) {
		out, err := r.output(ctx, "run", "--bundle", bundle, "bench-io")
		if err != nil {
			return nil, err
		}
		return steps(out)
	}}
}

// measureIO has the same program do the same work in the same bare machine, over
// our file server and over virtiofsd, and once more in a container, whose cgroup,
// namespaces and agent cost something, too.
func (b *bench) measureIO(ctx context.Context) error {
	dir, program, err := b.ioBundle(ctx, 1)
	if err != nil {
		return err
	}
	m, err := b.machine(ctx, b.runv)
	if err != nil {
		return err
	}
	initrd, err := b.initrd("work.cpio", program)
	if err != nil {
		return err
	}
	over := func(name string, work func(context.Context, machine, string, string) ([]reading, error)) variant {
		return variant{name, func(ctx context.Context) ([]reading, error) { return work(ctx, m, initrd, dir+"/rootfs") }}
	}
	variants := []variant{over(ours, b.overOurs)}
	if _, err := os.Stat(virtiofsd); err != nil {
		b.progress("no %s: not compared with it (try: apt-get install qemu-system-common)", virtiofsd)
	} else {
		variants = append(variants, over("virtiofsd", b.overVirtiofsd))
	}
	container := works(b.runv, dir)
	container.name = "runv-container"
	variants = append(variants, container)
	all, err := b.interleave(ctx, "file system", max(b.n/2, 1), variants...)
	if err != nil {
		return err
	}
	b.table.compareAll("fs:", "ms", all, map[string]float64{"virtiofsd": goalFS})
	return nil
}

var stepLine = regexp.MustCompile(`(?m)^step (\S+) (\d+)\s*$`)

// steps reads what the work has printed.
func steps(out string) ([]reading, error) {
	if !strings.Contains(out, "work: done") {
		return nil, fmt.Errorf("the work was not done: %s", out)
	}
	var readings []reading
	for _, m := range stepLine.FindAllStringSubmatch(out, -1) {
		ns, err := strconv.ParseInt(m[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("step %s: %w", m[1], err)
		}
		readings = append(readings, reading{m[1], ms(time.Duration(ns))})
	}
	return readings, nil
}
