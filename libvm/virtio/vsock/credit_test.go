package vsock

import "testing"

func TestCredit(t *testing.T) {
	tests := []struct {
		name          string
		c             credit
		bufAlloc, fwd uint32
		free          int
		err           bool
	}{
		{"fresh", credit{}, 1000, 0, 1000, false},
		{"in flight", credit{bufAlloc: 1000, txCnt: 300}, 1000, 100, 800, false},
		{"exhausted", credit{bufAlloc: 1000, txCnt: 1000}, 1000, 0, 0, false},
		{"buffer shrinks below what is in flight", credit{bufAlloc: 1000, txCnt: 900}, 500, 0, 0, false},
		{"buffer grows", credit{bufAlloc: 1000, txCnt: 1000}, 3000, 0, 2000, false},
		{"goes backwards: old news", credit{bufAlloc: 1000, txCnt: 900, fwdCnt: 800}, 7, 700, 900, false},
		{"ahead of what was sent", credit{bufAlloc: 1000, txCnt: 900, fwdCnt: 800}, 1000, 901, 900, true},
		{"wraps", credit{bufAlloc: 1000, txCnt: 50, fwdCnt: 0xffffff00}, 1000, 0xfffffff0, 934, false},
		{"wraps to all read", credit{bufAlloc: 1000, txCnt: 50, fwdCnt: 0xffffff00}, 1000, 50, 1000, false},
		{"ahead across the wrap", credit{bufAlloc: 1000, txCnt: 0xffffffff, fwdCnt: 0xffffff00}, 1000, 1, 745, true},
		{"absurd buffer", credit{txCnt: 5}, 0xffffffff, 5, maxPeerBuf, false},
		{"none", credit{bufAlloc: 1000}, 0, 0, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.c
			if err := c.update(tt.bufAlloc, tt.fwd); (err != nil) != tt.err {
				t.Errorf("got error %v, want one: %v", err, tt.err)
			}
			if got := c.free(); got != tt.free {
				t.Errorf("got %d bytes free, want %d", got, tt.free)
			}
		})
	}
}
