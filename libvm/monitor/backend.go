package monitor

import (
	"fmt"

	"runv/libvm/config"
	"runv/libvm/kvm"
	"runv/libvm/qemu"
	"runv/libvm/vm"
)

// chooseBackend returns what runs the VM. Our own VMM runs only where it is asked
// for by name; what is chosen otherwise is QEMU, which uses KVM where the hardware
// has it.
func (m *monitor) chooseBackend() (vm.Backend, error) {
	if m.launch.Config.Backend == config.BackendKVM {
		b, err := kvm.New()
		if err != nil {
			return nil, fmt.Errorf("backend kvm: %w", err)
		}
		return b, nil
	}
	b, err := qemu.New(m.launch.Config.QEMU, m.state.File(), m.log)
	if err != nil {
		return nil, err
	}
	m.degraded = b.Degraded()
	return b, nil
}
