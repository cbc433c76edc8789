package kvm

import (
	"runv/libvm/mem"
	"runv/libvm/virtio"
	"runv/libvm/virtio/mmio"
)

// newWindow makes the virtio-mmio transport of a device.
func newWindow(d virtio.Device, m *mem.Memory, s *slot) window { return mmio.New(d, m, s) }
