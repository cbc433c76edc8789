package net

import (
	"fmt"
	"testing"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
)

const withPairs = 1<<VIRTIO_NET_F_MQ | mergeable | 1<<virtio.FVersion1

// startPairs starts a card with several pairs, and returns the driver: a ring for each queue of the card, of
// nil where it has none.
func startPairs(t testing.TB, d *Device, features uint64, has func(i int) bool) (rings []*queuetest.Driver) {
	t.Helper()
	var queues []*queue.Queue
	for i := range d.QueueSizes() {
		if !has(i) {
			rings, queues = append(rings, nil), append(queues, nil)
			continue
		}
		r := queuetest.New(t, 64, queue.Config{EventIdx: true, Indirect: true})
		r.WantNext()
		rings, queues = append(rings, r), append(queues, r.Queue)
	}
	if err := d.Start(features, queues); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, q := range queues {
			if q != nil {
				q.Close()
			}
		}
		if err := d.Wait(); err != nil {
			t.Errorf("Wait: %v", err)
		}
	})
	return rings
}

func offer(t testing.TB, d *queuetest.Driver, bufs ...queuetest.Buffer) {
	t.Helper()
	(&guest{t: t}).offer(d, bufs...)
}

// command sends a command and returns the answer.
func command(t testing.TB, ring *queuetest.Driver, b ...byte) byte {
	t.Helper()
	offer(t, ring, data(b), room(1))
	u := ring.Take(t, patience)
	return u.Data[len(u.Data)-1][0]
}

// moves checks which queue of the link a pair receives from and sends to.
func moves(t *testing.T, rings []*queuetest.Driver, c *cable, pair, from, to int) {
	t.Helper()
	all := append([]*cable{c}, c.next...)
	if from >= 0 {
		offer(t, rings[2*pair+receiveq], room(2000))
		all[from].send(t, frame(60+pair))
		if u := rings[2*pair+receiveq].Take(t, patience); u.Len != uint32(HeaderBytes+60+pair) {
			t.Errorf("pair %d received %d bytes", pair, u.Len)
		}
	}
	offer(t, rings[2*pair+transmitq], data(frame(100+pair)))
	rings[2*pair+transmitq].Take(t, patience)
	if got := len(all[to].receive(t)); got != HeaderBytes+100+pair {
		t.Errorf("pair %d sent %d bytes by queue %d", pair, got, to)
	}
}

// TestPairs: as many pairs are used as the driver commands; what it sends by others
// is not lost.
func TestPairs(t *testing.T) {
	d, c := newMultiqueue(t, 3), newCables(t, 3)
	attach(t, d, c)
	rings := startPairs(t, d, withPairs, func(int) bool { return true })
	control := rings[len(rings)-1]
	set := func(n byte) byte {
		return command(t, control, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, n, 0)
	}
	if c.queues != 1 {
		t.Errorf("%d queues of the link in use at first", c.queues)
	}
	moves(t, rings, c, 0, 0, 0)
	moves(t, rings, c, 1, -1, 0)
	for _, n := range []byte{3, 2, 3} {
		if got := set(n); got != VIRTIO_NET_OK || c.queues != int(n) {
			t.Fatalf("%d pairs: answer %d, link has %d", n, got, c.queues)
		}
		for i := range int(n) {
			moves(t, rings, c, i, i, i)
		}
		if n == 2 {
			moves(t, rings, c, 2, -1, 0)
		}
	}
	for _, n := range []byte{0, 4, 255} {
		if got := set(n); got != VIRTIO_NET_ERR || c.queues != 3 {
			t.Errorf("%d pairs: answer %d, link has %d", n, got, c.queues)
		}
	}
	if got := command(t, control, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 1); got != VIRTIO_NET_ERR {
		t.Errorf("half a number: answer %d", got)
	}
	late := newCables(t, 3)
	attach(t, d, late)
	if late.queues != 3 {
		t.Errorf("a new link has %d queues in use", late.queues)
	}
	moves(t, rings, late, 2, 2, 2)
}

// TestPairsWithoutControl: QEMU keeps the commands, and gives us the queues that are
// in use.
func TestPairsWithoutControl(t *testing.T) {
	for n := 1; n <= 3; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			d, c := newMultiqueue(t, 3), newCables(t, 3)
			attach(t, d, c)
			rings := startPairs(t, d, withPairs, func(i int) bool { return i < 2*n })
			if c.queues != n {
				t.Errorf("%d queues of the link in use", c.queues)
			}
			for i := range n {
				moves(t, rings, c, i, i, i)
			}
		})
	}
}

// TestPairsUnknown: a driver that knows of one pair has its control queue behind
// that, and whatever else it sets up is left alone.
func TestPairsUnknown(t *testing.T) {
	d, c := newMultiqueue(t, 2), newCables(t, 2)
	attach(t, d, c)
	rings := startPairs(t, d, mergeable|1<<virtio.FVersion1, func(int) bool { return true })
	moves(t, rings, c, 0, 0, 0)
	if got := command(t, rings[2], VIRTIO_NET_CTRL_RX, 0, 1); got != VIRTIO_NET_OK {
		t.Errorf("answer %d", got)
	}
	if got := command(t, rings[2], VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 2, 0); got != VIRTIO_NET_ERR || c.queues != 1 {
		t.Errorf("answer %d, %d queues in use", got, c.queues)
	}
}

func TestNewPairs(t *testing.T) {
	for _, n := range []int{-1, 0, MaxPairs + 1} {
		if d, err := New(make([]byte, macBytes), n); err == nil {
			d.Close()
			t.Errorf("a card of %d pairs", n)
		}
	}
	for pairs, offered := range map[int]bool{1: false, 2: true, MaxPairs: true} {
		d := newMultiqueue(t, pairs)
		if got := d.Features()&(1<<VIRTIO_NET_F_MQ) != 0; got != offered {
			t.Errorf("%d pairs: offered %t", pairs, got)
		}
		if got := int(d.Config()[configPairs]); got != pairs || len(d.QueueSizes()) != 2*pairs+1 {
			t.Errorf("%d pairs: the driver is told %d, of %d queues", pairs, got, len(d.QueueSizes()))
		}
	}
}
