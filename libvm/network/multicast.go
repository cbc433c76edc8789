package network

import (
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An interface that is stacked on another gets of its multicast frames those for
// groups that the namespace's own protocols are in. The guest's are in others: of
// addresses that it gave itself, and of programs.

// filtersMulticast says whether an interface is such a one, and gets not all yet.
func filtersMulticast(l netlink.Link) bool {
	return slices.Contains([]string{"macvlan", "macvtap", "ipvlan", "ipvtap"}, l.Type()) && l.Attrs().RawFlags&unix.IFF_ALLMULTI == 0
}

// hear has an interface get all multicast frames, or, if we did that, as before.
func (n *Namespace) hear(c *card, index int, all bool) error {
	link, err := n.handle.LinkByIndex(index)
	switch {
	case err != nil:
		return nothingThere(err)
	case all && filtersMulticast(link):
		c.hears = true
		return n.handle.LinkSetAllmulticastOn(link)
	case !all && c.hears:
		c.hears = false
		return nothingThere(n.handle.LinkSetAllmulticastOff(link))
	}
	return nil
}
