// Package acpi writes the ACPI tables of a machine without legacy hardware, for
// kernels that find their devices only there. Follows the ACPI Specification,
// version 6.5.
//
//	RSDP ─► XSDT ─┬► FADT ─► DSDT   _S5, COM1, virtio-mmio devices, VMGenID
//	              └► MADT           local APICs, IO-APIC
package acpi

import (
	"encoding/binary"
	"fmt"

	"runv/libvm/mem"
)

// Addresses of the interrupt controllers that KVM emulates.
const (
	localAPIC = 0xfee00000
	ioapic    = 0xfec00000
)

// MMIODevice is a virtio-mmio device.
type MMIODevice struct {
	Base mem.GPA // of its registers, below 4 GiB
	Size uint32  // bytes
	GSI  uint32  // its interrupt: edge, active high
}

// Config is what the tables describe.
type Config struct {
	CPUs    int // local APICs are numbered from 0
	Devices []MMIODevice

	Serial    uint16 // port of a 16550, 0 for none
	SerialGSI uint32

	// SleepControl, SleepStatus and Reset are ports: SleepEnable|5<<2 written to
	// the first powers off, ResetValue written to the third resets.
	SleepControl, SleepStatus, Reset uint16

	// GenerationID is where 16 random bytes identify this run of the VM, 0 for
	// none: a guest that sees them change knows that it was cloned.
	GenerationID mem.GPA
}

// What a guest writes to the ports of Config (§4.8.3.7 Sleep Registers).
const (
	ResetValue  = 0x01
	SleepEnable = 1 << 5                  // SLP_EN
	SleepOff    = SleepEnable | typeS5<<2 // SLP_TYP of \_S5
	typeS5      = 5
)

// Limits: local APIC ids of one byte, two digits in a device's name.
const (
	maxCPUs    = 254
	maxDevices = 100
)

// Write writes the tables into the size bytes of m at start, and returns the
// address of the root pointer, which is start.
func Write(m *mem.Memory, start mem.GPA, size uint64, c Config) (mem.GPA, error) {
	if c.CPUs < 1 || c.CPUs > maxCPUs || len(c.Devices) > maxDevices {
		return 0, fmt.Errorf("acpi tables for %d processors and %d devices", c.CPUs, len(c.Devices))
	}
	room, err := m.Slice(start, size)
	if err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	used := uint64(64) // the root pointer, and room to align
	place := func(t []byte) (mem.GPA, error) {
		if uint64(len(t)) > size-used {
			return 0, fmt.Errorf("acpi tables do not fit %d bytes", size)
		}
		at := used
		copy(room[at:], t)
		used = min(size, (at+uint64(len(t))+15)&^15)
		return start + mem.GPA(at), nil
	}
	dsdt, err := place(table("DSDT", 2, c.definitions()))
	if err != nil {
		return 0, err
	}
	fadt, err := place(c.fadt(dsdt))
	if err != nil {
		return 0, err
	}
	madt, err := place(table("APIC", 5, c.interrupts()))
	if err != nil {
		return 0, err
	}
	xsdt, err := place(table("XSDT", 1, le.AppendUint64(le.AppendUint64(nil, uint64(fadt)), uint64(madt))))
	if err != nil {
		return 0, err
	}
	copy(room, rootPointer(xsdt))
	return start, nil
}

// rootPointer is the RSDP (§5.2.5.3).
func rootPointer(xsdt mem.GPA) []byte {
	b := make([]byte, 36)
	copy(b, "RSD PTR ")
	copy(b[9:], "RUNV  ")
	b[15] = 2
	binary.LittleEndian.PutUint32(b[20:], uint32(len(b)))
	binary.LittleEndian.PutUint64(b[24:], uint64(xsdt))
	b[8] = checksum(b[:20])
	b[32] = checksum(b)
	return b
}

const headerBytes = 36

