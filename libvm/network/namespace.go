// Package network gives a guest the interfaces of the network namespace that the
// calling process is in. Engines put them there, and look for them there: they
// stay, with their addresses, and a card of the guest stands behind each.
//
//	guest: eth0 ─ card ─ monitor ─ runv-tap0 ◄─ tc: what one receives, ─► eth0 ─ engine's bridge …
//	       its address, routes …                the other one sends       has them, too, and is not asked
//
// What an interface receives is redirected before the protocols of the host see
// it: ingress qdisc, u32, mirred (tc(8)). Needed are CAP_NET_ADMIN in the namespace
// and, when it is opened, /dev/net/tun.
package network

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	vnet "runv/libvm/virtio/net"
)

// sysctlDir has the kernel parameters of the namespace that its reader is in.
const sysctlDir = "/proc/sys/net"

// Namespace is the network namespace of the process that opened it. It is not for
// several goroutines at the same time. Of a guest without a network it is nil.
type Namespace struct {
	handle *netlink.Handle
	params *os.File // sysctlDir, for when the path does not lead there any more
	ports  *os.File // localPorts, as profiles of AppArmor let nobody open it for writing
	cards  []*card
	noTaps error // why there are none
	now    Config

	resolver     bool // ShareResolver was called
	resolverTold bool // and the guest knows
}

// card is one of the guest's.
type card struct {
	device *vnet.Device
	tap    *tap // nil: the host has none
	iface  int  // index of the interface that it stands for; 0: a spare
	hears  bool // we have that interface get all multicast frames
}

// Open opens the calling process's network namespace for a guest with count cards
// of so many pairs of queues each (1 to vnet.MaxPairs). Close frees it.
func Open(count, pairs int) (*Namespace, error) {
	n := &Namespace{}
	var err error
	if n.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	if n.params, err = os.OpenFile(sysctlDir, unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		n.Close()
		return nil, err
	}
	if n.ports, err = os.OpenFile(sysctlDir+"/"+localPorts, os.O_WRONLY, 0); err != nil {
		n.Close()
		return nil, err
	}
	for i := range count {
		c := &card{}
		if c.device, err = vnet.New(cardAddress(i), pairs); err != nil {
			n.Close()
			return nil, err
		}
		if n.noTaps == nil {
			c.tap, n.noTaps = openTap(pairs)
		}
		n.cards = append(n.cards, c)
	}
	return n, nil
}

// cardAddress is what card i is known by to the agent: a locally administered
// address that nobody else in the guest has. What the network sees is another,
// that of the interface.
func cardAddress(i int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 'r', 'u', 'n', 'v', byte(i)}
}

// Devices returns the cards.
func (n *Namespace) Devices() []*vnet.Device {
	if n == nil {
		return nil
	}
	all := make([]*vnet.Device, len(n.cards))
	for i, c := range n.cards {
		all[i] = c.device
	}
	return all
}

// Close takes the redirections back, and frees everything. The devices have been
// stopped.
func (n *Namespace) Close() {
	for _, c := range n.cards {
		if c.iface != 0 {
			n.release(c.iface)        //nolint:errcheck // the next who needs the interface does it again
			n.hear(c, c.iface, false) //nolint:errcheck // it does no harm
		}
		if c.device != nil {
			c.device.Close()
		}
		if c.tap != nil {
			c.tap.close()
		}
	}
	if n.params != nil {
		n.params.Close() //nolint:errcheck // a directory
	}
	if n.ports != nil {
		n.ports.Close() //nolint:errcheck // each write was checked
	}
	n.handle.Close()
}

// Release removes what a monitor that was killed has left of its redirections in
// the calling thread's network namespace. If another one uses it, nothing happens.
func Release() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	n := &Namespace{handle: h}
	links, err := h.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		if ours(l.Attrs().Name) {
			return nil
		}
	}
	var errs []error
	for _, l := range links {
		if err := n.release(l.Attrs().Index); err != nil && !errors.Is(err, errForeign) {
			errs = append(errs, fmt.Errorf("network interface %s: %w", l.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}

// owns says whether an interface is one of our taps.
func (n *Namespace) owns(index int) bool {
	for _, c := range n.cards {
		if c.tap != nil && c.tap.index == index {
			return true
		}
	}
	return false
}

// maxSysctl bounds the value of a kernel parameter, in bytes.
const maxSysctl = 64 << 10

// readSysctl reads a file below sysctlDir, without the newline.
func (n *Namespace) readSysctl(name string) (string, error) {
	fd, err := unix.Openat(int(n.params.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() //nolint:errcheck // only read from
	b, err := io.ReadAll(io.LimitReader(f, maxSysctl))
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return string(b), err
}

// find returns the card of an interface, or nil.
func (n *Namespace) find(index int) *card {
	for _, c := range n.cards {
		if c.iface == index {
			return c
		}
	}
	return nil
}

// plug has a spare card stand for an interface.
func (n *Namespace) plug(i *Interface) (*card, error) {
	if n.noTaps != nil {
		return nil, n.noTaps
	}
	c := n.find(0)
	if c == nil {
		return nil, fmt.Errorf("the VM has no more than %d network cards (the setting network_cards)", len(n.cards))
	}
	if c.tap.index == 0 {
		name, err := c.tap.make()
		if err != nil {
			return nil, err
		}
		link, err := n.handle.LinkByName(name)
		if err != nil {
			return nil, err
		}
		c.tap.index = link.Attrs().Index
	}
	if err := n.setUp(c.tap.index, i.MTU); err != nil {
		return nil, err
	}
	for _, index := range []int{i.Index, c.tap.index} {
		if err := n.release(index); err != nil {
			return nil, err
		}
	}
	if err := n.join(i.Index, c.tap.index); err != nil {
		return nil, errors.Join(err, n.release(i.Index), n.release(c.tap.index))
	}
	if err := c.device.Attach(c.tap); err != nil {
		return nil, errors.Join(err, n.release(i.Index), n.release(c.tap.index))
	}
	c.iface = i.Index
	return c, n.hear(c, c.iface, true)
}

// unplug makes a card a spare.
func (n *Namespace) unplug(c *card) error {
	c.device.SetCarrier(false)
	err := c.device.Attach(nil)
	err = errors.Join(err, n.release(c.iface), n.release(c.tap.index), n.hear(c, c.iface, false))
	c.iface = 0
	return err
}

// maxTapMTU is the largest MTU of a tap, in bytes: 64 KiB with the header.
const maxTapMTU = 65535 - 14

// setUp brings a tap up, without addresses of its own: what it says would be heard
// in the guest.
func (n *Namespace) setUp(index, mtu int) error {
	mute := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	mute.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, nl.Uint8Attr(none))
	if _, err := n.readSysctl("ipv6/conf/all/forwarding"); err == nil {
		if err := setLink(index, 0, mute); err != nil {
			return fmt.Errorf("silence a tap: %w", err)
		}
	}
	if err := setLink(index, unix.IFF_UP|unix.IFF_NOARP, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(min(mtu, maxTapMTU))))); err != nil {
		return fmt.Errorf("set a tap up: %w", err)
	}
	return nil
}

// setLink sets flags, and an attribute, of an interface.
func setLink(index int, flags uint32, attribute *nl.RtAttr) error {
	r := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index, info.Flags, info.Change = int32(index), flags, flags
	r.AddData(info)
	r.AddData(attribute)
	_, err := r.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
