package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/thread"
	"runv/tests/harness"
)

// namespace is a network namespace of a test's own.
type namespace struct {
	t    *testing.T
	path string
}

// newNamespace makes one, with its loopback up. It is a descriptor of the test's.
func newNamespace(t *testing.T) *namespace {
	t.Helper()
	fd := -1
	err := thread.Own(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) }) //nolint:errcheck // only held
	n := &namespace{t, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)}
	n.ip("link set lo up")
	return n
}

// run runs a program in it.
func (n *namespace) run(args ...string) string {
	n.t.Helper()
	cmd := exec.Command("nsenter", append([]string{"--net=" + n.path}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (n *namespace) ip(args string) {
	n.t.Helper()
	n.run(append([]string{"ip"}, strings.Fields(args)...)...)
}

// inside runs f on a thread in it.
func (n *namespace) inside(f func() error) error {
	return thread.Own(func() error {
		fd, err := unix.Open(n.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // only entered
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

// enter has the test's goroutine, and what it starts, be in it until the test ends.
func (n *namespace) enter() {
	n.t.Helper()
	runtime.LockOSThread() // for good: the thread ends with the goroutine
	fd, err := unix.Open(n.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	defer unix.Close(fd) //nolint:errcheck // only entered
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		n.t.Fatal(err)
	}
}

// join makes a pair of interfaces, that of n with the name and address i of both
// families, the other one with the first address. Both are up, with an MTU.
func (n *namespace) join(peer *namespace, name string, i, mtu int) {
	n.t.Helper()
	far := fmt.Sprintf("p%d", i)
	n.ip(fmt.Sprintf("link add %s mtu %d type veth peer name %s mtu %d netns %s", name, mtu, far, mtu, peer.path))
	peer.ip(fmt.Sprintf("addr add 10.77.%d.1/24 dev %s", i, far))
	peer.ip(fmt.Sprintf("addr add fd77:%d::1/64 dev %s nodad", i, far))
	peer.ip("link set " + far + " up")
	n.ip(fmt.Sprintf("addr add 10.77.%d.2/24 dev %s", i, name))
	n.ip(fmt.Sprintf("addr add fd77:%d::2/64 dev %s nodad", i, name))
	n.ip("link set " + name + " up")
}

// networked gives a container a namespace, and the right to ping.
func networked(n *namespace) harness.Change {
	return func(s *specs.Spec) {
		for i := range s.Linux.Namespaces {
			if s.Linux.Namespaces[i].Type == specs.NetworkNamespace {
				s.Linux.Namespaces[i].Path = n.path
			}
		}
		c := s.Process.Capabilities
		for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
			*set = append(*set, "CAP_NET_RAW")
		}
	}
}

// idle is a container that waits to be asked.
var idle = harness.Shell("trap 'exit 0' TERM; while :; do sleep 0.1; done")

// contains says what is missing in a text.
func contains(t *testing.T, what, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s: %q is missing in\n%s", what, w, text)
		}
	}
}

// TestNetwork: the container has the interfaces, addresses and routes of its
// namespace, and talks over them, in both directions, with both families.
func TestNetwork(t *testing.T) {
	n, peer := newNamespace(t), newNamespace(t)
	n.join(peer, "eth0", 1, 1400)
	n.join(peer, "net1", 2, 1500)
	n.ip("route add default via 10.77.1.1")
	n.ip("route add 10.99.0.0/16 via 10.77.2.1 metric 42")
	n.ip("-6 route add default via fd77:1::1")
	n.ip("neigh add 10.77.2.9 lladdr 02:00:00:00:00:99 dev net1")
	r := newRuntime(t)
	c := r.Create(r.NewBundle(idle, networked(n))).Start()

	mac := strings.Fields(n.run("ip", "-br", "link", "show", "eth0"))[2]
	contains(t, "interfaces", c.Output("ip addr"), "eth0: <", "mtu 1400", mac, "inet 10.77.1.2/24", "inet6 fd77:1::2/64",
		"net1: <", "mtu 1500", "inet 10.77.2.2/24", "inet6 fd77:2::2/64", "inet 127.0.0.1/8")
	contains(t, "routes", c.Output("ip route; ip -6 route"), "default via 10.77.1.1 dev eth0", "10.99.0.0/16 via 10.77.2.1 dev net1  metric 42", "default via fd77:1::1 dev eth0")
	contains(t, "neighbours", c.Output("ip neigh"), "10.77.2.9 dev net1 lladdr 02:00:00:00:00:99")
	if got, want := c.Output("ls /sys/class/net"), "eth0\nlo\nnet1"; got != want {
		t.Errorf("interfaces: got %q, want %q", got, want)
	}
	for _, a := range []string{"10.77.1.1", "10.77.2.1", "fd77:1::1", "fd77:2::1"} {
		contains(t, "ping "+a, c.Output("ping -c 2 -w 20 "+a+" || true"), " 0% packet loss")
	}
	for _, a := range []string{"10.77.1", "fd77:1:"} {
		fromPeer(t, c, peer, a)
		toPeer(t, c, peer, a)
	}
	udp(t, c, peer, "10.77.2")
	udp(t, c, peer, "fd77:2:")
	c.End()
	if out := n.run("tc", "qdisc"); strings.Contains(out, "ingress") {
		t.Errorf("left behind: %s", out)
	}
	if out := n.run("ip", "-br", "link"); strings.Contains(out, "runv") {
		t.Errorf("left behind: %s", out)
	}
}

// host is address i of a prefix, as Go's net and nc take it.
func host(prefix string, i int) string {
	if strings.Contains(prefix, ":") {
		return fmt.Sprintf("%s:%d", prefix, i)
	}
	return fmt.Sprintf("%s.%d", prefix, i)
}

// payload is what is sent: more than fits into one window.
const payload = 3 << 20

// fromPeer sends to a server in the container.
func fromPeer(t *testing.T, c *harness.Container, peer *namespace, prefix string) {
	t.Helper()
	got := make(chan string, 1)
	go func() { got <- c.Output("nc -l -p 700 | md5sum") }()
	want := c.Output(fmt.Sprintf("head -c %d /dev/zero | md5sum", payload))
	var conn net.Conn
	harness.Within(t, harness.Limit, "a connection to the container", func() bool {
		return peer.inside(func() (err error) {
			conn, err = net.DialTimeout("tcp", net.JoinHostPort(host(prefix, 2), "700"), harness.Limit)
			return err
		}) == nil
	})
	if _, err := io.CopyN(conn, endless{}, payload); err != nil {
		t.Errorf("send to %s: %v", prefix, err)
	}
	conn.Close() //nolint:errcheck // the sum tells
	select {
	case sum := <-got:
		if sum != want {
			t.Errorf("%s: the container got something else: %s, want %s", prefix, sum, want)
		}
	case <-time.After(harness.Limit):
		t.Fatalf("%s: the container got no end", prefix)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// toPeer has the container send to a server.
func toPeer(t *testing.T, c *harness.Container, peer *namespace, prefix string) {
	t.Helper()
	var l net.Listener
	err := peer.inside(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(host(prefix, 1), "0"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // only listened
	got := make(chan int64, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			got <- -1
			return
		}
		defer conn.Close() //nolint:errcheck // only read
		n, _ := io.Copy(io.Discard, conn)
		got <- n
	}()
	c.Output(fmt.Sprintf("head -c %d /dev/zero | nc %s %d", payload, host(prefix, 1), l.Addr().(*net.TCPAddr).Port))
	if n := <-got; n != payload {
		t.Errorf("%s: got %d bytes of the container, want %d", prefix, n, payload)
	}
}

// udp has the container ask a name server.
func udp(t *testing.T, c *harness.Container, peer *namespace, prefix string) {
	t.Helper()
	stop := nameServer(t, peer, net.JoinHostPort(host(prefix, 1), "53"))
	defer stop()
	got := c.Output("nslookup -type=a name.example " + host(prefix, 1))
	contains(t, "answer over "+prefix, got, "name.example", "192.0.2.77")
}

// TestNetworkLate: interfaces that come between create and start, and while the
// container runs, and that go again.
func TestNetworkLate(t *testing.T) {
	n, peer := newNamespace(t), newNamespace(t)
	n.ip("link add down0 type veth peer name down1") // what is down is not meant
	r := newRuntime(t)
	c := r.Create(r.NewBundle(idle, networked(n)))
	n.join(peer, "eth0", 3, 1500)
	c.Start()
	if got, want := c.Output("ls /sys/class/net"), "eth0\nlo"; got != want {
		t.Errorf("interfaces: got %q, want %q", got, want)
	}
	contains(t, "ping", c.Output("ping -c 1 -w 20 10.77.3.1"), " 0% packet loss")

	for i := range 4 { // more often than there are cards
		n.join(peer, "net5", 5, 1300+i)
		n.ip("route add 10.98.0.0/16 via 10.77.5.1")
		harness.Within(t, harness.Limit, "the interface's route in the container", func() bool {
			return strings.Contains(c.Output("ip route"), "10.98.0.0/16 via 10.77.5.1 dev net5")
		})
		contains(t, "link", c.Output("ip link show net5"), fmt.Sprint("mtu ", 1300+i))
		contains(t, "ping", c.Output("ping -c 1 -w 20 10.77.5.1; ping -c 1 -w 20 fd77:5::1"), "1 packets received", "from fd77:5::1")
		n.ip("link del net5")
		harness.Within(t, harness.Limit, "the interface gone", func() bool {
			return c.Output("ls /sys/class/net") == "eth0\nlo"
		})
	}
	// A paused container follows, too.
	r.Must("pause", c.ID)
	n.ip("addr add 10.77.3.99/24 dev eth0")
	r.Must("resume", c.ID)
	harness.Within(t, harness.Limit, "the address in the container", func() bool {
		return strings.Contains(c.Output("ip addr"), "10.77.3.99/24")
	})
	contains(t, "ping", c.Output("ping -c 1 -w 20 10.77.3.1"), " 0% packet loss")
	c.End()
}

// TestNetworkQueues: a VM with several vCPUs has a pair of queues for each, on the
// host, too, of a card that it has from the start and of one that comes later.
func TestNetworkQueues(t *testing.T) {
	n, peer := newNamespace(t), newNamespace(t)
	n.join(peer, "eth0", 1, 1500)
	r := newRuntime(t)
	two := func(s *specs.Spec) { s.Annotations = map[string]string{"io.runv.cpus": "2"} }
	c := r.Create(r.NewBundle(idle, networked(n), two)).Start()
	check := func(card, tap string, i int) {
		t.Helper()
		if got, want := c.Output("ls /sys/class/net/"+card+"/queues"), "rx-0\nrx-1\ntx-0\ntx-1"; got != want {
			t.Errorf("%s: queues %q, want %q", card, got, want)
		}
		harness.Within(t, harness.Limit, "a tap with both queues in use", func() bool {
			return strings.Contains(n.run("ip", "-d", "link", "show", tap), "multi_queue numqueues 2 numdisabled 0")
		})
		for cpu := 1; cpu <= 2; cpu++ { // each sends by its own
			contains(t, "ping", c.Output(fmt.Sprintf("taskset %d ping -c 2 -w 20 10.77.%d.1", cpu, i)), " 0% packet loss")
		}
		for _, a := range []string{fmt.Sprintf("10.77.%d", i), fmt.Sprintf("fd77:%d:", i)} {
			for range 2 { // flows are divided by their ports
				fromPeer(t, c, peer, a)
				toPeer(t, c, peer, a)
			}
		}
	}
	check("eth0", "runv-tap0", 1)
	for range 2 {
		n.join(peer, "net2", 2, 1500)
		harness.Within(t, harness.Limit, "a second card", func() bool { return strings.Contains(c.Output("ip addr"), "10.77.2.2/24") })
		check("net2", "runv-tap1", 2)
		n.ip("link del net2")
		harness.Within(t, harness.Limit, "the card gone", func() bool { return c.Output("ls /sys/class/net") == "eth0\nlo" })
	}
	c.End()
}

// TestNetworkAfterKill: what a monitor that was killed has left in a namespace is
// in nobody's way, and gone after delete.
func TestNetworkAfterKill(t *testing.T) {
	n, peer := newNamespace(t), newNamespace(t)
	n.join(peer, "eth0", 4, 1500)
	r := newRuntime(t)
	b := r.NewBundle(idle, networked(n))
	c := r.Create(b).Start()
	res := r.Run("run", "--bundle", b.Dir, r.NewID())
	if res.Status != 1 || !strings.Contains(res.Stderr, "another container") {
		t.Errorf("a second container in the namespace: status %d, %q", res.Status, res.Stderr)
	}
	if err := unix.Kill(c.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	contains(t, "redirection", n.run("tc", "qdisc"), "ingress")
	again := r.Create(b).Start()
	contains(t, "ping", again.Output("ping -c 1 -w 20 10.77.4.1"), " 0% packet loss")
	c.Delete() // leaves the other one's alone
	contains(t, "ping", again.Output("ping -c 1 -w 20 10.77.4.1"), " 0% packet loss")
	if err := unix.Kill(again.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	again.Wait()
	again.Delete()
	if out := n.run("tc", "qdisc"); strings.Contains(out, "ingress") {
		t.Errorf("left behind: %s", out)
	}
}

// TestNetDevices: interfaces of the caller's namespace become the container's, under
// their new names, with their addresses; what cannot be is told, and moved nowhere.
func TestNetDevices(t *testing.T) {
	caller, peer := newNamespace(t), newNamespace(t)
	caller.join(peer, "dev7", 7, 1350)
	caller.ip("addr add 10.77.7.3/24 dev dev7 valid_lft 1000 preferred_lft 1000") // not for good
	caller.join(peer, "dev8", 8, 1500)
	r := newRuntime(t)
	caller.enter()
	devices := func(d map[string]specs.LinuxNetDevice) harness.Change {
		return func(s *specs.Spec) { s.Linux.NetDevices = d }
	}
	for _, tt := range []struct {
		name    string
		devices map[string]specs.LinuxNetDevice
		want    string
	}{
		{"absent", map[string]specs.LinuxNetDevice{"dev7": {}, "dev9": {}}, "link not found for interface dev9"},
		{"bad name", map[string]specs.LinuxNetDevice{"dev7": {Name: "a/b"}}, "invalid network device name"},
		{"loopback", map[string]specs.LinuxNetDevice{"lo": {Name: "lo7"}}, "loopback"},
	} {
		refused(t, r, tt.want, 1, "run", "--bundle", r.NewBundle(idle, devices(tt.devices)).Dir, r.NewID())
	}
	contains(t, "interfaces of the caller", caller.run("ip", "-br", "addr"), "dev7", "10.77.7.2/24", "dev8")

	c := r.Create(r.NewBundle(idle, networked(&namespace{}), devices(map[string]specs.LinuxNetDevice{"dev7": {Name: "eth0"}, "dev8": {}}))).Start()
	if out := caller.run("ip", "-br", "addr"); strings.Contains(out, "dev") {
		t.Errorf("still the caller's: %s", out)
	}
	got := c.Output("ip addr")
	contains(t, "interfaces", got, "eth0: <", "mtu 1350", "inet 10.77.7.2/24", "inet6 fd77:7::2/64", "dev8: <", "inet 10.77.8.2/24")
	if strings.Contains(got, "10.77.7.3") {
		t.Errorf("an address that is not for good was moved:\n%s", got)
	}
	contains(t, "ping", c.Output("ping -c 1 -w 20 10.77.7.1; ping -c 1 -w 20 10.77.8.1"), "from 10.77.7.1", "from 10.77.8.1")
	c.End()
}

// tap makes one in the namespace, with an address, and returns its other end, as
// slirp4netns and pasta do.
func (n *namespace) tap(name, address string) *os.File {
	n.t.Helper()
	var f *os.File
	err := n.inside(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		ifr, err := unix.NewIfreq(name)
		if err == nil {
			ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
		}
		f = os.NewFile(uintptr(fd), name)
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { f.Close() }) //nolint:errcheck // nothing is buffered
	n.ip("addr add " + address + " dev " + name)
	n.ip("link set " + name + " mtu 9000 up")
	return f
}

// TestNetworkTap: the network is a program that reads and writes a tap.
func TestNetworkTap(t *testing.T) {
	n, peer := newNamespace(t), newNamespace(t)
	near, far := n.tap("tap0", "10.77.9.2/24"), peer.tap("tap9", "10.77.9.1/24")
	for _, pair := range [][2]*os.File{{near, far}, {far, near}} {
		go func() { // ends when the taps are closed
			b := make([]byte, 16<<10)
			for {
				k, err := pair[0].Read(b)
				if err != nil {
					return
				}
				pair[1].Write(b[:k]) //nolint:errcheck // a frame that is lost
			}
		}()
	}
	r := newRuntime(t)
	c := r.Create(r.NewBundle(idle, networked(n))).Start()
	contains(t, "interfaces", c.Output("ip addr"), "tap0: <", "mtu 9000", "inet 10.77.9.2/24")
	contains(t, "ping", c.Output("ping -c 2 -s 8000 -w 20 10.77.9.1"), " 0% packet loss")
	toPeer(t, c, peer, "10.77.9")
	fromPeer(t, c, peer, "10.77.9")
	c.End()
}

// TestNetworkRefused: an interface that no card can stand for is named.
func TestNetworkRefused(t *testing.T) {
	n := newNamespace(t)
	n.ip("link add br7 type bridge")
	n.ip("link set br7 up")
	r := newRuntime(t)
	res := r.Run("run", "--bundle", r.NewBundle(idle, networked(n)).Dir, r.NewID())
	if res.Status != 1 || !strings.Contains(res.Stderr, "network interface br7") {
		t.Errorf("status %d, %q", res.Status, res.Stderr)
	}
}

// TestNoNetwork: a container without interfaces sees its loopback only.
func TestNoNetwork(t *testing.T) {
	r := newRuntime(t)
	got := r.Must("run", "--bundle", r.NewBundle(harness.Shell("ls /sys/class/net; ping -c 1 127.0.0.1 | grep loss"), networked(&namespace{})).Dir, r.NewID())
	contains(t, "loopback", got, "lo\n", " 0% packet loss")
	if strings.Count(got, "\n") != 2 {
		t.Errorf("more than lo: %q", got)
	}
}
