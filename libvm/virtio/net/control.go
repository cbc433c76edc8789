package net

import (
	"encoding/binary"

	"runv/libvm/virtio/queue"
)

// maxCommand bounds what is read of a command, in bytes: the longest that we look
// into is a table of addresses, and of that only the head.
const maxCommand = 64

// control answers commands.
func (d *Device) control(q *queue.Queue) error {
	for {
		c, err := q.Take()
		if err != nil {
			return err
		}
		n := uint32(0)
		if c.WritableLen() > 0 {
			writeAt(c, 0, []byte{d.command(c)})
			n = 1
		}
		q.Used(c, n)
	}
}

// command does what c asks for, and returns the answer. Nothing is filtered by
// address or VLAN: the link gives us only what is the guest's, or, as a hub does,
// a little more.
func (d *Device) command(c *queue.Chain) byte {
	var b [maxCommand]byte
	n := 0
	for _, r := range c.Readable {
		n += copy(b[n:], r)
	}
	if n < 2 {
		return VIRTIO_NET_ERR
	}
	data := b[2:n]
	switch class, command := b[0], b[1]; {
	case class == VIRTIO_NET_CTRL_RX && command <= VIRTIO_NET_CTRL_RX_NOBCAST && len(data) == 1:
	case class == VIRTIO_NET_CTRL_MAC && command == VIRTIO_NET_CTRL_MAC_TABLE && macTables(data, c.ReadableLen()-2):
	case class == VIRTIO_NET_CTRL_MAC && command == VIRTIO_NET_CTRL_MAC_ADDR && len(data) == macBytes:
		// The guest says what its frames have in them; the link carries any.
	case class == VIRTIO_NET_CTRL_VLAN && command <= VIRTIO_NET_CTRL_VLAN_DEL && len(data) == 2:
	case class == VIRTIO_NET_CTRL_MQ && command == VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET && len(data) == 2:
		if d.setPairs(int(binary.LittleEndian.Uint16(data))) != nil {
			return VIRTIO_NET_ERR
		}
	case class == VIRTIO_NET_CTRL_ANNOUNCE && command == VIRTIO_NET_CTRL_ANNOUNCE_ACK && len(data) == 0:
		d.config.Lock()
		d.status &^= VIRTIO_NET_S_ANNOUNCE
		d.config.Unlock()
	default:
		return VIRTIO_NET_ERR
	}
	return VIRTIO_NET_OK
}

// macTables says whether two tables of addresses (a count u32, then so many
// addresses) can be what total bytes begin with head.
func macTables(head []byte, total int) bool {
	if len(head) < 4 {
		return false
	}
	first := 4 + macBytes*uint64(binary.LittleEndian.Uint32(head))
	return first+4 <= uint64(total)
}
