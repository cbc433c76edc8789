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

// join has everything that either interface receives sent by the other.
func (n *Namespace) join(a, b int) error {
	for _, pair := range [][2]int{{a, b}, {b, a}} {
		if err := n.redirect(pair[0], pair[1]); err != nil {
			return err
		}
	}
	return nil
}

// redirect has everything that from receives sent by to.
func (n *Namespace) redirect(from, to int) error {
	q := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: from, Handle: ingress, Parent: netlink.HANDLE_INGRESS}}
	if err := n.handle.QdiscAdd(q); err != nil {
		return fmt.Errorf("add an ingress qdisc: %w", err)
	}
	redirect := netlink.NewMirredAction(to)
	f := &netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: from, Parent: ingress, Priority: 1, Protocol: unix.ETH_P_ALL},
		Actions:     []netlink.Action{redirect},
	}
	if err := n.handle.FilterAdd(f); err != nil {
		return fmt.Errorf("redirect with u32 and mirred: %w", err)
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
	if !ok || u.Sel != nil && len(u.Actions) == 0 {
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
