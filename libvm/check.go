package libvm

import (
	"context"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/libvm/check"
)

// Check finds out what of runv works on this host, for a bundle that asks for
// nothing special.
func (r *Runtime) Check(ctx context.Context) []check.Result {
	kernel, cfg, err := r.resolve(&bundleConfig{spec: &specs.Spec{}})
	return check.Host(ctx, check.Options{Kernel: kernel, KernelErr: err, QEMU: cfg.QEMU, Root: r.Root})
}
