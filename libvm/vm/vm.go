// Package vm says what a virtual machine is, as plain data, and what every
// backend (our own VMM on KVM, QEMU) can do with one. It knows no backend.
package vm

import (
	"context"
	"errors"
	"fmt"
	"os"

	"runv/libvm/virtio"
)

// GuestCID is the vsock context id of every guest. Each VM has its own vsock
// device, so it need not be unique on the host (v1.2 §5.10.4: 3 is the first
// that is not reserved).
const GuestCID = 3

// Config describes one VM.
type Config struct {
	Kernel  string   // path of the kernel image
	Initrd  *os.File // the initramfs; owned by the caller
	Cmdline string   // kernel command line, without what a backend adds itself
	Memory  uint64   // bytes of RAM, a multiple of MiB, with which the kernel begins
	// MaxMemory is how much the VM has: what is beyond Memory the kernel may be given
	// later (Growth), and has to leave alone until then. 0: no more.
	MaxMemory uint64
	CPUs      int  // number of vCPUs, at least 1
	ACPI      bool // the kernel needs ACPI to find its devices

	// AppArmor is the profile of a VM that is a process of its own; empty for the
	// caller's.
	AppArmor string
}

// Check says what is wrong with c.
func (c Config) Check() error {
	switch {
	case c.Kernel == "":
		return errors.New("vm: no kernel")
	case c.Initrd == nil:
		return errors.New("vm: no initramfs")
	case c.Memory < MinMemory || c.Memory%MiB != 0:
		return fmt.Errorf("vm: memory of %d bytes: must be a multiple of 1 MiB, at least %d MiB", c.Memory, MinMemory/MiB)
	case c.MaxMemory != 0 && (c.MaxMemory < c.Memory || c.MaxMemory%MiB != 0):
		return fmt.Errorf("vm: at most %d bytes of memory, of which the VM begins with %d", c.MaxMemory, c.Memory)
	case c.CPUs < 1 || c.CPUs > MaxCPUs:
		return fmt.Errorf("vm: %d cpus: must be 1 to %d", c.CPUs, MaxCPUs)
	}
	return nil
}

// Most returns how much RAM the VM has, in bytes.
func (c Config) Most() uint64 { return max(c.Memory, c.MaxMemory) }

// MiB is one mebibyte, in bytes.
const MiB = 1 << 20

// Limits of a VM.
const (
	MinMemory = 48 * MiB // kernel, initramfs and agent, with a little to work in
	MaxCPUs   = 64       // CONFIG_NR_CPUS of the default kernel
)

// ErrClosed is how a VM ended that was ended by Close.
var ErrClosed = errors.New("virtual machine closed")

// Backend turns a Config into a running VM.
type Backend interface {
	// Name is what users call it: "qemu (tcg)", "kvm".
	Name() string
	// Start starts a VM with the given devices and returns at once; that the
	// guest boots is for the caller to see. ctx bounds only the start.
	Start(ctx context.Context, c Config, devices []virtio.Device) (VM, error)
}

// Confiner is a VM that can be locked up further once its guest runs.
type Confiner interface {
	// Confine takes from the VM's process what it needed only to start. It needs
	// the privileges of root.
	Confine() error
}

// Grower is a VM whose guest cannot use more memory than it was given. That of another
// has all of Config.MaxMemory, whether its kernel knows or not.
type Grower interface {
	// AddBlock gives the guest the block of BlockBytes at a guest physical address, which
	// is one of Growth. It may have it already.
	AddBlock(address uint64) error
}

// Child is a VM that is a child process of its starter, who must not reap it.
type Child interface {
	PID() int
}

// VM is a running virtual machine.
type VM interface {
	// Done is closed when the VM has ended, for whatever reason.
	Done() <-chan struct{}
	// Err says why the VM ended; valid once Done is closed.
	Err() error
	// Console returns the last bytes that the guest's kernel printed.
	Console() []byte
	// CPUTime returns the CPU time that the VM has used so far, in ns.
	CPUTime() (int64, error)
	// Pause stops all vCPUs and returns when none of them executes the guest;
	// what an exit to a device began is complete then. Each Pause wants its Resume.
	Pause() error
	// Resume undoes a Pause.
	Resume() error
	// Close ends the VM at once, if it still runs, waits for everything that
	// belonged to it, and frees it. It may be called more than once.
	Close() error
}
