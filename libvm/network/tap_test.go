package network

import (
	"strings"
	"testing"
)

// TestTapQueues: the kernel uses as many queues of a tap as the guest does.
func TestTapQueues(t *testing.T) {
	inNamespace(t, func(run func(args ...string) string) {
		tap, err := openTap(3)
		if err != nil {
			t.Error(err)
			return
		}
		defer tap.close()
		name := must(tap.make())(t)
		for _, tt := range []struct {
			n    int
			want string
		}{{3, "numqueues 3 numdisabled 0"}, {1, "numqueues 1 numdisabled 2"}, {2, "numqueues 2 numdisabled 1"}, {3, "numqueues 3 numdisabled 0"}} {
			if err := tap.SetQueues(tt.n); err != nil {
				t.Errorf("%d queues: %v", tt.n, err)
			}
			if out := run("ip", "-d", "link", "show", name); !strings.Contains(out, "multi_queue "+tt.want) {
				t.Errorf("%d queues: %s", tt.n, out)
			}
		}
		one, err := openTap(1)
		if err != nil {
			t.Error(err)
			return
		}
		defer one.close()
		if out := run("ip", "-d", "link", "show", must(one.make())(t)); strings.Contains(out, "multi_queue") {
			t.Errorf("a tap of one queue: %s", out)
		}
		if err := one.SetQueues(1); err != nil {
			t.Error(err)
		}
	})
}
