package network

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"path"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Interface is one of the namespace's that becomes a card of the guest.
type Interface struct {
	Index int
	Name  string
	MAC   net.HardwareAddr
	MTU   int // bytes
	NoARP bool

	addresses  []message
	neighbours []message
	sysctls    map[string]string // of this interface, by their names
}

// Config is what a network namespace is like.
type Config struct {
	Interfaces []Interface // up, but for the loopback, by their index
	loopback   []message   // addresses that only this one has
	routes     []message   // of all tables, those first that others need
	rules      []message
	sysctls    map[string]string
}

// scan tries so often to get a view of the namespace in which nothing changes.
const scanAttempts = 10

// Scan looks at the namespace. An interface that is up and that no card can stand
// for is an error.
func (n *Namespace) Scan() (Config, error) {
	var err error
	for range scanAttempts {
		var c Config
		if c, err = n.scan(); err == nil || !errors.Is(err, netlink.ErrDumpInterrupted) {
			return c, err
		}
	}
	return Config{}, fmt.Errorf("look at the network namespace: %w", err)
}

func (n *Namespace) scan() (Config, error) {
	var c Config
	lo, err := n.scanLinks(&c)
	if err != nil || len(c.Interfaces) == 0 {
		return c, err
	}
	c.sysctls = n.sysctls(namespaceSysctls, "")
	if n.resolver {
		delete(c.sysctls, "net.ipv4.ip_local_port_range") // ours
	}
	steps := []struct {
		request, reply int
		take           func(b []byte)
	}{
		{unix.RTM_GETADDR, unix.RTM_NEWADDR, func(b []byte) {
			if m, index, ok := address(b); ok {
				if i := c.byIndex(index); i != nil {
					i.addresses = append(i.addresses, m)
				} else if index == lo && !everywhere(b) {
					c.loopback = append(c.loopback, m)
				}
			}
		}},
		{unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, func(b []byte) {
			if m, index, ok := neighbour(b); ok {
				if i := c.byIndex(index); i != nil {
					i.neighbours = append(i.neighbours, m)
				}
			}
		}},
		{unix.RTM_GETROUTE, unix.RTM_NEWROUTE, func(b []byte) {
			if m, ok := route(b); ok && c.reaches(hops(b), lo) {
				c.routes = append(c.routes, m)
			}
		}},
		{unix.RTM_GETRULE, unix.RTM_NEWRULE, func(b []byte) {
			if m, ok := rule(b); ok {
				c.rules = append(c.rules, m)
			}
		}},
	}
	for _, s := range steps {
		if err := dump(s.request, s.reply, s.take); err != nil {
			return c, err
		}
	}
	slices.SortStableFunc(c.routes, func(a, b message) int {
		x, y := gatewayed([]byte(a.body)), gatewayed([]byte(b.body))
		switch {
		case x == y:
			return 0
		case y:
			return -1
		}
		return 1
	})
	return c, nil
}

// scanLinks fills in the interfaces, and returns the index of the loopback.
func (n *Namespace) scanLinks(c *Config) (lo int, err error) {
	links, err := n.handle.LinkList()
	if err != nil {
		return 0, fmt.Errorf("list the network interfaces: %w", err)
	}
	for _, l := range links {
		a := l.Attrs()
		switch {
		case a.Flags&net.FlagLoopback != 0:
			lo = a.Index
			continue
		case a.Flags&net.FlagUp == 0:
			// Nothing that is down can be meant for the container yet: engines
			// set up an interface last, and a kernel makes some in each namespace.
			continue
		case ours(a.Name):
			if !n.owns(a.Index) {
				return 0, errors.New("the network namespace is that of another container's VM: its interfaces cannot be given to two")
			}
			continue
		case a.MasterIndex != 0:
			continue // a port of something else in the namespace, which refuses itself
		}
		if err := usable(l); err != nil {
			return 0, fmt.Errorf("network interface %s: %w", a.Name, err)
		}
		c.Interfaces = append(c.Interfaces, Interface{
			Index: a.Index, Name: a.Name, MAC: a.HardwareAddr, MTU: a.MTU, NoARP: a.RawFlags&unix.IFF_NOARP != 0,
			sysctls: n.sysctls(interfaceSysctls, a.Name),
		})
	}
	slices.SortFunc(c.Interfaces, func(a, b Interface) int { return a.Index - b.Index })
	return lo, nil
}

// usable says why a card cannot stand for an interface.
func usable(l netlink.Link) error {
	a := l.Attrs()
	if a.EncapType != "ether" || len(a.HardwareAddr) != 6 {
		return fmt.Errorf("it carries no Ethernet frames (%s, %s), which is what a VM's card has", l.Type(), a.EncapType)
	}
	if slices.Contains([]string{"bridge", "bond", "team", "vrf", "openvswitch", "hsr", "batadv"}, l.Type()) {
		return fmt.Errorf("a %s hands its frames on to others of the namespace: make it in the container", l.Type())
	}
	if v, ok := l.(*netlink.IPVlan); ok && v.Mode == netlink.IPVLAN_MODE_L3S {
		return errors.New("an ipvlan in mode l3s gets its packets behind tc, which cannot redirect them to a VM: make it with mode l2 or l3")
	}
	return nil
}

func (c *Config) byIndex(index int) *Interface {
	for i := range c.Interfaces {
		if c.Interfaces[i].Index == index {
			return &c.Interfaces[i]
		}
	}
	return nil
}

// reaches says whether all of a route's interfaces are in the guest.
func (c *Config) reaches(indexes []int, lo int) bool {
	for _, i := range indexes {
		if i != lo && c.byIndex(i) == nil {
			return false
		}
	}
	return true
}

// everywhere says whether an address is one that each loopback has.
func everywhere(b []byte) bool {
	a := net.IP(attribute(b, unix.SizeofIfAddrmsg, unix.IFA_ADDRESS))
	return a.Equal(net.IPv4(127, 0, 0, 1)) || a.Equal(net.IPv6loopback)
}

// dump asks the kernel for all of something.
func dump(request, reply int, take func(b []byte)) error {
	r := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
	r.AddData(&nl.RtMsg{}) // family unspecified: all; the longest of the heads asked for
	messages, err := r.Execute(unix.NETLINK_ROUTE, uint16(reply))
	if err != nil {
		return fmt.Errorf("dump of the network namespace (%d): %w", request, err)
	}
	for _, m := range messages {
		take(m)
	}
	return nil
}

// The kernel parameters that are handed on where they are not what a kernel has by
// itself. %s is the interface.
var (
	namespaceSysctls = map[string]string{
		"net.core.somaxconn":                      "4096",
		"net.ipv4.ip_default_ttl":                 "64",
		"net.ipv4.ip_forward":                     "0",
		"net.ipv4.ip_local_port_range":            "32768\t60999",
		"net.ipv4.ip_local_reserved_ports":        "",
		"net.ipv4.ip_nonlocal_bind":               "0",
		"net.ipv4.ip_unprivileged_port_start":     "1024",
		"net.ipv4.ping_group_range":               "1\t0",
		"net.ipv4.tcp_ecn":                        "2",
		"net.ipv4.tcp_fin_timeout":                "60",
		"net.ipv4.tcp_keepalive_intvl":            "75",
		"net.ipv4.tcp_keepalive_probes":           "9",
		"net.ipv4.tcp_keepalive_time":             "7200",
		"net.ipv4.tcp_syncookies":                 "1",
		"net.ipv4.tcp_tw_reuse":                   "2",
		"net.ipv4.conf.all.forwarding":            "0",
		"net.ipv4.conf.all.rp_filter":             "0",
		"net.ipv4.conf.all.route_localnet":        "0",
		"net.ipv4.conf.all.arp_ignore":            "0",
		"net.ipv4.conf.all.arp_announce":          "0",
		"net.ipv6.bindv6only":                     "0",
		"net.ipv6.ip_nonlocal_bind":               "0",
		"net.ipv6.conf.all.forwarding":            "0",
		"net.ipv6.conf.all.disable_ipv6":          "0",
		"net.ipv6.conf.default.disable_ipv6":      "0",
		"net.ipv6.conf.lo.disable_ipv6":           "0",
		"net.ipv4.fib_multipath_hash_policy":      "0",
		"net.ipv6.conf.all.keep_addr_on_down":     "0",
		"net.ipv6.conf.default.keep_addr_on_down": "0",
	}
	interfaceSysctls = map[string]string{
		"net.ipv4.conf.%s.accept_local":   "0",
		"net.ipv4.conf.%s.arp_announce":   "0",
		"net.ipv4.conf.%s.arp_filter":     "0",
		"net.ipv4.conf.%s.arp_ignore":     "0",
		"net.ipv4.conf.%s.arp_notify":     "0",
		"net.ipv4.conf.%s.forwarding":     "0",
		"net.ipv4.conf.%s.proxy_arp":      "0",
		"net.ipv4.conf.%s.route_localnet": "0",
		"net.ipv4.conf.%s.rp_filter":      "0",
		"net.ipv6.conf.%s.accept_ra":      "1",
		"net.ipv6.conf.%s.addr_gen_mode":  "0",
		"net.ipv6.conf.%s.autoconf":       "1",
		"net.ipv6.conf.%s.disable_ipv6":   "0",
		"net.ipv6.conf.%s.forwarding":     "0",
		"net.ipv6.conf.%s.proxy_ndp":      "0",
		"net.ipv6.conf.%s.use_tempaddr":   "0",
	}
)

// sysctls returns those of a list that have another value, by their names as
// sysctl(8) has them: the dots of an interface's name are slashes.
func (n *Namespace) sysctls(list map[string]string, name string) map[string]string {
	out := map[string]string{}
	for key, usual := range list {
		file := strings.TrimPrefix(strings.ReplaceAll(key, ".", "/"), "net/")
		if name != "" {
			file = fmt.Sprintf(file, name)
		}
		key = sysctlKey(key, name)
		if value, err := n.readSysctl(file); err == nil && (value != usual || n.cascades(file)) {
			out[key] = value
		}
	}
	return out
}

// cascades says whether an interface's parameter can have got another value from
// "all", whose write the kernel carries on to every interface, or from "default".
func (n *Namespace) cascades(file string) bool {
	dir, parameter := path.Split(file)
	if parameter != "disable_ipv6" && parameter != "forwarding" {
		return false
	}
	above := path.Dir(path.Clean(dir))
	for _, from := range []string{"all", "default"} {
		source := path.Join(above, from, parameter)
		if value, err := n.readSysctl(source); err == nil && value != "0" && source != file {
			return true
		}
	}
	return false
}

// sysctlKey is the name of one of a list, for an interface if it has a place for it.
func sysctlKey(format, name string) string {
	if name == "" {
		return format
	}
	return fmt.Sprintf(format, strings.ReplaceAll(name, ".", "/"))
}

// equal says whether an interface is as it was.
func (i *Interface) equal(o *Interface) bool {
	return i.Index == o.Index && i.Name == o.Name && i.MTU == o.MTU && i.NoARP == o.NoARP && slices.Equal(i.MAC, o.MAC) &&
		slices.Equal(i.addresses, o.addresses) && slices.Equal(i.neighbours, o.neighbours) && maps.Equal(i.sysctls, o.sysctls)
}
