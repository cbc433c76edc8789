package qemu

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/digitalocean/go-qemu/qmp"

	"runv/libvm/virtio"
)

// card is a network card whose configuration space is QEMU's: it has to be told
// what the device says of its link.
type card struct {
	netdev string // -netdev id
	device virtio.Device
	up     bool // as QEMU has it
}

// Where struct virtio_net_config has status, and its bit VIRTIO_NET_S_LINK_UP
// (v1.2 §5.1.4).
const (
	statusOffset = 6
	statusLinkUp = 1
)

// linkUp is what the device says.
func (c *card) linkUp() bool {
	b := c.device.Config()
	return len(b) >= statusOffset+2 && binary.LittleEndian.Uint16(b[statusOffset:])&statusLinkUp != 0
}

// carry tells QEMU of the links of cards until ctx ends or QEMU does. A card
// without a link is not started: it costs the guest no more than being there.
func carry(ctx context.Context, mon *qmp.SocketMonitor, cards []*card) {
	changed := make(chan struct{}, 1)
	for _, c := range cards {
		if n, ok := c.device.(virtio.ConfigNotifier); ok {
			n.NotifyConfig(func() {
				select {
				case changed <- struct{}{}:
				default:
				}
			})
			defer n.NotifyConfig(nil)
		}
	}
	for {
		for _, c := range cards {
			up := c.linkUp()
			if up == c.up {
				continue
			}
			if _, err := mon.Run(fmt.Appendf(nil, `{"execute":"set_link","arguments":{"name":%q,"up":%t}}`, c.netdev, up)); err != nil {
				return // it has ended
			}
			c.up = up
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}
