package kvm

import (
	"fmt"
	"os"
	"strings"

	"runv/libvm/kvm/uapi"
)

// device is KVM's.
const device = "/dev/kvm"

// needed are the capabilities without which no VM of ours runs.
var needed = [...]struct {
	number uintptr
	name   string
}{
	{uapi.KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
	{uapi.KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
	{uapi.KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
	{uapi.KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
	{uapi.KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},
	{uapi.KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
	{uapi.KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR"},
	{uapi.KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
	{uapi.KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
}

// Check says why KVM cannot be used here, or nil. It looks at what KVM says of
// itself; that it executes guests at the speed of the processor, Probe shows.
func Check() error {
	f, _, err := open()
	if err != nil {
		return err
	}
	return f.Close()
}

// features are the parts of KVM that it may or may not have.
type features struct {
	mmapSize    int  // bytes of a vCPU's mapping
	maxVCPUs    int  // in one VM
	tscDeadline bool // the local APIC's timer counts in TSC ticks
	clockCtrl   bool // a vCPU can be told that it was paused
	xcrs        bool
}

// open opens KVM and checks it.
func open() (*os.File, features, error) {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return nil, features{}, fmt.Errorf("%w: %w (load the kvm module, or ask for access to %s)", ErrUnusable, err, device)
	}
	have, err := inspect(int(f.Fd()))
	if err != nil {
		f.Close() //nolint:errcheck // nothing was done with it
		return nil, features{}, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	return f, have, nil
}

// inspect checks the version and the capabilities.
func inspect(fd int) (features, error) {
	version, err := uapi.Ioctl(fd, uapi.KVM_GET_API_VERSION, 0, "KVM_GET_API_VERSION")
	if err != nil {
		return features{}, err
	}
	if version != uapi.KVM_API_VERSION {
		return features{}, fmt.Errorf("API version %d, and %d is needed", version, uapi.KVM_API_VERSION)
	}
	var missing []string
	for _, c := range needed {
		v, err := uapi.CheckExtension(fd, c.number)
		if err != nil {
			return features{}, err
		}
		if v == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return features{}, fmt.Errorf("this kernel's KVM lacks %s", strings.Join(missing, ", "))
	}
	var have features
	if have.mmapSize, err = uapi.Ioctl(fd, uapi.KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE"); err != nil {
		return features{}, err
	}
	if have.mmapSize < uapi.RunBytes {
		return features{}, fmt.Errorf("vCPU mapping of %d bytes", have.mmapSize)
	}
	if have.maxVCPUs, err = uapi.CheckExtension(fd, uapi.KVM_CAP_MAX_VCPUS); err != nil {
		return features{}, err
	}
	for _, o := range []struct {
		number uintptr
		have   *bool
	}{
		{uapi.KVM_CAP_TSC_DEADLINE_TIMER, &have.tscDeadline},
		{uapi.KVM_CAP_KVMCLOCK_CTRL, &have.clockCtrl},
		{uapi.KVM_CAP_XCRS, &have.xcrs},
	} {
		v, err := uapi.CheckExtension(fd, o.number)
		if err != nil {
			return features{}, err
		}
		*o.have = v != 0
	}
	return have, nil
}
