package network

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"runv/agent/rtattr"
)

// The guest's interfaces get what those of the host have by the kernel's own
// messages: what a dump of the host's namespace says of an address, a route, a
// rule or a neighbour is, but for a few attributes, what makes the same one
// (rtnetlink(7); ip route save does so, too). Nothing is lost that this program
// does not know.

// message is one of rtnetlink, without its header.
type message struct {
	kind uint16 // RTM_NEWADDR, …
	body string // comparable
}

// attributes calls f for each attribute behind the first head bytes of a body.
func attributes(body []byte, head int, f func(kind uint16, data []byte)) {
	if len(body) < head {
		return
	}
	rtattr.Each(body[head:], f)
}

// attribute returns the data of one attribute, nil if it is not there.
func attribute(body []byte, head int, kind uint16) (found []byte) {
	attributes(body, head, func(k uint16, data []byte) {
		if k == kind {
			found = data
		}
	})
	return found
}

// keep returns the head of a body with those attributes that keep wants.
func keep(body []byte, head int, keep func(kind uint16) bool) []byte {
	out := append([]byte(nil), body[:head]...)
	attributes(body, head, func(kind uint16, data []byte) {
		if keep(kind) {
			out = rtattr.Append(out, kind, data)
		}
	})
	return out
}

func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// isIP says whether an address family is one of IP: dumps have others, too, as of
// multicast routing.
func isIP(family byte) bool { return family == unix.AF_INET || family == unix.AF_INET6 }

// address returns what makes the address of a dump, and which interface has it.
// Nobody else has it, as the host has found out: the guest does not ask again.
func address(b []byte) (message, int, bool) {
	const head = unix.SizeofIfAddrmsg
	if len(b) < head || !isIP(b[0]) {
		return message{}, 0, false
	}
	flags := uint32(b[2])
	if f := attribute(b, head, unix.IFA_FLAGS); len(f) == 4 {
		flags = binary.NativeEndian.Uint32(f)
	}
	forever := true
	if c := attribute(b, head, unix.IFA_CACHEINFO); len(c) >= 8 {
		forever = binary.NativeEndian.Uint32(c[4:]) == ^uint32(0) // ifa_valid
	}
	body := keep(b, head, func(kind uint16) bool {
		switch kind {
		case unix.IFA_ADDRESS, unix.IFA_LOCAL, unix.IFA_LABEL, unix.IFA_BROADCAST, unix.IFA_RT_PRIORITY:
			return true
		case unix.IFA_CACHEINFO:
			return !forever
		}
		return false
	})
	flags &= unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN | unix.IFA_F_HOMEADDRESS
	if b[0] == unix.AF_INET6 {
		flags |= unix.IFA_F_NODAD
	}
	body[2] = 0
	body = rtattr.Append(body, unix.IFA_FLAGS, u32(flags))
	return message{unix.RTM_NEWADDR, string(body)}, int(binary.NativeEndian.Uint32(b[4:])), true
}

// route returns what makes the route of a dump. Those that the kernel makes by
// itself, with an address, it makes in the guest, too.
func route(b []byte) (message, bool) {
	const head = unix.SizeofRtMsg
	if len(b) < head || !isIP(b[0]) {
		return message{}, false
	}
	protocol, kind, flags := b[5], b[7], binary.NativeEndian.Uint32(b[8:])
	table := uint32(b[4])
	if t := attribute(b, head, unix.RTA_TABLE); len(t) == 4 {
		table = binary.NativeEndian.Uint32(t)
	}
	if table == unix.RT_TABLE_LOCAL || protocol == unix.RTPROT_KERNEL || flags&unix.RTM_F_CLONED != 0 {
		return message{}, false
	}
	switch kind {
	case unix.RTN_UNICAST, unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_THROW:
	default:
		return message{}, false
	}
	body := keep(b, head, func(kind uint16) bool {
		return kind != unix.RTA_CACHEINFO && kind != rtaNHID && kind != unix.RTA_UID
	})
	binary.NativeEndian.PutUint32(body[8:], flags&(unix.RTNH_F_ONLINK|unix.RTNH_F_PERVASIVE))
	return message{unix.RTM_NEWROUTE, string(body)}, true
}

// rtaNHID is RTA_NH_ID of linux/rtnetlink.h: a nexthop object of the host, whose
// content is in the route's other attributes.
const rtaNHID = 30

