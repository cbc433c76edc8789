package kvm

import (
	"io"
	"sync"
)

// Registers of a 16550A, by offset from its first port (PC16550D datasheet, table
// 2). With DLAB set in LCR the first two are the divisor, which sets no speed here.
const (
	uartData = 0 // RBR read, THR written, DLL
	uartIER  = 1 // interrupt enable, DLM
	uartIIR  = 2 // interrupt identification, FCR written
	uartLCR  = 3 // line control
	uartMCR  = 4 // modem control
	uartLSR  = 5 // line status
	uartMSR  = 6 // modem status
	uartSCR  = 7 // scratch

	ierTHRE     = 1 << 1 // interrupt when there is room to send
	ierMask     = 0x0f
	iirNone     = 0x01
	iirTHRE     = 0x02
	iirFIFO     = 0xc0 // the FIFOs are on
	fcrEnable   = 1 << 0
	lcrDLAB     = 1 << 7
	mcrLoop     = 1 << 4
	lsrTHRE     = 1 << 5 // room to send
	lsrTEMT     = 1 << 6 // everything was sent
	msrCTS      = 1 << 4
	msrDSR      = 1 << 5
	msrDCD      = 1 << 7
	mcrOutputs  = 0x0f // DTR, RTS, OUT1, OUT2
	mcrWritable = 0x1f
)

// serial is a 16550A that sends and never receives. What the guest sends goes
// to out at once, so there is always room to send, and nothing is buffered: a
// guest that floods its console costs its own time only.
type serial struct {
	mu  sync.Mutex
	out io.Writer
	irq func() // raises the interrupt

	SerialState
}

// SerialState is what the driver has written to the serial port.
type SerialState struct {
	IER, LCR, MCR, SCR, FCR byte
	DLL, DLM                byte
	THRE                    bool // an interrupt "room to send" is pending
}

func (s *serial) state() SerialState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.SerialState
}

func (s *serial) setState(to SerialState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.SerialState = to
}

// read returns a register.
func (s *serial) read(reg uint16) byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	dlab := s.LCR&lcrDLAB != 0
	switch {
	case reg == uartData && dlab:
		return s.DLL
	case reg == uartIER && dlab:
		return s.DLM
	case reg == uartIER:
		return s.IER
	case reg == uartIIR:
		return s.identify()
	case reg == uartLCR:
		return s.LCR
	case reg == uartMCR:
		return s.MCR
	case reg == uartLSR:
		return lsrTHRE | lsrTEMT
	case reg == uartMSR:
		return s.modem()
	case reg == uartSCR:
		return s.SCR
	}
	return 0 // nothing was received
}

// identify returns IIR; reading it ends the interrupt that it names.
func (s *serial) identify() byte {
	var v byte
	if s.FCR&fcrEnable != 0 {
		v = iirFIFO
	}
	if s.THRE && s.IER&ierTHRE != 0 {
		s.THRE = false
		return v | iirTHRE
	}
	return v | iirNone
}

// modem returns MSR: a terminal that is always there, or in loopback mode what
// MCR drives.
func (s *serial) modem() byte {
	if s.MCR&mcrLoop == 0 {
		return msrCTS | msrDSR | msrDCD
	}
	// DTR→DSR, RTS→CTS, OUT1→RI, OUT2→DCD
	m := s.MCR & mcrOutputs
	return (m&1)<<5 | (m&2)<<3 | (m&4)<<4 | (m&8)<<4
}

// write sets a register, or sends.
func (s *serial) write(reg uint16, v byte) {
	s.mu.Lock()
	raise := s.set(reg, v)
	s.mu.Unlock()
	if raise {
		s.irq()
	}
}

// set reports whether the interrupt is due.
func (s *serial) set(reg uint16, v byte) bool {
	dlab := s.LCR&lcrDLAB != 0
	switch {
	case reg == uartData && dlab:
		s.DLL = v
	case reg == uartIER && dlab:
		s.DLM = v
	case reg == uartData:
		if s.MCR&mcrLoop == 0 {
			s.out.Write([]byte{v}) //nolint:errcheck // a vm.Tail, which does not fail
		}
		s.THRE = true
		return s.IER&ierTHRE != 0
	case reg == uartIER:
		was := s.IER
		s.IER = v & ierMask
		if s.IER&^was&ierTHRE != 0 {
			s.THRE = true // there is room, and the driver asks
			return true
		}
	case reg == uartIIR:
		s.FCR = v
	case reg == uartLCR:
		s.LCR = v
	case reg == uartMCR:
		s.MCR = v & mcrWritable
	case reg == uartSCR:
		s.SCR = v
	}
	return false
}
