package blk

import "encoding/binary"

// Feature bits (v1.2 §5.2.3).
const (
	VIRTIO_BLK_F_SIZE_MAX     = 1
	VIRTIO_BLK_F_SEG_MAX      = 2
	VIRTIO_BLK_F_RO           = 5
	VIRTIO_BLK_F_BLK_SIZE     = 6
	VIRTIO_BLK_F_FLUSH        = 9
	VIRTIO_BLK_F_TOPOLOGY     = 10
	VIRTIO_BLK_F_DISCARD      = 13
	VIRTIO_BLK_F_WRITE_ZEROES = 14
)

// Request types (v1.2 §5.2.6).
const (
	VIRTIO_BLK_T_IN           = 0
	VIRTIO_BLK_T_OUT          = 1
	VIRTIO_BLK_T_FLUSH        = 4
	VIRTIO_BLK_T_GET_ID       = 8
	VIRTIO_BLK_T_DISCARD      = 11
	VIRTIO_BLK_T_WRITE_ZEROES = 13
)

// The status byte that ends each request.
const (
	VIRTIO_BLK_S_OK     = 0
	VIRTIO_BLK_S_IOERR  = 1
	VIRTIO_BLK_S_UNSUPP = 2
)

// sectorBytes is the unit of all positions and sizes, whatever the disk's blocks.
const sectorBytes = 512

// Layout of struct virtio_blk_req: type le32, reserved le32, sector le64, then
// data, then a status byte.
const (
	reqHeaderBytes = 16
	idBytes        = 20 // of the answer to GET_ID; NUL-terminated if shorter
)

// Layout of struct virtio_blk_discard_write_zeroes: sector le64, num_sectors le32,
// flags le32 (bit 0: unmap).
const (
	rangeBytes     = 16
	rangeFlagUnmap = 1 << 0
)

// Offsets in struct virtio_blk_config (v1.2 §5.2.4). The end of the space, for
// features that are not offered, is zero: QEMU asks for all of it.
const (
	offCapacity         = 0  // le64, sectors
	offSizeMax          = 8  // le32, bytes of one descriptor
	offSegMax           = 12 // le32, descriptors of one request
	offBlkSize          = 20 // le32, bytes
	offPhysicalBlockExp = 24 // u8, log2 of logical blocks per physical one
	offMinIOSize        = 26 // le16, logical blocks
	offOptIOSize        = 28 // le32, logical blocks
	offNumQueues        = 34 // le16
	offMaxDiscard       = 36 // le32, sectors
	offMaxDiscardSeg    = 40 // le32
	offDiscardAlign     = 44 // le32, sectors
	offMaxZeroes        = 48 // le32, sectors
	offMaxZeroesSeg     = 52 // le32
	offZeroesMayUnmap   = 56 // u8
	configBytes         = 96
)

// header is a request's.
type header struct {
	kind   uint32
	sector uint64
}

func parseHeader(b *[reqHeaderBytes]byte) header {
	return header{kind: binary.LittleEndian.Uint32(b[0:]), sector: binary.LittleEndian.Uint64(b[8:])}
}

// extent is a range of DISCARD and WRITE_ZEROES.
type extent struct {
	sector  uint64
	sectors uint32
	flags   uint32
}

func parseExtent(b *[rangeBytes]byte) extent {
	return extent{
		sector: binary.LittleEndian.Uint64(b[0:]), sectors: binary.LittleEndian.Uint32(b[8:]), flags: binary.LittleEndian.Uint32(b[12:]),
	}
}
