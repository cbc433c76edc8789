package net

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPacer: what makes a queue pause, and what ends it.
func TestPacer(t *testing.T) {
	const short, long = closeGap / 2, 2 * closeGap
	type round struct {
		times  int
		wait   time.Duration // before the round; 0: there was none
		frames int
		bytes  int // of each
		want   bool
	}
	for _, tt := range []struct {
		name   string
		rounds []round
	}{
		{"single frames now and then", []round{{2 * maxStreak, long, 1, 100, false}}},
		{"long frames, however thick", []round{{2 * maxStreak, short, 1, maxFrame, false}, {100, short, 64, maxFrame, false}}},
		{"a stream", []round{{minStreak - 1, short, 1, 1500, false}, {1, short, 1, 1500, true}, {1000, 0, 10, 1500, true}, {1, 0, 1, 1500, false}}},
		{"a stream that becomes long frames", []round{{minStreak - 1, short, 1, 100, false}, {5, short, 4, 100, true}, {1, 0, 4, maxFrame, false}}},
		{"a gap begins it anew", []round{{minStreak - 1, short, 1, 100, false}, {1, long, 1, 100, false}, {minStreak - 1, short, 1, 100, false}, {1, short, 1, 100, true}}},
		{"questions and answers", []round{
			{minStreak - 1, short, 1, 100, false}, {1, short, 1, 100, true}, {1, 0, 0, 0, false},
			{2*minStreak - 1, short, 1, 100, false}, {1, short, 1, 100, true}, {1, 0, 1, 100, false},
			{4*minStreak - 1, short, 1, 100, false}, {1, short, 1, 100, true}, {1, 0, 1, 100, false},
		}},
		{"a stream that has stopped comes again", []round{
			{minStreak - 1, short, 1, 100, false}, {paid, short, 8, 100, true}, {1, 0, 0, 0, false},
			{minStreak - 1, short, 1, 100, false}, {1, short, 1, 100, true},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p pacer
			for i, r := range tt.rounds {
				for n := range r.times {
					if r.wait > 0 {
						p.waited(r.wait)
					}
					if got := p.next(r.frames, r.frames*r.bytes); got != r.want {
						t.Fatalf("round %d, time %d: pauses %v, want %v", i, n, got, r.want)
					}
				}
			}
		})
	}
	var p pacer
	for range 100 {
		for range maxStreak {
			p.waited(short)
			p.next(1, 100)
		}
	}
	if p.need > maxStreak {
		t.Errorf("it takes %d short waits, want at most %d", p.need, maxStreak)
	}
}

// TestStream: of small frames that come thick, in both directions at the same time,
// each arrives, in order.
func TestStream(t *testing.T) {
	d, c := newDevice(t), newCable(t)
	attach(t, d, c)
	g := start(t, d, mergeable)
	const count = 2000
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range count {
			f := frame(60)
			f[HeaderBytes], f[HeaderBytes+1] = byte(i), byte(i>>8)
			for {
				if _, err := unix.Write(c.far, f); err != unix.EAGAIN {
					break
				}
				time.Sleep(time.Microsecond) // the socket is full
			}
		}
	}()
	numbered := func(b []byte) int { return int(b[HeaderBytes]) | int(b[HeaderBytes+1])<<8 }
	for range 32 {
		g.offer(g.rx, room(200))
	}
	for i := range count {
		f := frame(60)
		f[HeaderBytes], f[HeaderBytes+1] = byte(i), byte(i>>8)
		g.offer(g.tx, data(f))
		g.tx.Take(t, patience)
		if got := numbered(c.receive(t)); got != i {
			t.Fatalf("frame %d arrived as number %d", got, i)
		}
		u := g.rx.Take(t, patience)
		if got := numbered(u.Data[0]); got != i {
			t.Fatalf("the guest got frame %d as number %d", got, i)
		}
		g.offer(g.rx, room(200))
	}
	<-sent
}
