package network

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ingress is the handle of the qdisc that sees what an interface receives, before
// the host's protocols do.
var ingress = netlink.MakeHandle(0xffff, 0)

// join has everything that an interface or a tap receives sent by the other. What
// the name server of the namespace is answered stays there, if it is used.
func (n *Namespace) join(iface, tap int) error {
	if err := n.redirect(iface, tap, n.resolver); err != nil {
		return err
	}
	return n.redirect(tap, iface, false)
}

// Priorities of filters: the lowest number comes first.
const (
	priorityAnswers = 1 + iota // one for each protocol
	priorityAnswersTCP
	priorityARP
	priorityRest
)

// redirect has everything that from receives sent by to, or, if it keeps answers,
// all the rest.
func (n *Namespace) redirect(from, to int, keepAnswers bool) error {
	q := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: from, Handle: ingress, Parent: netlink.HANDLE_INGRESS}}
	if err := n.handle.QdiscAdd(q); err != nil {
		return fmt.Errorf("add an ingress qdisc: %w", err)
	}
	attrs := func(priority, protocol uint16) netlink.FilterAttrs {
		return netlink.FilterAttrs{LinkIndex: from, Parent: ingress, Priority: priority, Protocol: protocol}
	}
	var filters []netlink.Filter
	if keepAnswers {
		// Both ask for neighbours, and both are asked; they have the same address.
		mirror := netlink.NewMirredAction(to)
		mirror.MirredAction, mirror.Action = netlink.TCA_EGRESS_MIRROR, netlink.TC_ACT_PIPE
		filters = append(filters,
			&netlink.U32{FilterAttrs: attrs(priorityAnswers, unix.ETH_P_IP), ClassId: ownClass, Sel: answers(unix.IPPROTO_UDP)},
			&netlink.U32{FilterAttrs: attrs(priorityAnswersTCP, unix.ETH_P_IP), ClassId: ownClass, Sel: answers(unix.IPPROTO_TCP)},
			&netlink.U32{FilterAttrs: attrs(priorityARP, unix.ETH_P_ARP), Actions: []netlink.Action{mirror}})
	}
	filters = append(filters, &netlink.U32{FilterAttrs: attrs(priorityRest, unix.ETH_P_ALL), Actions: []netlink.Action{netlink.NewMirredAction(to)}})
	for _, f := range filters {
		if err := n.handle.FilterAdd(f); err != nil {
			return fmt.Errorf("redirect with u32 and mirred: %w", err)
		}
	}
	return nil
}

// ownClass marks those of our filters that let pass: they have no action.
var ownClass = netlink.MakeHandle(1, 0x7276)

// The ports from which the namespace's own name server asks others; the guest's
// kernel uses none of them by itself.
const (
	firstPort = 0xfc00 // 64512
	lastPort  = 0xffff
	namePort  = 53
)

// localPorts is the file of the ports that the namespace's programs get.
const localPorts = "ipv4/ip_local_port_range"

// answers matches what name servers answer to those ports over IPv4: header
// without options, no fragment, protocol, ports.
func answers(protocol uint32) *netlink.TcU32Sel {
	keys := []netlink.TcU32Key{
		{Mask: 0x0f000000, Val: 0x05000000, Off: 0},
		{Mask: 0x00001fff, Val: 0, Off: 4},
		{Mask: 0x00ff0000, Val: protocol << 16, Off: 8},
		{Mask: 0xffff0000 | firstPort, Val: namePort<<16 | firstPort, Off: 20},
	}
	return &netlink.TcU32Sel{Flags: netlink.TC_U32_TERMINAL, Nkeys: uint8(len(keys)), Keys: keys}
}

// ShareResolver has the name server that an engine runs in the namespace get its
// answers, though all else is redirected to the guest.
func (n *Namespace) ShareResolver() error {
	if n.resolver {
		return nil
	}
	if _, err := n.ports.WriteString(fmt.Sprintf("%d\t%d", firstPort, lastPort)); err != nil {
		return fmt.Errorf("ports for the name server: %w", err)
	}
	n.resolver = true
	for _, c := range n.cards {
		if c.iface == 0 {
			continue
		}
		if err := errors.Join(n.release(c.iface), n.release(c.tap.index)); err != nil {
			return err
		}
		if err := n.join(c.iface, c.tap.index); err != nil {
			return err
		}
	}
	return nil
}

// errForeign says that an interface's traffic is controlled by somebody else.
var errForeign = errors.New("it has an ingress qdisc that is not runv's")

// release removes the redirection of what an interface receives, if it is one of
// ours, be it left over from a monitor that was killed. An interface that has gone
// is fine, too.
func (n *Namespace) release(index int) error {
	link, err := n.handle.LinkByIndex(index)
	if err != nil {
		return nothingThere(err)
	}
	qdiscs, err := n.handle.QdiscList(link)
	if err != nil {
		return nothingThere(err)
	}
	for _, q := range qdiscs {
		if q.Attrs().Parent != netlink.HANDLE_INGRESS {
			continue
		}
		if q.Type() != "ingress" {
			return errForeign // clsact
		}
		filters, err := n.handle.FilterList(link, ingress)
		if err != nil {
			return err
		}
		for _, f := range filters {
			if !isRedirect(f) {
				return errForeign
			}
		}
		if err := n.handle.QdiscDel(q); err != nil {
			return nothingThere(err)
		}
	}
	return nil
}

// isRedirect says whether a filter is as redirect makes them.
func isRedirect(f netlink.Filter) bool {
	u, ok := f.(*netlink.U32)
	if !ok || u.Sel != nil && len(u.Actions) == 0 && u.ClassId != ownClass {
		return false
	}
	for _, a := range u.Actions {
		if a.Type() != "mirred" {
			return false
		}
	}
	return true
}

// nothingThere makes it no error that what is to be removed has gone.
func nothingThere(err error) error {
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}
