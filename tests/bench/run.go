package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Goals of the ratios (issue 2).
const (
	goalBoot = 1.25 // of `runv run true` to the bare boot of the kernel
	goalFS   = 1.0  // of our file server's time to virtiofsd's
)

const bareQEMU = "bare-qemu"

// sleeps makes a container that does nothing.
func sleeps(s *specs.Spec) { s.Process.Args = []string{"sleep", "1000000"} }

// succeeds makes a container that ends at once.
func succeeds(s *specs.Spec) { s.Process.Args = []string{"true"} }

// runs is a run of a bundle from its begin to its end, each under a name of its own.
func runs(r runtime, bundle string) variant {
	n := 0
	return variant{r.name, func(ctx context.Context) ([]reading, error) {
		n++
		return r.timed(ctx, "run", "--bundle", bundle, fmt.Sprintf("bench-run-%d", n))
	}}
}

// bareBoot is the boot of the guest's kernel to its end, with QEMU as r calls it.
func (b *bench) bareBoot(ctx context.Context, r runtime) (variant, error) {
	m, err := b.machine(ctx, r)
	if err != nil {
		return variant{}, err
	}
	initrd, err := b.initrd("reset.cpio", resetProgram())
	if err != nil {
		return variant{}, err
	}
	return variant{bareQEMU, func(ctx context.Context) ([]reading, error) { return m.bootTime(ctx, initrd) }}, nil
}

// measureRun compares `run true` with the bare boot and with other runtimes.
func (b *bench) measureRun(ctx context.Context) error {
	bare, err := b.bareBoot(ctx, b.runv)
	if err != nil {
		return err
	}
	dir, err := b.bundle(ctx, "true", succeeds)
	if err != nil {
		return err
	}
	variants := []variant{runs(b.runv, dir), bare}
	for _, r := range b.others(ctx, dir, "runc", "crun") {
		variants = append(variants, runs(r, dir))
	}
	all, err := b.interleave(ctx, "run true", b.n, variants...)
	if err != nil {
		return err
	}
	b.table.compare("run-true", "ms", all, "", map[string]float64{bareQEMU: goalBoot})
	return nil
}

// measureExec compares `exec true` in a running container.
func (b *bench) measureExec(ctx context.Context) (failed error) {
	try, err := b.bundle(ctx, "try", succeeds)
	if err != nil {
		return err
	}
	var variants []variant
	for _, r := range append([]runtime{b.runv}, b.others(ctx, try, "runc", "crun")...) {
		dir, err := b.bundle(ctx, "exec-"+r.name, sleeps)
		if err != nil {
			return err
		}
		c, err := r.detached(ctx, dir, "bench-exec")
		if err != nil {
			return err
		}
		defer func() { failed = errors.Join(failed, c.end()) }()
		variants = append(variants, variant{r.name, func(ctx context.Context) ([]reading, error) {
			return r.timed(ctx, "exec", c.id, "true")
		}})
	}
	all, err := b.interleave(ctx, "exec true", b.n, variants...)
	if err != nil {
		return err
	}
	b.table.compare("exec-true", "ms", all, "", nil)
	return nil
}
