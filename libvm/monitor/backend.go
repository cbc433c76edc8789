package monitor

import (
	"context"
	"fmt"
	"os"

	"runv/libvm/config"
	"runv/libvm/kvm"
	"runv/libvm/qemu"
	"runv/libvm/vm"
)

// runtimeDir is where the host keeps what is true until its next boot (FHS 3.0, 3.15).
const runtimeDir = "/run"

// usable says why guests should not run on KVM, or nil.
func usable(ctx context.Context) error {
	dir, err := os.Open(runtimeDir)
	if err != nil {
		return kvm.Probe(ctx) // nowhere to keep what it finds
	}
	defer dir.Close() //nolint:errcheck // only a place
	return kvm.Usable(ctx, dir)
}

// chooseBackend returns what runs the VM: our own VMM where the hardware runs
// guests, or where it is asked for by name; else QEMU.
func (m *monitor) chooseBackend(ctx context.Context) (vm.Backend, error) {
	backend := m.launch.Config.Backend
	if backend == config.BackendKVM {
		if err := usable(ctx); err != nil {
			return nil, fmt.Errorf("backend kvm: %w (--backend auto does without)", err)
		}
		return kvm.New()
	}
	noKVM := qemu.NoKVM()
	if backend == config.BackendAuto && noKVM == nil {
		err := usable(ctx)
		if err == nil {
			return kvm.New()
		}
		noKVM = err // QEMU would not be better off with it
	}
	m.degraded = noKVM
	return qemu.New(m.launch.Config.QEMU, m.state.File(), m.log, noKVM == nil)
}
