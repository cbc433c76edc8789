package network

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"runv/agent/rtattr"
)

// indexOffset is where struct ifinfomsg, ifaddrmsg and ndmsg have the index of
// their interface, in bytes.
const indexOffset = 4

func kindOf(m []byte) uint16 { return binary.NativeEndian.Uint16(m[4:]) }

// deletes says whether a message removes something.
func deletes(m []byte) bool {
	switch kindOf(m) {
	case unix.RTM_DELADDR, unix.RTM_DELROUTE, unix.RTM_DELNEIGH, unix.RTM_DELRULE:
		return true
	}
	return false
}

// translate puts the guest's interfaces into a message of the host.
func (n *Namespace) translate(m []byte) error {
	body := m[headerBytes:]
	switch kindOf(m) {
	case unix.RTM_NEWLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if len(body) < indexOffset+4 {
			return errMessage
		}
		return n.index(body[indexOffset:])
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return n.route(body)
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		return nil // by name
	}
	return fmt.Errorf("netlink message of type %d", kindOf(m))
}

// index replaces the index that b begins with.
func (n *Namespace) index(b []byte) error {
	at, ok := n.indexes[binary.NativeEndian.Uint32(b)]
	if !ok {
		return fmt.Errorf("no card for interface %d of the host", binary.NativeEndian.Uint32(b))
	}
	binary.NativeEndian.PutUint32(b, at)
	return nil
}

// route replaces the interfaces of a route's hops.
func (n *Namespace) route(body []byte) (err error) {
	if len(body) < unix.SizeofRtMsg {
		return errMessage
	}
	rtattr.Each(body[unix.SizeofRtMsg:], func(kind uint16, data []byte) {
		switch {
		case err != nil:
		case kind == unix.RTA_OIF && len(data) == 4, kind == unix.RTA_IIF && len(data) == 4:
			err = n.index(data)
		case kind == unix.RTA_MULTIPATH:
			err = n.hops(data)
		}
	})
	return err
}

// hops replaces the interfaces in an array of struct rtnexthop: len u16, flags u8,
// hops u8, ifindex u32, and attributes.
func (n *Namespace) hops(b []byte) error {
	for len(b) >= unix.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtNexthop || size > len(b) {
			return errMessage
		}
		if err := n.index(b[indexOffset:]); err != nil {
			return err
		}
		b = b[min(len(b), rtattr.Align(size)):]
	}
	return nil
}

// describe says what a message is about.
func describe(m []byte) string {
	switch kindOf(m) {
	case unix.RTM_NEWLINK:
		return "set up a network interface"
	case unix.RTM_NEWADDR:
		return "add an address"
	case unix.RTM_NEWROUTE:
		return "add a route"
	case unix.RTM_NEWNEIGH:
		return "add a neighbour"
	case unix.RTM_NEWRULE:
		return "add a routing rule"
	}
	return "change the network (" + strconv.Itoa(int(kindOf(m))) + ")"
}
