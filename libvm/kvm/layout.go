package kvm

import (
	"runv/libvm/kvm/boot"
	"runv/libvm/mem"
	"runv/libvm/vm"
)

// The guest's physical address space. RAM that does not fit below the hole
// continues at 4 GiB.
//
//	0x0_0000_0000  RAM, up to 3 GiB
//	0x0_c000_0000  hole
//	0x0_d000_0000    virtio-mmio devices, a page each
//	0x0_fec0_0000    IO-APIC (in the kernel)
//	0x0_fee0_0000    local APIC (in the kernel)
//	0x0_fffb_c000    identity map and TSS that Intel's processors need
//	0x1_0000_0000  RAM above 3 GiB
const (
	holeStart mem.GPA = vm.HoleStart
	holeEnd   mem.GPA = vm.HoleEnd

	mmioStart mem.GPA = 0xd000_0000

	identityMap mem.GPA = 0xfffb_c000
	tssStart    mem.GPA = 0xfffb_d000 // 3 pages
)

// mmioSize is what each virtio-mmio device has of it, in bytes.
const mmioSize = 0x1000

// The global system interrupts, one to one the pins of the IO-APIC. All are edge
// triggered and active high. Devices begin at the first that no PC has taken;
// the CMOS clock's is left out.
const (
	serialGSI   = 4
	firstDevGSI = 5
	clockGSI    = 8
	lastGSI     = 23

	// maxDevices is how many virtio devices a VM can have.
	maxDevices = lastGSI - firstDevGSI
)

// deviceGSI returns the interrupt of the n-th virtio device.
func deviceGSI(n int) uint32 {
	gsi := uint32(firstDevGSI + n)
	if gsi >= clockGSI {
		gsi++
	}
	return gsi
}

// deviceBase returns where the registers of the n-th virtio device are.
func deviceBase(n int) mem.GPA { return mmioStart + mem.GPA(n)*mmioSize }

// Ports.
const (
	portKeyboard = 0x60
	portKbdCtl   = 0x64 // command and status of the keyboard controller, which resets the machine
	portCMOS     = 0x70 // index
	portCMOSData = 0x71
	portSerial   = 0x3f8 // 8 ports
	portSleepCtl = 0x600
	portSleepSts = 0x601
	portReset    = 0x602
)

// generationID is where the VM's generation id is: in the room of the ACPI
// tables, which the memory map reserves.
const (
	generationID mem.GPA = boot.TablesStart + boot.TablesSize - 0x1000
	tablesSize           = boot.TablesSize - 0x1000
)
