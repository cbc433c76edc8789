package vhostuser

import (
	"encoding/binary"
	"fmt"
	"structs"
)

// Everything here is docs/interop/vhost-user.rst of QEMU 7.2, under its names.
// A message is a header, a payload of header.size bytes, and the descriptors
// that travel with the first byte. The machine's byte order is ours: x86-64.

// Requests of the front-end ("Front-end message types").
const (
	VHOST_USER_GET_FEATURES          = 1
	VHOST_USER_SET_FEATURES          = 2
	VHOST_USER_SET_OWNER             = 3
	VHOST_USER_RESET_OWNER           = 4
	VHOST_USER_SET_MEM_TABLE         = 5
	VHOST_USER_SET_VRING_NUM         = 8
	VHOST_USER_SET_VRING_ADDR        = 9
	VHOST_USER_SET_VRING_BASE        = 10
	VHOST_USER_GET_VRING_BASE        = 11
	VHOST_USER_SET_VRING_KICK        = 12
	VHOST_USER_SET_VRING_CALL        = 13
	VHOST_USER_SET_VRING_ERR         = 14
	VHOST_USER_GET_PROTOCOL_FEATURES = 15
	VHOST_USER_SET_PROTOCOL_FEATURES = 16
	VHOST_USER_GET_QUEUE_NUM         = 17
	VHOST_USER_SET_VRING_ENABLE      = 18
	VHOST_USER_GET_CONFIG            = 24
	VHOST_USER_SET_CONFIG            = 25
	VHOST_USER_RESET_DEVICE          = 34
)

// VHOST_USER_F_PROTOCOL_FEATURES is the bit of the virtio features by which the
// two ends agree to negotiate protocol features.
const VHOST_USER_F_PROTOCOL_FEATURES = 30

// Protocol features, as bit numbers.
const (
	VHOST_USER_PROTOCOL_F_MQ           = 0
	VHOST_USER_PROTOCOL_F_REPLY_ACK    = 3
	VHOST_USER_PROTOCOL_F_CONFIG       = 9
	VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13
)

// Bits of header.flags: the version is in the lowest two.
const (
	VHOST_USER_VERSION         = 1
	VHOST_USER_VERSION_MASK    = 3
	VHOST_USER_REPLY_MASK      = 1 << 2
	VHOST_USER_NEED_REPLY_MASK = 1 << 3
)

// A message that sets a ring's eventfd has the ring's index in the low byte, and
// a bit that says that no descriptor came with it.
const (
	VHOST_USER_VRING_IDX_MASK  = 0xff
	VHOST_USER_VRING_NOFD_MASK = 1 << 8
)

// Bounds of the protocol.
const (
	VHOST_USER_MAX_RAM_SLOTS   = 8   // VHOST_MEMORY_BASELINE_NREGIONS: regions, and so descriptors, of a message
	VHOST_USER_MAX_CONFIG_SIZE = 256 // bytes
)

// maxPayload is the longest payload, in bytes, of a message that we know: a
// memory table of VHOST_USER_MAX_RAM_SLOTS, or 12 + 256 bytes of configuration.
const maxPayload = max(memTableBytes+VHOST_USER_MAX_RAM_SLOTS*memRegionBytes, configBytes+VHOST_USER_MAX_CONFIG_SIZE)

// Sizes of the layouts below, in bytes.
const (
	headerBytes    = 12
	u64Bytes       = 8
	vringBytes     = 8
	vringAddrBytes = 40
	memTableBytes  = 8 // nregions u32, padding u32
	memRegionBytes = 32
	configBytes    = 12
)

// header lays out the first three fields of struct VhostUserMsg.
type header struct {
	_       structs.HostLayout
	request uint32
	flags   uint32
	size    uint32 // of the payload, in bytes
}

// vringState lays out struct vhost_vring_state.
type vringState struct {
	_     structs.HostLayout
	index uint32
	num   uint32
}

// vringAddr lays out struct vhost_vring_addr. The addresses are the
// front-end's own (userspace) ones.
type vringAddr struct {
	_     structs.HostLayout
	index uint32
	flags uint32
	desc  uint64
	used  uint64
	avail uint64
	log   uint64
}

// memRegion lays out struct VhostUserMemoryRegion.
type memRegion struct {
	_             structs.HostLayout
	guestPhysAddr uint64
	memorySize    uint64 // bytes
	userspaceAddr uint64
	mmapOffset    uint64 // of the region in its descriptor, in bytes
}

// configSpace lays out the head of struct VhostUserConfig; size bytes follow.
type configSpace struct {
	_      structs.HostLayout
	offset uint32
	size   uint32
	flags  uint32
}

func parseHeader(b []byte) header {
	return header{request: le32(b, 0), flags: le32(b, 4), size: le32(b, 8)}
}

func (h header) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, h.request)
	b = binary.LittleEndian.AppendUint32(b, h.flags)
	return binary.LittleEndian.AppendUint32(b, h.size)
}

func parseVringState(b []byte) vringState {
	return vringState{index: le32(b, 0), num: le32(b, 4)}
}

func (s vringState) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, s.index)
	return binary.LittleEndian.AppendUint32(b, s.num)
}

func parseVringAddr(b []byte) vringAddr {
	return vringAddr{index: le32(b, 0), flags: le32(b, 4), desc: le64(b, 8), used: le64(b, 16), avail: le64(b, 24), log: le64(b, 32)}
}

// parseMemTable checks that b is a table of as many regions as it says.
func parseMemTable(b []byte) ([]memRegion, error) {
	if len(b) < memTableBytes {
		return nil, fmt.Errorf("memory table of %d bytes", len(b))
	}
	n := le32(b, 0)
	if n == 0 || n > VHOST_USER_MAX_RAM_SLOTS || len(b) != memTableBytes+int(n)*memRegionBytes {
		return nil, fmt.Errorf("memory table of %d regions in %d bytes", n, len(b))
	}
	rs := make([]memRegion, n)
	for i := range rs {
		r := b[memTableBytes+i*memRegionBytes:]
		rs[i] = memRegion{guestPhysAddr: le64(r, 0), memorySize: le64(r, 8), userspaceAddr: le64(r, 16), mmapOffset: le64(r, 24)}
	}
	return rs, nil
}

// parseConfig checks that b holds as many bytes of configuration space as it
// says, and returns them.
func parseConfig(b []byte) (configSpace, []byte, error) {
	if len(b) < configBytes {
		return configSpace{}, nil, fmt.Errorf("configuration message of %d bytes", len(b))
	}
	c := configSpace{offset: le32(b, 0), size: le32(b, 4), flags: le32(b, 8)}
	if c.size > VHOST_USER_MAX_CONFIG_SIZE || c.offset > VHOST_USER_MAX_CONFIG_SIZE || len(b) != configBytes+int(c.size) {
		return configSpace{}, nil, fmt.Errorf("configuration message of %d bytes: offset %d size %d", len(b), c.offset, c.size)
	}
	return c, b[configBytes:], nil
}

func le32(b []byte, off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
func le64(b []byte, off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }
