package integration

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/tests/harness"
)

// nameServer answers every question, over UDP and TCP, with the address 192.0.2.77.
func nameServer(t *testing.T, n *namespace, address string) (stop func()) {
	t.Helper()
	var conn net.PacketConn
	var listener net.Listener
	err := n.inside(func() (err error) {
		if conn, err = net.ListenPacket("udp", address); err == nil {
			listener, err = net.Listen("tcp", address)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	answer := func(q []byte) []byte {
		if len(q) < 12 {
			return nil
		}
		end := 12 + bytes.IndexByte(q[12:], 0) + 5
		a := append([]byte(nil), q[:end]...)
		copy(a[2:], []byte{0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0})
		return append(a, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 77)
	}
	go func() {
		b := make([]byte, 2000)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			conn.WriteTo(answer(b[:n]), from) //nolint:errcheck // whoever asked tells
		}
	}()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 2000)
			if n, err := io.ReadAtLeast(c, b, 14); err == nil {
				a := answer(b[2:n])
				c.Write(append([]byte{byte(len(a) >> 8), byte(len(a))}, a...)) //nolint:errcheck // whoever asked tells
			}
			c.Close() //nolint:errcheck // as above
		}
	}()
	return func() {
		conn.Close()     //nolint:errcheck // only the test's
		listener.Close() //nolint:errcheck // as above
	}
}

// query is a question for the address of a.b.
const query = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x01b\x00\x00\x01\x00\x01"

// TestEmbeddedResolver: the name server that Docker has in the network namespace is
// reached from the container, over UDP and TCP, and reaches others itself.
func TestEmbeddedResolver(t *testing.T) {
	n, peer := newNamespace(t), newNamespace(t)
	n.join(peer, "eth0", 6, 1500)
	defer nameServer(t, n, "127.0.0.11:53")()
	defer nameServer(t, peer, "10.77.6.1:53")()
	r := newRuntime(t)
	conf := filepath.Join(r.Dir, "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver 10.77.6.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := r.Create(r.NewBundle(idle, networked(n), func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc/resolv.conf", Type: "bind", Source: conf, Options: []string{"rbind", "rprivate"}})
	}))
	// As for a container that is connected to a network with a name server later.
	if err := os.WriteFile(conf, []byte("search x\nnameserver 127.0.0.11\noptions ndots:0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.Start()
	for range 3 {
		contains(t, "answer over UDP", c.Output("nslookup -type=a name.example 127.0.0.11"), "name.example", "192.0.2.77")
	}
	contains(t, "answer to an IPv6 socket", c.Output("nslookup -type=a name.example ::ffff:127.0.0.11"), "name.example", "192.0.2.77")
	octal := ""
	for _, b := range []byte(query) {
		octal += fmt.Sprintf("\\%03o", b)
	}
	overTCP := func(address string) string {
		return fmt.Sprintf("printf '\\000\\%03o%s' | nc %s 53 | od -An -tu1 | tr -s '\\n ' ' '", len(query), octal, address)
	}
	for _, a := range []string{"127.0.0.11", "::ffff:127.0.0.11"} {
		contains(t, "answer over TCP", c.Output(overTCP(a)), "192 0 2 77")
	}
	for range 3 {
		err := n.inside(func() error {
			c, err := net.DialTimeout("udp", "10.77.6.1:53", harness.Limit)
			if err != nil {
				return err
			}
			defer c.Close() //nolint:errcheck // the answer tells
			b := make([]byte, 100)
			if _, err = c.Write([]byte(query)); err == nil {
				err = c.SetReadDeadline(time.Now().Add(harness.Limit))
			}
			if err == nil {
				_, err = c.Read(b)
			}
			return err
		})
		if err != nil {
			t.Errorf("the name server of the namespace asks another one: %v", err)
		}
	}
	// Port 53 is free for a name server of the container's own, and the other one is
	// still asked.
	both := c.Output("nc -l -p 53 -e cat & sleep 1; " + overTCP("127.0.0.11") + "; echo; echo heard | nc 127.0.0.1 53")
	contains(t, "both over TCP", both, "192 0 2 77", "heard")
	// The container's own questions still get their answers.
	contains(t, "answer of the other", c.Output("nslookup -type=a name.example 10.77.6.1"), "192.0.2.77")
	if got := c.Output("cat /proc/sys/net/ipv4/ip_local_port_range"); got != "32768\t60999" {
		t.Errorf("ports of the container: %q", got)
	}
	c.End()
}
