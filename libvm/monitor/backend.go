package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"

	"runv/libvm/config"
	"runv/libvm/kvm"
	"runv/libvm/qemu"
	"runv/libvm/vm"
)

// runtimeDir is where the host keeps what is true until its next boot (FHS 3.0, 3.15).
const runtimeDir = "/run"

// ownVMM returns our own VMM, or says why guests should not run on it.
func ownVMM(ctx context.Context) (*kvm.Backend, error) {
	b, err := kvm.New()
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(runtimeDir)
	if err != nil {
		err = b.Probe(ctx) // nowhere to keep what it finds
	} else {
		err = b.Usable(ctx, dir)
		dir.Close() //nolint:errcheck // only a place
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// chooseBackend returns what runs the VM: our own VMM where the hardware runs
// guests, or where it is asked for by name; else QEMU.
func (m *monitor) chooseBackend(ctx context.Context) (vm.Backend, error) {
	asked := m.launch.Config.Backend
	if asked == config.BackendKVM {
		b, err := ownVMM(ctx)
		if err != nil {
			return nil, fmt.Errorf("backend kvm: %w (--backend auto does without)", err)
		}
		return b, nil
	}
	noKVM := qemu.NoKVM()
	if asked == config.BackendAuto && noKVM == nil {
		b, err := ownVMM(ctx)
		if err == nil {
			return b, nil
		}
		noKVM = err // QEMU would not be better off with it
	}
	m.degraded = noKVM
	return qemu.New(m.launch.Config.QEMU, m.state.File(), m.log, noKVM == nil)
}
