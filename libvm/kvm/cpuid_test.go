package kvm

import (
	"testing"

	"runv/libvm/kvm/uapi"
)

func hostCPUID(entries ...uapi.CPUIDEntry2) *uapi.CPUID2 {
	c := &uapi.CPUID2{}
	for _, e := range entries {
		add(c, e)
	}
	return c
}

func TestGuestCPUID(t *testing.T) {
	host := hostCPUID(
		uapi.CPUIDEntry2{Function: 0, EAX: 0xd},
		uapi.CPUIDEntry2{Function: leafFeatures, EBX: 0x05100800, ECX: 1 << 21, EDX: edxHTT | 1},
		uapi.CPUIDEntry2{Function: leafCache, Index: 0, EAX: 0xfc03c121},
		uapi.CPUIDEntry2{Function: leafCache, Index: 3, EAX: 0xfc03c163},
		uapi.CPUIDEntry2{Function: leafPower},
		uapi.CPUIDEntry2{Function: leafTopology, Index: 0, EBX: 2},
		uapi.CPUIDEntry2{Function: leafTopology, Index: 1, EBX: 16},
		uapi.CPUIDEntry2{Function: 0x40000000, EBX: 0x4b4d564b},
		uapi.CPUIDEntry2{Function: leafAMDSizes, ECX: 0x400f},
	)
	get := func(c *uapi.CPUID2, leaf, index uint32) uapi.CPUIDEntry2 {
		t.Helper()
		for _, e := range c.Entries[:c.Nent] {
			if e.Function == leaf && e.Index == index {
				return e
			}
		}
		t.Fatalf("no leaf %#x, %d", leaf, index)
		return uapi.CPUIDEntry2{}
	}
	c := guestCPUID(host, 2, newTopology(4), true)
	for _, tt := range []struct {
		name      string
		got, want uint32
	}{
		{"local APIC, processors", get(c, leafFeatures, 0).EBX, 2<<24 | 4<<16 | 0x0800},
		{"hypervisor, TSC deadline, x2APIC", get(c, leafFeatures, 0).ECX, ecxHypervisor | ecxTSCDeadline | 1<<21},
		{"several processors", get(c, leafFeatures, 0).EDX, edxHTT | 1},
		{"first level cache: a core's", get(c, leafCache, 0).EAX, 3<<26 | 0x121},
		{"last level cache: everyone's", get(c, leafCache, 3).EAX, 3<<26 | 3<<14 | 0x163},
		{"timer never stops", get(c, leafPower, 0).EAX, eaxARAT},
		{"threads of a core", get(c, leafTopology, 0).EBX, 1},
		{"cores", get(c, leafTopology, 1).EBX, 4},
		{"bits of a core's number", get(c, leafTopology, 1).EAX, 2},
		{"x2APIC id", get(c, leafTopology, 1).EDX, 2},
		{"end of the levels", get(c, leafTopology, 2).ECX, 2},
		{"kvm's signature", get(c, 0x40000000, 0).EBX, 0x4b4d564b},
		{"AMD's cores", get(c, leafAMDSizes, 0).ECX, 2<<12 | 3},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %#x, want %#x", tt.name, tt.got, tt.want)
		}
	}
	one := guestCPUID(host, 0, newTopology(1), false)
	if e := get(one, leafFeatures, 0); e.EDX&edxHTT != 0 || e.ECX&ecxTSCDeadline != 0 || e.EBX != 1<<16|0x0800 {
		t.Errorf("one processor: %#x %#x %#x", e.EBX, e.ECX, e.EDX)
	}
}

func TestGuestCPUIDOfTheLargestHost(t *testing.T) {
	host := &uapi.CPUID2{Nent: uapi.MaxCPUIDEntries}
	host.Entries[0].EAX = 0x20
	if c := guestCPUID(host, 63, newTopology(64), true); c.Nent != uapi.MaxCPUIDEntries {
		t.Errorf("got %d entries", c.Nent)
	}
}

func TestDeviceInterrupts(t *testing.T) {
	seen := map[uint32]bool{serialGSI: true, clockGSI: true}
	for n := range maxDevices {
		gsi := deviceGSI(n)
		if seen[gsi] || gsi > lastGSI {
			t.Errorf("device %d has interrupt %d", n, gsi)
		}
		seen[gsi] = true
	}
}
