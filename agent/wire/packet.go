package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MaxPacket is the most that a packet of a relayed socket has, in bytes: more than
// a Unix socket takes at once by default (net.core.wmem_default of Linux).
const MaxPacket = 256 << 10

// packetHeader is the length of a packet, 32 bits in little endian.
const packetHeader = 4

// SendPackets reads packets from src and writes them to the stream dst, each behind
// its length, until src is at its end (nil) or an error. Without end, a read of
// nothing is a packet: that of a datagram socket, which has no end.
func SendPackets(dst io.Writer, src io.Reader, end bool) error {
	buf := make([]byte, packetHeader+MaxPacket)
	for {
		n, err := src.Read(buf[packetHeader:])
		if errors.Is(err, io.EOF) {
			if end {
				return nil
			}
			err = nil
		}
		if err != nil {
			return err
		}
		binary.LittleEndian.PutUint32(buf, uint32(n))
		if _, err := dst.Write(buf[:packetHeader+n]); err != nil {
			return err
		}
	}
}

// ReceivePackets reads what SendPackets wrote from src and calls deliver for each
// packet, until src is at its end (nil) or an error. A packet is valid during the
// call.
func ReceivePackets(src io.Reader, deliver func([]byte) error) error {
	var header [packetHeader]byte
	var buf []byte
	for {
		if _, err := io.ReadFull(src, header[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		n := binary.LittleEndian.Uint32(header[:])
		if n > MaxPacket {
			return fmt.Errorf("packet of %d bytes, at most %d", n, MaxPacket)
		}
		if buf == nil {
			buf = make([]byte, MaxPacket)
		}
		if _, err := io.ReadFull(src, buf[:n]); err != nil {
			return err
		}
		if err := deliver(buf[:n]); err != nil {
			return err
		}
	}
}

// Peer is the user at one end of a relayed connection (SO_PEERCRED). It is the
// first that the agent sends on a stream that it opens for a connection to the host.
type Peer struct{ UID, GID uint32 }

// PeerSize is the length of a Peer on a stream, in bytes.
const PeerSize = 8

// Bytes is the peer as it is sent.
func (p Peer) Bytes() []byte {
	b := binary.LittleEndian.AppendUint32(nil, p.UID)
	return binary.LittleEndian.AppendUint32(b, p.GID)
}

// ReadPeer reads a peer.
func ReadPeer(r io.Reader) (Peer, error) {
	var b [PeerSize]byte
	_, err := io.ReadFull(r, b[:])
	return Peer{binary.LittleEndian.Uint32(b[:]), binary.LittleEndian.Uint32(b[4:])}, err
}