// hops returns the interfaces that a route leads to; none for one that leads nowhere.
func hops(b []byte) (indexes []int) {
	const head = unix.SizeofRtMsg
	if oif := attribute(b, head, unix.RTA_OIF); len(oif) == 4 {
		indexes = append(indexes, int(binary.NativeEndian.Uint32(oif)))
	}
	for p := attribute(b, head, unix.RTA_MULTIPATH); len(p) >= unix.SizeofRtNexthop; {
		n := int(binary.NativeEndian.Uint16(p))
		if n < unix.SizeofRtNexthop || n > len(p) {
			break
		}
		indexes = append(indexes, int(binary.NativeEndian.Uint32(p[4:])))
		p = p[min(len(p), rtattr.Align(n)):]
	}
	return indexes
}

// gatewayed says whether a route needs another one first: the way to its gateway.
func gatewayed(b []byte) bool {
	const head = unix.SizeofRtMsg
	return attribute(b, head, unix.RTA_GATEWAY) != nil || attribute(b, head, unix.RTA_VIA) != nil || attribute(b, head, unix.RTA_MULTIPATH) != nil
}

// Layout of struct fib_rule_hdr, linux/fib_rules.h; it is as long as rtmsg.
const (
	ruleBytes    = 12
	fraTable     = 15
	fraPriority  = 6
	fraProtocol  = 21
	ruleTable    = 4
	ruleAction   = 7
	ruleToTable  = 1 // FR_ACT_TO_TBL
	priorityMain = 32766
	priorityDflt = 32767
)

// rule returns what makes the rule of a dump, but for those that every namespace has.
func rule(b []byte) (message, bool) {
	if len(b) < ruleBytes || !isIP(b[0]) {
		return message{}, false
	}
	priority := uint32(0)
	if p := attribute(b, ruleBytes, fraPriority); len(p) == 4 {
		priority = binary.NativeEndian.Uint32(p)
	}
	table := uint32(b[ruleTable])
	if b[ruleAction] == ruleToTable && (priority == 0 && table == unix.RT_TABLE_LOCAL ||
		priority == priorityMain && table == unix.RT_TABLE_MAIN || priority == priorityDflt && table == unix.RT_TABLE_DEFAULT) {
		return message{}, false
	}
	body := keep(b, ruleBytes, func(uint16) bool { return true })
	binary.NativeEndian.PutUint32(body[8:], binary.NativeEndian.Uint32(body[8:])&^ruleState)
	return message{unix.RTM_NEWRULE, string(body)}, true
}

// ruleState are the flags of a rule that only say how it is (FIB_RULE_UNRESOLVED,
// FIB_RULE_IIF_DETACHED, FIB_RULE_OIF_DETACHED).
const ruleState = 0x4 | 0x8 | 0x10

// neighbour returns what makes the neighbour of a dump, and its interface, if
// somebody has set it for ever.
func neighbour(b []byte) (message, int, bool) {
	const head = unix.SizeofNdMsg
	if len(b) < head || binary.NativeEndian.Uint16(b[8:])&unix.NUD_PERMANENT == 0 || !isIP(b[0]) {
		return message{}, 0, false
	}
	body := keep(b, head, func(kind uint16) bool { return kind == unix.NDA_DST || kind == unix.NDA_LLADDR })
	return message{unix.RTM_NEWNEIGH, string(body)}, int(binary.NativeEndian.Uint32(b[4:])), true
}

// linkMessage sets address and MTU of an interface, or, with up, its flags.
func linkMessage(i *Interface, up bool) message {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], uint32(i.Index))
	if up {
		flags := uint32(unix.IFF_UP)
		if i.NoARP {
			flags |= unix.IFF_NOARP
		}
		binary.NativeEndian.PutUint32(body[8:], flags)
		binary.NativeEndian.PutUint32(body[12:], unix.IFF_UP|unix.IFF_NOARP)
		return message{unix.RTM_NEWLINK, string(body)}
	}
	body = rtattr.Append(body, unix.IFLA_ADDRESS, []byte(i.MAC))
	body = rtattr.Append(body, unix.IFLA_MTU, u32(uint32(i.MTU)))
	return message{unix.RTM_NEWLINK, string(body)}
}

// encode appends m as the guest's kernel gets it.
func (m message) encode(b []byte, flags uint16) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(m.body)))
	b = binary.NativeEndian.AppendUint16(b, m.kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = append(b, make([]byte, 8)...) // sequence number and port: the agent's
	b = append(b, m.body...)
	return append(b, make([]byte, rtattr.Align(len(m.body))-len(m.body))...)
}
