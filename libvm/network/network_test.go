package network

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"runv/agent/rtattr"
	"runv/libvm/thread"
)

// inNamespace runs f on a thread in a new network namespace.
func inNamespace(t *testing.T, f func(ip func(args ...string) string)) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs namespaces (try: run the tests as root)")
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	err := thread.Own(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		f(run)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// must is for what cannot fail a test from a thread of its own by t.Fatal.
func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
		return v
	}
}

// kinds counts the messages of an update by type.
func kinds(u *Update) map[uint16]int {
	n := map[uint16]int{}
	for b := u.Messages; len(b) >= unix.SizeofNlMsghdr; {
		n[binary.NativeEndian.Uint16(b[4:])]++
		b = b[rtattr.Align(int(binary.NativeEndian.Uint32(b))):]
	}
	return n
}

// TestUpdate: what comes, changes and goes is in the updates, once.
func TestUpdate(t *testing.T) {
	inNamespace(t, func(run func(args ...string) string) {
		ip := func(args string) { run(append([]string{"ip"}, strings.Fields(args)...)...) }
		n, err := Open(2, 1)
		if err != nil {
			t.Error(err)
			return
		}
		defer n.Close()
		ip("link set lo up")
		ip("link add eth0 type veth peer name far")
		if u := must(n.Update())(t); !u.Empty() {
			t.Errorf("an interface that is down: %+v", u)
		}
		ip("addr add 10.1.0.2/24 dev eth0")
		ip("addr add fd01::2/64 dev eth0 nodad")
		ip("link set eth0 mtu 1300 up")
		ip("route add default via 10.1.0.1")
		ip("route add 10.2.0.0/16 via 10.1.0.1 metric 7 table 99")
		ip("rule add from 10.1.0.2 table 99")
		ip("neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev eth0")
		u := must(n.Update())(t)
		if len(u.Cards) != 1 || u.Cards[0].Name != "eth0" || !bytes.Equal(u.Cards[0].Address, cardAddress(0)) {
			t.Errorf("cards: %+v", u.Cards)
		}
		k := kinds(u)
		if k[unix.RTM_NEWLINK] != 2 || k[unix.RTM_NEWADDR] < 2 || k[unix.RTM_NEWROUTE] != 2 || k[unix.RTM_NEWRULE] != 1 || k[unix.RTM_NEWNEIGH] != 1 {
			t.Errorf("messages by type: %v", k)
		}
		if out := run("tc", "filter", "show", "dev", "eth0", "ingress"); !strings.Contains(out, "Egress Redirect to device runv-tap0") {
			t.Errorf("no redirection:\n%s", out)
		}
		if out := run("ip", "link", "show", "runv-tap0"); !strings.Contains(out, "mtu 1300") || !strings.Contains(out, "UP") {
			t.Errorf("tap: %s", out)
		}
		if out := run("ip", "addr", "show", "runv-tap0"); strings.Contains(out, "inet") {
			t.Errorf("the tap has an address: %s", out)
		}
		if u := must(n.Update())(t); !u.Empty() {
			t.Errorf("nothing has changed: %+v, %v", u, kinds(u))
		}
		ip("addr del 10.1.0.2/24 dev eth0")
		ip("addr add 10.1.0.3/24 dev eth0")
		if k := kinds(must(n.Update())(t)); k[unix.RTM_DELADDR] != 1 || k[unix.RTM_NEWADDR] < 2 {
			t.Errorf("another address: %v", k)
		}
		ip("link add eth1 type veth peer name far1")
		ip("link set eth1 up")
		if u := must(n.Update())(t); len(u.Cards) != 1 || u.Cards[0].Name != "eth1" {
			t.Errorf("a second interface: %+v", u.Cards)
		}
		ip("link add eth2 type veth peer name far2")
		ip("link set eth2 up")
		if _, err := n.Update(); err == nil || !strings.Contains(err.Error(), "eth2") || !strings.Contains(err.Error(), "network_cards") {
			t.Errorf("one more than there are cards: %v", err)
		}
		ip("link del eth2")
		ip("link del eth0")
		if u := must(n.Update())(t); len(u.Cards) != 1 || !u.Cards[0].Unplugged || !bytes.Equal(u.Cards[0].Address, cardAddress(0)) {
			t.Errorf("the first has gone: %+v", u.Cards)
		}
		ip("link add eth3 type veth peer name far3")
		ip("link set eth3 up")
		if u := must(n.Update())(t); len(u.Cards) != 1 || u.Cards[0].Name != "eth3" || !bytes.Equal(u.Cards[0].Address, cardAddress(0)) {
			t.Errorf("a card that was used before: %+v", u.Cards)
		}
		if out := run("tc", "filter", "show", "dev", "eth3", "ingress"); !strings.Contains(out, "runv-tap0") {
			t.Errorf("no redirection:\n%s", out)
		}
	})
}

