package acpi

import "encoding/binary"

// AML, the byte code of the DSDT: ACPI Specification 6.5, chapter 20 (ACPI
// Machine Language). An object is a []byte; a package of them is their
// concatenation with a length before it.
const (
	opZero      = 0x00
	opName      = 0x08
	opByte      = 0x0a
	opWord      = 0x0b
	opDWord     = 0x0c
	opString    = 0x0d
	opQWord     = 0x0e
	opScope     = 0x10
	opBuffer    = 0x11
	opPackage   = 0x12
	opExtPrefix = 0x5b
	opDevice    = 0x82 // after opExtPrefix
)

// cat concatenates objects.
func cat(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// withLength puts the length of body, and of the length itself, before it
// (§20.2.4 Package Length Encoding): one byte up to 63, else its low 4 bits and
// the number of bytes that follow, and those.
func withLength(body []byte) []byte {
	if n := len(body) + 1; n < 1<<6 {
		return append([]byte{byte(n)}, body...)
	}
	for more := 1; ; more++ {
		n := len(body) + 1 + more
		if n >= 1<<(4+8*more) {
			continue
		}
		b := []byte{byte(more<<6 | n&0xf)}
		for i := range more {
			b = append(b, byte(n>>(4+8*i)))
		}
		return append(b, body...)
	}
}

// name is Name (path, value). A path is four characters.
func name(path string, value []byte) []byte {
	return cat([]byte{opName}, []byte(path), value)
}

// scope is Scope (path) {…}.
func scope(path string, body ...[]byte) []byte {
	return cat([]byte{opScope}, withLength(cat(append([][]byte{[]byte(path)}, body...)...)))
}

// device is Device (path) {…}.
func device(path string, body ...[]byte) []byte {
	return cat([]byte{opExtPrefix, opDevice}, withLength(cat(append([][]byte{[]byte(path)}, body...)...)))
}

// integer is a constant in its shortest form.
func integer(v uint64) []byte {
	le := binary.LittleEndian
	switch {
	case v == 0:
		return []byte{opZero}
	case v < 1<<8:
		return []byte{opByte, byte(v)}
	case v < 1<<16:
		return le.AppendUint16([]byte{opWord}, uint16(v))
	case v < 1<<32:
		return le.AppendUint32([]byte{opDWord}, uint32(v))
	}
	return le.AppendUint64([]byte{opQWord}, v)
}

// text is a string constant.
func text(s string) []byte { return cat([]byte{opString}, []byte(s), []byte{0}) }

// pkg is Package {…}.
func pkg(elements ...[]byte) []byte {
	return cat([]byte{opPackage}, withLength(append([]byte{byte(len(elements))}, cat(elements...)...)))
}

// eisaID is EisaId ("PNP0501"): three letters of 5 bits and four hex digits,
// big-endian.
func eisaID(id string) []byte {
	var v uint32
	for _, c := range []byte(id[:3]) {
		v = v<<5 | uint32(c-0x40)
	}
	for _, c := range []byte(id[3:7]) {
		d := uint32(c - '0')
		if c >= 'A' {
			d = uint32(c-'A') + 10
		}
		v = v<<4 | d
	}
	return binary.BigEndian.AppendUint32([]byte{opDWord}, v)
}

// resources is ResourceTemplate () {…}: a buffer of descriptors and an end tag,
// whose checksum of 0 is not looked at (§6.4.2.9 End Tag).
func resources(descriptors ...[]byte) []byte {
	b := append(cat(descriptors...), 0x79, 0)
	return cat([]byte{opBuffer}, withLength(cat(integer(uint64(len(b))), b)))
}

// memory32 is Memory32Fixed (ReadWrite, base, size) (§6.4.3.4).
func memory32(base, size uint32) []byte {
	le := binary.LittleEndian
	return le.AppendUint32(le.AppendUint32([]byte{0x86, 9, 0, 1}, base), size)
}

// interrupt is Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) {gsi}
// (§6.4.3.6 Extended Interrupt Descriptor).
func interrupt(gsi uint32) []byte {
	return binary.LittleEndian.AppendUint32([]byte{0x89, 6, 0, 0x03, 1}, gsi)
}

// ports is IO (Decode16, base, base, 0, size) (§6.4.2.5).
func ports(base uint16, size byte) []byte {
	return []byte{0x47, 1, byte(base), byte(base >> 8), byte(base), byte(base >> 8), 0, size}
}
