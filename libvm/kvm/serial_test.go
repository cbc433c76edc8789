package kvm

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"runv/libvm/kvm/acpi"
	"runv/libvm/kvm/uapi"
)

func newSerial() (*serial, *bytes.Buffer, *int) {
	out, raised := &bytes.Buffer{}, new(int)
	return &serial{out: out, irq: func() { *raised++ }}, out, raised
}

// TestSerialAsLinuxProbesIt does what the kernel's 8250 driver does to find out
// what the port is (autoconfig and startup of 8250_port.c).
func TestSerialAsLinuxProbesIt(t *testing.T) {
	s, out, raised := newSerial()
	reg := func(r uint16, want byte, what string) {
		t.Helper()
		if got := s.read(r); got != want {
			t.Errorf("%s: got %#x, want %#x", what, got, want)
		}
	}
	s.write(uartIER, 0)
	reg(uartIER, 0, "IER")
	s.write(uartIER, 0x0f)
	reg(uartIER, 0x0f, "IER")
	s.write(uartIER, 0)
	s.write(uartMCR, mcrLoop|0x0a)
	if got := s.read(uartMSR) & 0xf0; got != 0x90 {
		t.Errorf("loopback: got %#x, want 0x90", got)
	}
	s.write(uartData, 'x')
	s.write(uartMCR, 0)
	s.write(uartIIR, fcrEnable)
	if got := s.read(uartIIR) >> 6; got != 3 {
		t.Errorf("FIFO: got %d, want 3 (16550A)", got)
	}
	s.write(uartLCR, lcrDLAB)
	s.write(uartData, 12)
	s.write(uartIER, 1)
	reg(uartData, 12, "divisor")
	reg(uartIER, 1, "divisor")
	s.write(uartLCR, 3)
	reg(uartIER, 0, "IER after the divisor")
	s.write(uartSCR, 0x5a)
	reg(uartSCR, 0x5a, "SCR")
	reg(uartLSR, 0x60, "LSR")
	reg(uartData, 0, "RBR")

	// The THRE test: enabling the interrupt raises it, twice in a row.
	*raised = 0
	for range 2 {
		s.write(uartIER, ierTHRE)
		if got := s.read(uartIIR) & 0x0f; got != iirTHRE {
			t.Errorf("IIR: got %#x, want THRE", got)
		}
		if got := s.read(uartIIR) & 0x0f; got != iirNone {
			t.Errorf("IIR, read again: got %#x, want none", got)
		}
		s.write(uartIER, 0)
	}
	if *raised != 2 {
		t.Errorf("interrupts: got %d, want 2", *raised)
	}
	s.write(uartIER, ierTHRE)
	s.write(uartData, 'a')
	s.write(uartData, 'b')
	if *raised != 5 || out.String() != "ab" {
		t.Errorf("got %d interrupts and %q, want 5 and %q", *raised, out, "ab")
	}
}

func TestClock(t *testing.T) {
	c := cmos{now: func() time.Time { return time.Date(2026, 11, 23, 15, 4, 59, 0, time.UTC) }}
	for reg, want := range map[byte]byte{cmosSeconds: 0x59, cmosMinutes: 0x04, cmosHours: 0x15, cmosWeekday: 2,
		cmosDay: 0x23, cmosMonth: 0x11, cmosYear: 0x26, cmosCentury: 0x20, cmosStatusA: 0x26, cmosStatusB: 2, cmosStatusD: 0x80, 0x7f: 0} {
		c.choose(reg | 0x80)
		if got := c.read(); got != want {
			t.Errorf("register %#x: got %#x, want %#x", reg, got, want)
		}
	}
}

func testPorts() (*ports, *error) {
	end := new(error)
	s, _, _ := newSerial()
	return &ports{serial: serial{out: s.out, irq: s.irq}, clock: cmos{now: time.Now}, end: func(err error) { *end = err }}, end
}

func TestPortsThatEnd(t *testing.T) {
	for _, tt := range []struct {
		port uint16
		v    byte
		want error
	}{
		{portKbdCtl, 0xfe, ErrReset},
		{portKbdCtl, 0xd1, nil},
		{portReset, acpi.ResetValue, ErrReset},
		{portReset, 0, nil},
		{portSleepCtl, acpi.SleepOff, ErrPowerOff},
		{portSleepCtl, 5 << 2, nil},
		{0x80, 0xfe, nil},
	} {
		p, end := testPorts()
		p.handle(&uapi.IO{Direction: uapi.KVM_EXIT_IO_OUT, Size: 1, Count: 1, Port: tt.port}, []byte{tt.v})
		if !errors.Is(*end, tt.want) {
			t.Errorf("port %#x <- %#x: got %v, want %v", tt.port, tt.v, *end, tt.want)
		}
	}
}

func FuzzPorts(f *testing.F) {
	f.Add(uint16(portSerial), byte(1), byte(1), []byte("hello"))
	f.Add(uint16(portCMOS), byte(0), byte(4), []byte{1, 2, 3, 4})
	f.Fuzz(func(_ *testing.T, port uint16, dir, size byte, data []byte) {
		p, _ := testPorts()
		n := len(data)
		p.handle(&uapi.IO{Direction: dir & 1, Size: size, Count: uint32(n), Port: port}, data)
	})
}
