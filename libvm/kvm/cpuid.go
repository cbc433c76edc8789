package kvm

import (
	"errors"
	"fmt"
	"math/bits"

	"runv/libvm/kvm/uapi"
)

// CPUID leaves and bits: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.
const (
	leafFeatures    = 0x1
	leafCache       = 0x4
	leafPower       = 0x6
	leafTopology    = 0xb
	leafTopologyV2  = 0x1f
	leafAMDFeatures = 0x80000001
	leafAMDSizes    = 0x80000008
	leafAMDCache    = 0x8000001d
	leafAMDTopology = 0x8000001e

	ecxTSCDeadline = 1 << 24 // of leafFeatures
	ecxHypervisor  = 1 << 31
	edxHTT         = 1 << 28
	eaxARAT        = 1 << 2  // of leafPower: the APIC's timer never stops
	edxLongMode    = 1 << 29 // of leafAMDFeatures

	levelSMT  = 1 << 8 // of leafTopology, ECX bits 15:8
	levelCore = 2 << 8
)

// supportedCPUID returns what KVM can give a guest on this host: the processor's
// features as the host's kernel uses them, and KVM's own leaves with its
// signature and paravirtual features (kvm-clock, steal time, …).
func supportedCPUID(fd int) (*uapi.CPUID2, error) {
	c := &uapi.CPUID2{Nent: uapi.MaxCPUIDEntries}
	if _, err := uapi.IoctlPtr(fd, uapi.KVM_GET_SUPPORTED_CPUID, c, "KVM_GET_SUPPORTED_CPUID"); err != nil {
		return nil, err
	}
	if c.Nent > uapi.MaxCPUIDEntries {
		return nil, fmt.Errorf("KVM_GET_SUPPORTED_CPUID: %d entries", c.Nent)
	}
	if e := find(c, leafAMDFeatures); e == nil || e.EDX&edxLongMode == 0 {
		return nil, errors.New("guests have no long mode (a 32-bit host?)")
	}
	return c, nil
}

// find returns the entry of a leaf without subleaves, or its first.
func find(c *uapi.CPUID2, leaf uint32) *uapi.CPUIDEntry2 {
	for i := range c.Entries[:c.Nent] {
		if c.Entries[i].Function == leaf {
			return &c.Entries[i]
		}
	}
	return nil
}

// topology is one socket of cores without hyperthreads.
type topology struct {
	cores int
	bits  uint32 // of an APIC id that number the core
}

func newTopology(cores int) topology {
	return topology{cores: cores, bits: uint32(bits.Len(uint(cores - 1)))}
}

// guestCPUID is what processor id, whose local APIC has the same number, reads.
func guestCPUID(host *uapi.CPUID2, id int, t topology, tscDeadline bool) *uapi.CPUID2 {
	c := &uapi.CPUID2{}
	hasTopology := false
	for _, e := range host.Entries[:host.Nent] {
		switch e.Function {
		case leafFeatures:
			e.EBX = e.EBX&0xffff | uint32(id)<<24 | uint32(min(t.cores, 255))<<16
			e.ECX |= ecxHypervisor
			if tscDeadline {
				e.ECX |= ecxTSCDeadline // emulated by KVM, which does not list it
			}
			e.EDX &^= edxHTT
			if t.cores > 1 {
				e.EDX |= edxHTT
			}
		case leafCache:
			e.EAX = cacheSharing(e.EAX, t)&^(0x3f<<26) | uint32(min(t.cores, 64)-1)<<26
		case leafPower:
			e.EAX |= eaxARAT
		case leafTopology, leafTopologyV2:
			if e.Index != 0 {
				continue // rewritten with the first
			}
			hasTopology = hasTopology || e.Function == leafTopology
			appendTopology(c, e.Function, id, t)
			continue
		case leafAMDSizes:
			e.ECX = e.ECX&^0xf0ff | uint32(t.cores-1) | t.bits<<12
		case leafAMDCache:
			e.EAX = cacheSharing(e.EAX, t)
		case leafAMDTopology:
			e.EAX, e.EBX, e.ECX = uint32(id), uint32(id), 0
		}
		add(c, e)
	}
	if !hasTopology && host.Entries[0].EAX >= leafTopology {
		appendTopology(c, leafTopology, id, t)
	}
	return c
}

// cacheSharing rewrites the field of leaves 4 and 0x8000001d that says how many
// processors share a cache: the last level is everyone's, others are a core's.
func cacheSharing(eax uint32, t topology) uint32 {
	const lastLevel = 3
	eax &^= 0xfff << 14
	if eax>>5&7 >= lastLevel {
		eax |= uint32(t.cores-1) << 14
	}
	return eax
}

// appendTopology adds the subleaves of the extended topology.
func appendTopology(c *uapi.CPUID2, leaf uint32, id int, t topology) {
	for i, s := range []uapi.CPUIDEntry2{
		{EAX: 0, EBX: 1, ECX: levelSMT},
		{EAX: t.bits, EBX: uint32(t.cores), ECX: levelCore | 1},
		{ECX: 2},
	} {
		s.Function, s.Index, s.EDX = leaf, uint32(i), uint32(id)
		s.Flags = uapi.KVM_CPUID_FLAG_SIGNIFCANT_INDEX
		add(c, s)
	}
}

// add appends an entry. KVM's own limit is the array's, so that one too many is
// dropped as KVM would refuse it.
func add(c *uapi.CPUID2, e uapi.CPUIDEntry2) {
	if c.Nent < uapi.MaxCPUIDEntries {
		c.Entries[c.Nent] = e
		c.Nent++
	}
}
