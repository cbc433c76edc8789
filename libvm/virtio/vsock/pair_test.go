package vsock

import (
	"context"
	"net"
	"sync"
	"testing"

	"golang.org/x/net/nettest"
)

// pair is two devices back to back: each sees the other as its guest. Pumps
// carry packets from the rx queue of one to the tx queue of the other.
type pair struct {
	a, b *Device
	stop func()
}

func newPair(t testing.TB, o options) *pair {
	p := &pair{a: New(testCID), b: New(testCID)}
	ga, gb := boot(t, p.a, o), boot(t, p.b, o)
	done := make(chan struct{})
	var pumps sync.WaitGroup
	pumps.Go(func() { pump(ga, gb, done) })
	pumps.Go(func() { pump(gb, ga, done) })
	p.stop = sync.OnceFunc(func() {
		close(done)
		pumps.Wait()
		for _, g := range []*guest{ga, gb} {
			if err := g.halt(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(p.stop)
	return p
}

// pump touches the rx queue of from and the tx queue of to, and no other.
func pump(from, to *guest, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		h, data, ok := from.take()
		if !ok {
			from.waitIdle(done)
			continue
		}
		h.srcCID, h.dstCID = testCID, hostCID
		var b [headerSize]byte
		h.encode(&b)
		to.put(b[:], data)
		to.notify(to.tx)
	}
}

// waitIdle is wait of the rx queue, without a limit.
func (g *guest) waitIdle(stop <-chan struct{}) {
	for !g.wait(queueRX, stop) {
		select {
		case <-stop:
			return
		default:
		}
	}
}

// conns connects a to port of b.
func (p *pair) conns(port uint32) (a, b *Conn) {
	l, err := p.b.Listen(port)
	if err != nil {
		panic(err)
	}
	defer l.Close()
	type result struct {
		c   net.Conn
		err error
	}
	accepted := make(chan result)
	go func() { c, err := l.Accept(); accepted <- result{c, err} }()
	c, err := p.a.Dial(context.Background(), port)
	if err != nil {
		panic(err)
	}
	r := <-accepted
	if r.err != nil {
		panic(r.err)
	}
	return c.(*Conn), r.c.(*Conn)
}

// settle checks that no connection is left once all are closed.
func (p *pair) settle(t *testing.T) {
	t.Helper()
	waitFor(t, p.a, func() bool { return len(p.a.conns) == 0 && p.a.reaper == nil })
	waitFor(t, p.b, func() bool { return len(p.b.conns) == 0 && p.b.reaper == nil })
}

// TestConn is the net package's own conformance test.
func TestConn(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    options
	}{
		{"plain", options{}},
		{"event index, indirect", options{eventIdx: true, indirect: true}},
		{"few small buffers", options{size: 4, rxBytes: headerSize + 100}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				p := newPair(t, tt.o)
				a, b := p.conns(1024)
				return a, b, func() {
					a.Close()
					b.Close()
					p.stop()
				}, nil
			})
		})
	}
}
