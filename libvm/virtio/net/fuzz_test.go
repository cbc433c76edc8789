package net

import (
	"testing"

	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
)

// FuzzControl: any command is answered, with one byte.
func FuzzControl(f *testing.F) {
	f.Add([]byte{VIRTIO_NET_CTRL_MAC, 0, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0}, 3)
	f.Add([]byte{VIRTIO_NET_CTRL_RX, 0, 1}, 1)
	f.Add([]byte{VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 2, 0}, 2)
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		if len(b) > 4096 {
			return
		}
		at = max(0, min(at, len(b)))
		d := newMultiqueue(t, 2)
		d.features = 1 << VIRTIO_NET_F_MQ
		driver := queuetest.New(t, 16, queue.Config{})
		driver.Offer(data(b[:at]), data(b[at:]), room(1))
		c, err := driver.Queue.Next()
		if err != nil || c == nil {
			t.Fatal(err)
		}
		if got := d.command(c); got > VIRTIO_NET_ERR {
			t.Errorf("answer %d", got)
		}
		if d.active < 1 || d.active > d.Pairs() {
			t.Errorf("%d pairs in use of %d", d.active, d.Pairs())
		}
	})
}
