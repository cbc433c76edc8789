package queue_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"runv/libvm/mem"
	"runv/libvm/virtio/queue"
)

// FuzzChain gives the device a memory of the fuzzer's making: table, rings and
// buffers are arbitrary. Whatever it says, Next gives chains that lie inside the
// memory, no more than the queue has, or an error.
func FuzzChain(f *testing.F) {
	const size, desc, avail, used, ramBytes = 8, 0, 128, 256, 4096
	le := binary.LittleEndian
	seed := func(flags uint16, addr uint64, n uint32, next, idx uint16) []byte {
		b := make([]byte, 512)
		for i := range 8 {
			le.PutUint64(b[16*i:], addr)
			le.PutUint32(b[16*i+8:], n)
			le.PutUint16(b[16*i+12:], flags)
			le.PutUint16(b[16*i+14:], next)
		}
		le.PutUint16(b[avail+2:], idx)
		return b
	}
	f.Add(seed(0, 512, 16, 0, 1), true, uint16(0))
	f.Add(seed(1, 512, 16, 1, 8), true, uint16(0))
	f.Add(seed(2, 4095, 1, 0, 3), false, uint16(65535))
	f.Add(seed(4, 0, 128, 0, 1), true, uint16(0))
	f.Add(seed(4, 16, 64, 0, 9), true, uint16(1))
	f.Add(seed(3, 1<<63, 1<<31, 7, 2), false, uint16(0))
	f.Fuzz(func(t *testing.T, image []byte, indirect bool, start uint16) {
		ram := make([]byte, ramBytes)
		copy(ram, image)
		m, err := mem.New(mem.Region{GPA: 0, Host: ram})
		if err != nil {
			t.Fatal(err)
		}
		q, err := queue.New(m, queue.Config{Size: size, Desc: desc, Driver: avail, Device: used,
			EventIdx: indirect, Indirect: indirect, Next: start, Interrupt: func() {}})
		if err != nil {
			t.Fatal(err)
		}
		for taken := 0; ; taken++ {
			c, err := q.Next()
			if err != nil {
				if !errors.Is(err, queue.ErrBadRing) {
					t.Fatalf("Next: %v, want ErrBadRing", err)
				}
				return
			}
			if c == nil {
				return
			}
			if taken >= 1<<17 {
				return // the guest rewrites its own ring: it may go on for ever
			}
			if n := len(c.Readable) + len(c.Writable); n > 1024+size {
				t.Fatalf("chain of %d parts", n)
			}
			n := 0
			for _, w := range c.Writable {
				n += copy(w, "\x01\x02\x03")
			}
			q.Used(c, uint32(n))
		}
	})
}
