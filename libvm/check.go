package libvm

import (
	"context"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/libvm/check"
	"runv/libvm/config"
)

// Check finds out what of runv works on this host, for a bundle that asks for
// nothing special.
func (r *Runtime) Check(ctx context.Context) []check.Result {
	cfg, settingsErr := r.settings(&bundleConfig{spec: &specs.Spec{}})
	kernel, kernelErr := cfg.FindKernel(config.DefaultSearch(os.Getenv))
	return check.Host(ctx, check.Options{
		SettingsErr: settingsErr, Kernel: kernel, KernelErr: kernelErr, Backend: cfg.Backend, QEMU: cfg.QEMU, Root: r.Root,
	})
}
