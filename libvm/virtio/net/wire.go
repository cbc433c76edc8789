package net

// Feature bits (v1.2 §5.1.3).
const (
	VIRTIO_NET_F_CSUM           = 0
	VIRTIO_NET_F_GUEST_CSUM     = 1
	VIRTIO_NET_F_MAC            = 5
	VIRTIO_NET_F_GUEST_TSO4     = 7
	VIRTIO_NET_F_GUEST_TSO6     = 8
	VIRTIO_NET_F_GUEST_ECN      = 9
	VIRTIO_NET_F_HOST_TSO4      = 11
	VIRTIO_NET_F_HOST_TSO6      = 12
	VIRTIO_NET_F_HOST_ECN       = 13
	VIRTIO_NET_F_MRG_RXBUF      = 15
	VIRTIO_NET_F_STATUS         = 16
	VIRTIO_NET_F_CTRL_VQ        = 17
	VIRTIO_NET_F_CTRL_RX        = 18
	VIRTIO_NET_F_CTRL_VLAN      = 19
	VIRTIO_NET_F_GUEST_ANNOUNCE = 21
	VIRTIO_NET_F_MQ             = 22
	VIRTIO_NET_F_CTRL_MAC_ADDR  = 23
)

// Bits of status in the configuration space (v1.2 §5.1.4).
const (
	VIRTIO_NET_S_LINK_UP  = 1
	VIRTIO_NET_S_ANNOUNCE = 2
)

// struct virtio_net_config (v1.2 §5.1.4), as far as features that are offered
// make fields of it valid.
const (
	configMAC    = 0 // [6]u8
	configStatus = 6 // u16
	configPairs  = 8 // u16, max_virtqueue_pairs
	configBytes  = 12
)

// struct virtio_net_hdr (v1.2 §5.1.6), which is in front of each frame. The tap
// reads and writes it as it is, but for num_buffers.
const (
	HeaderBytes      = 12
	headerNumBuffers = 10 // u16
)

// Commands of the control queue (v1.2 §5.1.6.5): class, command, data, and the
// answer of one byte.
const (
	VIRTIO_NET_OK  = 0
	VIRTIO_NET_ERR = 1

	VIRTIO_NET_CTRL_RX           = 0
	VIRTIO_NET_CTRL_RX_NOBCAST   = 5 // the highest of the class
	VIRTIO_NET_CTRL_MAC          = 1
	VIRTIO_NET_CTRL_MAC_TABLE    = 0
	VIRTIO_NET_CTRL_MAC_ADDR     = 1
	VIRTIO_NET_CTRL_VLAN         = 2
	VIRTIO_NET_CTRL_VLAN_ADD     = 0
	VIRTIO_NET_CTRL_VLAN_DEL     = 1
	VIRTIO_NET_CTRL_ANNOUNCE     = 3
	VIRTIO_NET_CTRL_ANNOUNCE_ACK = 0

	VIRTIO_NET_CTRL_MQ              = 4
	VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0 // u16: how many
)

// macBytes is the length of an Ethernet address.
const macBytes = 6

// maxFrame bounds a frame with its header, in bytes: an IP packet of 64 KiB, as
// segmentation offload makes them, behind an Ethernet header with VLAN tags.
const maxFrame = HeaderBytes + 14 + 2*4 + 64<<10
