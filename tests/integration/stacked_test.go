package integration

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/tests/harness"
)

// stack makes interfaces eth0 of a kind (macvlan, ipvlan) over the host's end of a
// veth: one in n with the second addresses of the prefixes 10.77.i and fd77:i:, one in
// sibling with the third. The other end of the veth is peer's, with the first.
// Where the kernel has no such interfaces the test is skipped.
func stack(n, sibling, peer *namespace, i int, kind, mode string) {
	n.t.Helper()
	lower := newNamespace(n.t)
	lower.ip(fmt.Sprintf("link add v0 type veth peer name p%d netns %s", i, peer.path))
	args := fmt.Sprintf("link add link v0 name eth0 netns %s type %s mode %s", n.path, kind, mode)
	cmd := exec.Command("nsenter", append([]string{"--net=" + lower.path, "ip"}, strings.Fields(args)...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		if text := string(out); strings.Contains(text, "Unknown device type") || strings.Contains(text, "not supported") {
			n.t.Skipf("the kernel has no %s (try: make test-kvm RUN=TestStacked)", kind)
		}
		n.t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
	lower.ip(fmt.Sprintf("link add link v0 name eth0 netns %s type %s mode %s", sibling.path, kind, mode))
	lower.ip("link set v0 up")
	peer.ip(fmt.Sprintf("link set p%d up", i))
	addresses(peer, i, 1, fmt.Sprintf("p%d", i))
	for k, s := range []*namespace{n, sibling} {
		s.ip("link set eth0 up")
		addresses(s, i, k+2, "eth0")
		s.ip("route add default dev eth0")
		s.ip("-6 route add default dev eth0")
	}
	if mode == "l3" {
		// Nobody answers for them: the host is the way to them, and from them to all.
		lower.ip(fmt.Sprintf("addr add 10.78.%d.9/24 dev v0", i))
		lower.ip(fmt.Sprintf("addr add fd78:%d::9/64 dev v0 nodad", i))
		peer.ip(fmt.Sprintf("addr add 10.78.%d.1/24 dev p%[1]d", i))
		peer.ip(fmt.Sprintf("addr add fd78:%d::1/64 dev p%[1]d nodad", i))
		for k := 2; k < 4; k++ {
			peer.ip(fmt.Sprintf("route add 10.77.%d.%d via 10.78.%[1]d.9", i, k))
			peer.ip(fmt.Sprintf("-6 route add fd77:%d::%d via fd78:%[1]d::9", i, k))
		}
		lower.ip(fmt.Sprintf("route add 10.77.%d.1 via 10.78.%[1]d.1", i))
		lower.ip(fmt.Sprintf("-6 route add fd77:%d::1 via fd78:%[1]d::1", i))
	}
}

// addresses gives an interface the address k of both prefixes.
func addresses(n *namespace, i, k int, dev string) {
	n.t.Helper()
	n.ip(fmt.Sprintf("addr add 10.77.%d.%d/24 dev %s", i, k, dev))
	n.ip(fmt.Sprintf("addr add fd77:%d::%d/64 dev %s nodad", i, k, dev))
}

// TestStacked: a container on an interface that is stacked on one of the host reaches
// what is behind that, and its siblings, and is reached.
func TestStacked(t *testing.T) {
	for i, tt := range []struct{ kind, mode string }{{"macvlan", "bridge"}, {"ipvlan", "l2"}, {"ipvlan", "l3"}} {
		t.Run(tt.kind+" "+tt.mode, func(t *testing.T) {
			i += 30
			n, sibling, peer := newNamespace(t), newNamespace(t), newNamespace(t)
			stack(n, sibling, peer, i, tt.kind, tt.mode)
			r := newRuntime(t)
			c := r.Create(r.NewBundle(idle, networked(n), func(s *specs.Spec) { grant(s, "CAP_NET_ADMIN") })).Start()
			mac := strings.Fields(n.run("ip", "-br", "link", "show", "eth0"))[2]
			contains(t, "interface", c.Output("ip addr"), "eth0: <", mac, fmt.Sprintf("inet 10.77.%d.2/24", i), fmt.Sprintf("inet6 fd77:%d::2/64", i))
			v4, v6 := fmt.Sprintf("10.77.%d", i), fmt.Sprintf("fd77:%d:", i)
			for _, to := range []string{host(v4, 1), host(v6, 1), host(v4, 3), host(v6, 3)} {
				contains(t, "ping "+to, c.Output("ping -c 2 -w 20 "+to+" || true"), " 0% packet loss")
			}
			for _, from := range []*namespace{peer, sibling} {
				for _, to := range []string{host(v4, 2), host(v6, 2)} {
					from.run("busybox", "ping", "-c", "1", "-w", "20", to)
				}
			}
			for _, prefix := range []string{v4, v6} {
				fromPeer(t, c, peer, prefix)
				toPeer(t, c, peer, prefix)
			}
			if tt.kind == "macvlan" {
				// Only the guest knows this address, and listens for who asks for it.
				c.Output("ip -6 addr add " + v6 + ":77/64 dev eth0")
				peer.run("busybox", "ping", "-c", "1", "-w", "20", v6+":77")
			}
			c.End()
			if out := n.run("ip", "link", "show", "eth0"); strings.Contains(out, "ALLMULTI") {
				t.Errorf("left behind: %s", out)
			}
		})
	}
}

// TestStackedRefused: what an ipvlan in mode l3s receives passes by tc.
func TestStackedRefused(t *testing.T) {
	n, sibling, peer := newNamespace(t), newNamespace(t), newNamespace(t)
	stack(n, sibling, peer, 40, "ipvlan", "l3s")
	r := newRuntime(t)
	refused(t, r, "network interface eth0: an ipvlan in mode l3s", 1, "run", "--bundle", r.NewBundle(harness.Args("true"), networked(n)).Dir, r.NewID())
}
