// Package rtattr reads and writes the attributes of rtnetlink(7): length u16 with this
// head, type u16, data, padding. The host writes messages of them, and the guest puts
// its own interfaces in.
package rtattr

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Align rounds a length up to that with padding, in bytes.
func Align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// Each calls f for each attribute of b, without the flags of its type. It ends at
// the first that is malformed.
func Each(b []byte, f func(kind uint16, data []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:n])
		b = b[min(len(b), Align(n)):]
	}
}

// Append appends an attribute, padded.
func Append(b []byte, kind uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(data)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), data...)
	return append(b, make([]byte, Align(len(data))-len(data))...)
}
