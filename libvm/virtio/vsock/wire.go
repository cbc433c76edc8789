package vsock

import (
	"encoding/binary"
	"structs"
)

// What goes over the queues, little-endian. Follows "Virtual I/O Device
// (VIRTIO) Version 1.2", §5.10 Socket Device; names as there and in
// <linux/virtio_vsock.h>.

// Socket types (v1.2 §5.10.6 Device Operation).
const (
	VIRTIO_VSOCK_TYPE_STREAM    = 1
	VIRTIO_VSOCK_TYPE_SEQPACKET = 2 // not offered: VIRTIO_VSOCK_F_SEQPACKET
)

// Operations (v1.2 §5.10.6).
const (
	VIRTIO_VSOCK_OP_INVALID        = 0
	VIRTIO_VSOCK_OP_REQUEST        = 1 // connect
	VIRTIO_VSOCK_OP_RESPONSE       = 2 // connected
	VIRTIO_VSOCK_OP_RST            = 3 // refused, reset, or closed cleanly
	VIRTIO_VSOCK_OP_SHUTDOWN       = 4 // flags say which direction ends
	VIRTIO_VSOCK_OP_RW             = 5 // payload
	VIRTIO_VSOCK_OP_CREDIT_UPDATE  = 6 // carries buf_alloc and fwd_cnt, as all do
	VIRTIO_VSOCK_OP_CREDIT_REQUEST = 7 // answer with CREDIT_UPDATE
)

// Flags of VIRTIO_VSOCK_OP_SHUTDOWN (v1.2 §5.10.6.5 Stream Sockets). A bit once
// sent stays in force.
const (
	VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE = 1 << 0 // the sender receives no more
	VIRTIO_VSOCK_SHUTDOWN_F_SEND    = 1 << 1 // the sender sends no more

	shutdownBoth = VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE | VIRTIO_VSOCK_SHUTDOWN_F_SEND
)

// Well-known context ids (v1.2 §5.10.4 Device configuration layout).
const hostCID = 2

// Queues (v1.2 §5.10.2 Virtqueues), by index.
const (
	queueRX    = 0 // to the guest
	queueTX    = 1 // from the guest
	queueEvent = 2 // transport resets; see Device
)

// Sizes in bytes. headerSize is sizeof(struct virtio_vsock_hdr), which is packed:
// 2*8 cid + 2*4 port + 4 len + 2*2 type, op + 3*4 flags, buf_alloc, fwd_cnt.
const (
	headerSize = 44
	configSize = 8 // struct virtio_vsock_config: guest_cid
)

// header is struct virtio_vsock_hdr. The C struct is packed, and Go would pad
// this one at its end: it is decoded and encoded field by field.
type header struct {
	_        structs.HostLayout
	srcCID   uint64
	dstCID   uint64
	srcPort  uint32
	dstPort  uint32
	len      uint32 // bytes of payload behind the header
	typ      uint16
	op       uint16
	flags    uint32
	bufAlloc uint32 // bytes of receive buffer that the sender has
	fwdCnt   uint32 // bytes, free running, that left this buffer
}

func decodeHeader(b *[headerSize]byte) header {
	le := binary.LittleEndian
	return header{
		srcCID:   le.Uint64(b[0:]),
		dstCID:   le.Uint64(b[8:]),
		srcPort:  le.Uint32(b[16:]),
		dstPort:  le.Uint32(b[20:]),
		len:      le.Uint32(b[24:]),
		typ:      le.Uint16(b[28:]),
		op:       le.Uint16(b[30:]),
		flags:    le.Uint32(b[32:]),
		bufAlloc: le.Uint32(b[36:]),
		fwdCnt:   le.Uint32(b[40:]),
	}
}

func (h *header) encode(b *[headerSize]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.srcCID)
	le.PutUint64(b[8:], h.dstCID)
	le.PutUint32(b[16:], h.srcPort)
	le.PutUint32(b[20:], h.dstPort)
	le.PutUint32(b[24:], h.len)
	le.PutUint16(b[28:], h.typ)
	le.PutUint16(b[30:], h.op)
	le.PutUint32(b[32:], h.flags)
	le.PutUint32(b[36:], h.bufAlloc)
	le.PutUint32(b[40:], h.fwdCnt)
}
