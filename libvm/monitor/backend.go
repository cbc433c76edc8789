package monitor

import (
	"context"
	"fmt"

	"runv/libvm/config"
	"runv/libvm/kvm"
	"runv/libvm/qemu"
	"runv/libvm/vm"
)

// chooseBackend returns what runs the VM: our own VMM where the hardware runs
// guests, or where it is asked for by name; else QEMU.
func (m *monitor) chooseBackend(ctx context.Context) (vm.Backend, error) {
	backend := m.launch.Config.Backend
	if backend == config.BackendKVM {
		if err := kvm.Usable(ctx, m.state.Root()); err != nil {
			return nil, fmt.Errorf("backend kvm: %w (--backend auto does without)", err)
		}
		return kvm.New()
	}
	noKVM := qemu.NoKVM()
	if backend == config.BackendAuto && noKVM == nil {
		err := kvm.Usable(ctx, m.state.Root())
		if err == nil {
			return kvm.New()
		}
		noKVM = err // QEMU would not be better off with it
	}
	m.degraded = noKVM
	return qemu.New(m.launch.Config.QEMU, m.state.File(), m.log, noKVM == nil)
}
