package network

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"runv/agent/rtattr"
)

// holder is a process in a network namespace of its own.
func holder(t *testing.T) (pidfd int, ip func(args ...string) string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs namespaces (try: run the tests as root)")
	}
	h := exec.Command("sleep", "infinity")
	h.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if err := h.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.Process.Kill() //nolint:errcheck // Wait tells
		h.Wait()         //nolint:errcheck // it was killed
	})
	pidfd, err := unix.PidfdOpen(h.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pidfd) })
	return pidfd, func(args ...string) string {
		t.Helper()
		var out []byte
		err := Inside(pidfd, func() (err error) {
			out, err = exec.Command("ip", args...).CombinedOutput()
			return err
		})
		if err != nil {
			t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
}

// message is one as the host sends it.
func message(kind uint16, body []byte) []byte {
	return request(kind, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body)
}

// TestApply: a card comes under its name, gets an address by the host's number of
// the interface, is renamed, and is a spare again.
func TestApply(t *testing.T) {
	home, homeIP := holder(t)
	inside, ip := holder(t)
	mac, err := net.ParseMAC("02:72:75:6e:76:00")
	if err != nil {
		t.Fatal(err)
	}
	homeIP("link", "add", "card0", "address", mac.String(), "type", "veth", "peer", "name", "other")
	homeIP("link", "set", "other", "up")

	const theirs = 77 // the interface's index on the host
	link := make([]byte, unix.SizeofIfInfomsg)
	link[4], link[8], link[12] = theirs, unix.IFF_UP, unix.IFF_UP
	addr := []byte{unix.AF_INET, 24, 0, 0, theirs, 0, 0, 0}
	addr = rtattr.Append(addr, unix.IFA_LOCAL, []byte{10, 1, 2, 3})
	addr = rtattr.Append(addr, unix.IFA_ADDRESS, []byte{10, 1, 2, 3})
	messages := append(message(unix.RTM_NEWADDR, addr), request(unix.RTM_NEWLINK, unix.NLM_F_ACK, link)...)
	messages = append(messages, message(unix.RTM_NEWADDR, addr)...) // once more does no harm

	var n Namespace
	set := map[string]string{}
	apply := func(c *Change) error {
		return Inside(home, func() error {
			return n.Apply(inside, c, func(name, value string) error {
				if name == "absent" {
					return os.ErrNotExist
				}
				set[name] = value
				return nil
			})
		})
	}
	err = apply(&Change{
		Cards: []Card{{Address: mac, Name: "eth7", Index: theirs}}, Messages: messages,
		Sysctls: []Sysctl{{"a", "1"}, {"absent", "2"}}, Own: map[string]string{"b": "3"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := ip("-br", "addr"); !strings.Contains(got, "eth7") || !strings.Contains(got, "10.1.2.3/24") || !strings.Contains(got, "127.0.0.1/8") {
		t.Errorf("addresses after Apply:\n%s", got)
	}
	if len(set) != 2 || set["a"] != "1" || set["b"] != "3" {
		t.Errorf("parameters: %v", set)
	}
	if err := apply(&Change{Cards: []Card{{Address: mac, Name: "eth8", Index: theirs}}}); err != nil {
		t.Fatal(err)
	}
	if got := ip("-br", "link"); !strings.Contains(got, "eth8") {
		t.Errorf("not renamed:\n%s", got)
	}
	if err := apply(&Change{Cards: []Card{{Address: mac, Index: theirs, Unplugged: true}}}); err != nil {
		t.Fatal(err)
	}
	if got := ip("-br", "link"); strings.Contains(got, "eth8") || !strings.Contains(homeIP("-br", "link"), "spare") {
		t.Errorf("not a spare again:\n%s", got)
	}
	if err := apply(&Change{Messages: message(unix.RTM_NEWADDR, addr)}); err == nil {
		t.Error("an address was set on an interface that no card stands for")
	}
	if err := apply(&Change{Cards: []Card{{Address: []byte("nobody"), Name: "x", Index: 3}}}); err == nil {
		t.Error("a card that is not there was found")
	}
	if err := apply(&Change{Own: map[string]string{"absent": "1"}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a parameter of the container that is not there: got %v", err)
	}
}

// FuzzTranslate: what is malformed is an error, and never a panic.
func FuzzTranslate(f *testing.F) {
	route := make([]byte, unix.SizeofRtMsg)
	route = rtattr.Append(route, unix.RTA_OIF, []byte{5, 0, 0, 0})
	route = rtattr.Append(route, unix.RTA_MULTIPATH, []byte{8, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0})
	f.Add(message(unix.RTM_NEWROUTE, route))
	f.Add(message(unix.RTM_NEWADDR, []byte{2, 24, 0, 0, 5, 0, 0, 0}))
	f.Fuzz(func(_ *testing.T, b []byte) {
		n := Namespace{indexes: map[uint32]uint32{loopback: loopback, 5: 9}}
		for len(b) > 0 {
			m, rest, err := cut(b)
			if err != nil {
				return
			}
			if n.translate(m) == nil {
				describe(m)
				deletes(m)
			}
			b = rest
		}
	})
}

func TestTranslateRoute(t *testing.T) {
	route := make([]byte, unix.SizeofRtMsg)
	route = rtattr.Append(route, unix.RTA_OIF, []byte{5, 0, 0, 0})
	route = rtattr.Append(route, unix.RTA_MULTIPATH, []byte{8, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0})
	m := message(unix.RTM_NEWROUTE, route)
	n := Namespace{indexes: map[uint32]uint32{loopback: loopback, 5: 9}}
	if err := n.translate(m); err != nil {
		t.Fatal(err)
	}
	var oif, first, second byte
	rtattr.Each(m[headerBytes+unix.SizeofRtMsg:], func(kind uint16, data []byte) {
		if kind == unix.RTA_OIF {
			oif = data[0]
		} else {
			first, second = data[4], data[12]
		}
	})
	if oif != 9 || first != 9 || second != 1 {
		t.Errorf("interfaces %d, %d and %d, want 9, 9 and 1", oif, first, second)
	}
}