// TestTwoInOneNamespace: a second VM is refused while the first is there, and what
// one that was killed has left is no obstacle.
// What is written to "all" reaches every interface, so it comes first.
func TestSysctlOrder(t *testing.T) {
	u := &Update{Sysctls: map[string]string{
		"net.ipv6.conf.aa0.disable_ipv6": "0", "net.ipv6.conf.lo.disable_ipv6": "0",
		"net.ipv6.conf.default.disable_ipv6": "1", "net.ipv6.conf.all.disable_ipv6": "1",
	}}
	want := []string{
		"net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.default.disable_ipv6",
		"net.ipv6.conf.aa0.disable_ipv6", "net.ipv6.conf.lo.disable_ipv6",
	}
	if got := u.SysctlOrder(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTwoInOneNamespace(t *testing.T) {
	inNamespace(t, func(run func(args ...string) string) {
		run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far")
		run("ip", "link", "set", "eth0", "up")
		first := must(Open(1, 1))(t)
		must(first.Update())(t)
		second := must(Open(1, 1))(t)
		if _, err := second.Update(); err == nil || !strings.Contains(err.Error(), "another container") {
			t.Errorf("got %v, want a refusal", err)
		}
		for _, c := range first.cards { // as if it had been killed
			if err := c.device.Attach(nil); err != nil {
				t.Error(err)
			}
			c.tap.close()
			c.tap, c.iface = &tap{queues: []*os.File{os.NewFile(^uintptr(0), "")}}, 0
		}
		u := must(second.Update())(t)
		if u == nil || len(u.Cards) != 1 {
			t.Errorf("after the first was killed: %+v", u)
		}
		for _, c := range second.cards {
			c.tap.close()
			c.iface = 0
		}
		if err := Release(); err != nil {
			t.Error(err)
		}
		if out := run("tc", "qdisc", "show", "dev", "eth0"); strings.Contains(out, "ingress") {
			t.Errorf("left behind: %s", out)
		}
	})
}

// TestRefused: interfaces that no card can stand for are named.
func TestRefused(t *testing.T) {
	for name, tt := range map[string]struct{ setUp, want string }{
		"bridge":        {"link add br0 type bridge", "network interface br0: a bridge"},
		"tun":           {"tuntap add dev br0 mode tun", "network interface br0: it carries no Ethernet frames"},
		"ingress qdisc": {"link add br0 type veth peer name far", "network interface br0: it has an ingress qdisc"},
	} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t, func(run func(args ...string) string) {
				run(append([]string{"ip"}, strings.Fields(tt.setUp)...)...)
				if name == "ingress qdisc" {
					run("tc", "qdisc", "add", "dev", "br0", "ingress")
					run("tc", "filter", "add", "dev", "br0", "parent", "ffff:", "protocol", "ip", "u32", "match", "u32", "0", "0", "flowid", "1:1")
				}
				run("ip", "link", "set", "br0", "up")
				n := must(Open(1, 1))(t)
				defer n.Close()
				if _, err := n.Update(); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
			})
		})
	}
}

// FuzzMessages: no dump makes the parsers fail.
func FuzzMessages(f *testing.F) {
	addr := []byte{unix.AF_INET, 24, 0, 0, 5, 0, 0, 0}
	f.Add(rtattr.Append(addr, unix.IFA_LOCAL, []byte{10, 1, 2, 3}))
	route := append([]byte{unix.AF_INET, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, 0, unix.RTN_UNICAST}, 0, 0, 0, 0)
	route = rtattr.Append(route, unix.RTA_OIF, u32(5))
	f.Add(rtattr.Append(route, unix.RTA_MULTIPATH, []byte{8, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0}))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if m, _, ok := address(b); ok {
			m.encode(nil, flagsNew)
		}
		if m, ok := route2(b); ok {
			m.encode(nil, flagsNew)
		}
		rule(b)
		neighbour(b)
	})
}

func route2(b []byte) (message, bool) {
	m, ok := route(b)
	if ok {
		hops([]byte(m.body))
		gatewayed([]byte(m.body))
	}
	return m, ok
}
