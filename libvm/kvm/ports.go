package kvm

import (
	"runv/libvm/kvm/acpi"
	"runv/libvm/kvm/uapi"
)

// ports are the devices behind I/O ports.
type ports struct {
	serial serial
	clock  cmos
	end    func(error) // ends the VM; it does not wait
}

// handle does an I/O exit: data holds Count items of Size bytes.
func (p *ports) handle(io *uapi.IO, data []byte) {
	for n := int(io.Size); n > 0 && len(data) >= n; data = data[n:] {
		if io.Direction == uapi.KVM_EXIT_IO_OUT {
			p.out(io.Port, data[0])
			continue
		}
		// Every device here is a byte wide; wider reads see nothing beside it.
		for i := range n {
			data[i] = 0xff
		}
		data[0] = p.in(io.Port)
	}
}

// in reads a port. Where nothing is, a PC's bus reads as ones.
func (p *ports) in(port uint16) byte {
	switch {
	case port >= portSerial && port < portSerial+8:
		return p.serial.read(port - portSerial)
	case port == portCMOSData:
		return p.clock.read()
	case port == portKeyboard, port == portKbdCtl:
		return 0 // always ready for a command, never with data
	case port == portSleepSts:
		return 0
	}
	return 0xff
}

// out writes a port. Whatever else a kernel tries while it looks for hardware
// that PCs once had is ignored.
func (p *ports) out(port uint16, v byte) {
	const pulseReset = 0xfe // keyboard controller command: pulse the reset line
	switch {
	case port >= portSerial && port < portSerial+8:
		p.serial.write(port-portSerial, v)
	case port == portCMOS:
		p.clock.choose(v)
	case port == portKbdCtl && v == pulseReset:
		p.end(ErrReset)
	case port == portReset && v == acpi.ResetValue:
		p.end(ErrReset)
	case port == portSleepCtl && v&acpi.SleepEnable != 0:
		p.end(ErrPowerOff)
	}
}
