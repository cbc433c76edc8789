package boot

import (
	"encoding/binary"
	"fmt"

	"runv/libvm/mem"
)

// The Intel MultiProcessor Specification, version 1.4, chapter 4: how a kernel
// without ACPI learns of its processors and of the IO-APIC.
//
//	_MP_ (16 bytes) ─► PCMP header (44) ─ processors (20 each) ─ bus (8)
//	                   ─ IO-APIC (8) ─ interrupts (8 each) ─ local interrupts (8)
const (
	mpFloatBytes  = 16
	mpHeaderBytes = 44

	mpProcessor   = 0
	mpBus         = 1
	mpIOAPIC      = 2
	mpIOInterrupt = 3
	mpLocal       = 4

	mpVersion      = 4    // of the specification: 1.4
	apicVersion    = 0x14 // of the APICs that KVM emulates
	mpCPUEnabled   = 1 << 0
	mpCPUBoot      = 1 << 1
	mpIRQVectored  = 0 // INT
	mpIRQNMI       = 1
	mpIRQExtINT    = 3
	mpIRQEdgeHigh  = 0x5 // active high, edge
	mpAllLocal     = 0xff
	mpFeatureAPIC  = 1 << 9
	mpFeatureFPU   = 1 << 0
	ioapicAddress  = 0xfec00000
	localAPIC      = 0xfee00000
	ioapicPins     = 24
	maxMPProcessor = 254
)

// WriteMPTable writes an MP table for cpus processors, whose local APICs are
// numbered from 0, and KVM's IO-APIC with all of its pins.
func WriteMPTable(m *mem.Memory, cpus int) error {
	if cpus < 1 || cpus > maxMPProcessor {
		return fmt.Errorf("mp table for %d processors", cpus)
	}
	le := binary.LittleEndian
	var body []byte
	entries := 0
	add := func(b ...byte) { body = append(body, b...); entries++ }

	for i := range cpus {
		flags := byte(mpCPUEnabled)
		if i == 0 {
			flags |= mpCPUBoot
		}
		e := make([]byte, 20)
		e[0], e[1], e[2], e[3] = mpProcessor, byte(i), apicVersion, flags
		le.PutUint32(e[4:], 0x600) // family 6: what the kernel takes from CPUID anyhow
		le.PutUint32(e[8:], mpFeatureAPIC|mpFeatureFPU)
		add(e...)
	}
	add(append([]byte{mpBus, 0}, "ISA   "...)...)
	ioapic := byte(cpus)
	add(le.AppendUint32([]byte{mpIOAPIC, ioapic, apicVersion, 1}, ioapicAddress)...)
	for pin := range byte(ioapicPins) {
		// KVM's default routes connect each GSI to the pin of its number.
		add(mpIOInterrupt, mpIRQVectored, mpIRQEdgeHigh, 0, 0, pin, ioapic, pin)
	}
	add(mpLocal, mpIRQExtINT, 0, 0, 0, 0, 0, 0)
	add(mpLocal, mpIRQNMI, 0, 0, 0, 0, mpAllLocal, 1)

	table, err := m.Slice(MPTableStart, uint64(mpFloatBytes+mpHeaderBytes+len(body)))
	if err != nil {
		return err
	}
	f, h := table[:mpFloatBytes], table[mpFloatBytes:]
	copy(f, "_MP_")
	le.PutUint32(f[4:], uint32(MPTableStart)+mpFloatBytes)
	f[8], f[9] = 1, mpVersion // length in units of 16 bytes
	f[10] = Checksum(f)

	copy(h, "PCMP")
	le.PutUint16(h[4:], uint16(mpHeaderBytes+len(body)))
	h[6] = mpVersion
	copy(h[8:], "RUNV    ")
	copy(h[16:], "VM          ")
	le.PutUint16(h[34:], uint16(entries))
	le.PutUint32(h[36:], localAPIC)
	copy(h[mpHeaderBytes:], body)
	h[7] = Checksum(h)
	return nil
}

// Checksum returns the byte that makes the sum of b zero.
func Checksum(b []byte) byte {
	var sum byte
	for _, c := range b {
		sum += c
	}
	return -sum
}