// table puts a header before body (§5.2.6).
func table(signature string, revision byte, body []byte) []byte {
	b := make([]byte, headerBytes, headerBytes+len(body))
	copy(b, signature)
	le := binary.LittleEndian
	le.PutUint32(b[4:], uint32(headerBytes+len(body)))
	b[8] = revision
	copy(b[10:], "RUNV  ")
	copy(b[16:], "RUNVVM  ")
	le.PutUint32(b[24:], 1)
	copy(b[28:], "RUNV")
	le.PutUint32(b[32:], 1)
	b = append(b, body...)
	b[9] = checksum(b)
	return b
}

// checksum returns the byte that makes the sum of b zero.
func checksum(b []byte) byte {
	var sum byte
	for _, c := range b {
		sum += c
	}
	return -sum
}

// Bits of the FADT's flags and boot architecture flags (§5.2.9).
const (
	fadtBytes         = 276
	fadtResetRegister = 1 << 10 // RESET_REG_SUP
	fadtHeadless      = 1 << 12
	fadtHWReduced     = 1 << 20 // HW_REDUCED_ACPI
	fadtWBINVD        = 1 << 0

	bootNoVGA  = 1 << 2
	bootNoMSI  = 1 << 3
	bootNoASPM = 1 << 4
)

// fadt is the FADT of a hardware-reduced machine: no PM timer, no SCI, none of
// the fixed registers. Offsets are those of §5.2.9.
func (c Config) fadt(dsdt mem.GPA) []byte {
	b := make([]byte, fadtBytes-headerBytes)
	le := binary.LittleEndian
	at := func(off int) []byte { return b[off-headerBytes:] }
	le.PutUint16(at(109), bootNoVGA|bootNoMSI|bootNoASPM)
	le.PutUint32(at(112), fadtWBINVD|fadtResetRegister|fadtHeadless|fadtHWReduced)
	putPort(at(116), c.Reset)
	at(128)[0] = ResetValue
	at(131)[0] = 5 // minor version
	le.PutUint64(at(140), uint64(dsdt))
	putPort(at(244), c.SleepControl)
	putPort(at(256), c.SleepStatus)
	copy(at(268), "RUNV") // hypervisor vendor
	return table("FACP", 6, b)
}

// putPort writes a Generic Address Structure for a byte-wide port (§5.2.3.2).
func putPort(b []byte, port uint16) {
	b[0], b[1], b[2], b[3] = 1, 8, 0, 1
	binary.LittleEndian.PutUint64(b[4:], uint64(port))
}

// interrupts is the body of the MADT (§5.2.12).
func (c Config) interrupts() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, localAPIC)
	b = le.AppendUint32(b, 0) // no 8259s
	for i := range c.CPUs {
		b = le.AppendUint32(append(b, 0, 8, byte(i), byte(i)), 1) // enabled
	}
	b = append(b, 1, 12, byte(c.CPUs), 0) // IO-APIC, its id
	b = le.AppendUint32(b, ioapic)
	b = le.AppendUint32(b, 0)             // its first GSI
	return append(b, 4, 6, 0xff, 0, 0, 1) // NMI at LINT1 of all
}

// definitions is the body of the DSDT.
func (c Config) definitions() []byte {
	devices := [][]byte{}
	if c.Serial != 0 {
		devices = append(devices, device("COM1",
			name("_HID", eisaID("PNP0501")),
			name("_UID", integer(0)),
			name("_CRS", resources(ports(c.Serial, 8), interrupt(c.SerialGSI)))))
	}
	for i, d := range c.Devices {
		devices = append(devices, device(fmt.Sprintf("VR%02d", i),
			name("_HID", text("LNRO0005")),
			name("_UID", integer(uint64(i))),
			name("_CCA", integer(1)),
			name("_CRS", resources(memory32(uint32(d.Base), d.Size), interrupt(d.GSI)))))
	}
	if c.GenerationID != 0 {
		devices = append(devices, device("VGEN",
			name("_HID", text("RUNV0001")),
			name("_CID", text("VM_Gen_Counter")),
			name("_DDN", text("VM_Gen_Counter")),
			name("ADDR", pkg(integer(uint64(c.GenerationID)&0xffffffff), integer(uint64(c.GenerationID)>>32)))))
	}
	s5 := integer(typeS5)
	return cat(
		name("_S5_", pkg(s5, s5, integer(0), integer(0))),
		scope("_SB_", devices...))
}
