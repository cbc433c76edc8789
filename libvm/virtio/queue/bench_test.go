package queue_test

import (
	"testing"

	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
)

// BenchmarkChain is the cost of one chain of a file system's request: taken,
// given back, no interrupt wanted.
func BenchmarkChain(b *testing.B) {
	d := queuetest.New(b, 64, queue.Config{EventIdx: true, Indirect: true})
	d.OfferIndirect(queuetest.Buffer{Data: make([]byte, 40)}, queuetest.Buffer{Data: make([]byte, 40)},
		queuetest.Buffer{Data: make([]byte, 16), Write: true}, queuetest.Buffer{Data: make([]byte, 4096), Write: true})
	d.WantInterruptAt(60000)
	b.ReportAllocs()
	for b.Loop() {
		c, err := d.Queue.Next()
		if err != nil || c == nil {
			b.Fatal(c, err)
		}
		d.Queue.Used(c, 16)
		d.PutAvail(0)
	}
}
