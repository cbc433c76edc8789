package kvm

import (
	"fmt"
	"strings"

	"runv/libvm/vm"
)

// commandLine is the guest kernel's: what this machine makes possible, and then
// what the caller wants, who may overrule it. agent/kernel/README.md says what
// the options of our own kernel are for.
func commandLine(c vm.Config, devices int) string {
	// A kernel resets by the keyboard controller at once, and a reset is told
	// from a triple fault. There is no PCI to look for.
	params := []string{"reboot=k", "pci=off"}
	if c.CPUs == 1 {
		params = append(params, "noreplace-smp")
	}
	if !c.ACPI {
		params = append(params, "acpi=off")
		for i := range devices {
			params = append(params, fmt.Sprintf("virtio_mmio.device=%dK@%#x:%d", mmioSize>>10, deviceBase(i), deviceGSI(i)))
		}
	}
	if c.Cmdline != "" {
		params = append(params, c.Cmdline)
	}
	return strings.Join(params, " ")
}
