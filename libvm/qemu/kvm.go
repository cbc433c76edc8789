package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"os"
)

// NoKVM says why the guest cannot run on hardware virtualization here, or nil
// if it can. A /dev/kvm that opens is not enough: there are machines that
// emulate it in software, slower than QEMU's own emulation, and that never get
// a kernel to boot. They do not show the processor's vmx or svm flag.
func NoKVM() error {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return fmt.Errorf("read cpu flags: %w", err)
	}
	if !hasVirtualization(b) {
		return errors.New("the processor shows neither vmx nor svm (in a virtual machine: allow nested virtualization)")
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w (load the kvm module, or ask for access to /dev/kvm)", err)
	}
	return f.Close()
}

// hasVirtualization looks for the flags in the text of /proc/cpuinfo.
func hasVirtualization(cpuinfo []byte) bool {
	for line := range bytes.Lines(cpuinfo) {
		key, val, ok := bytes.Cut(line, []byte(":"))
		if !ok || string(bytes.TrimSpace(key)) != "flags" {
			continue
		}
		for _, f := range bytes.Fields(val) {
			if string(f) == "vmx" || string(f) == "svm" {
				return true
			}
		}
		return false // all processors have the same
	}
	return false
}
