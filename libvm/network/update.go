package network

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Update is what the guest has to do so that its network is like the namespace.
type Update struct {
	Cards []Card
	// Sysctls are kernel parameters by their names, to be set before Messages.
	Sysctls map[string]string
	// Messages are those of rtnetlink(7), one behind the other. Interfaces are
	// those of the host.
	Messages []byte
	// Resolver: the guest's 127.0.0.11:53 is to lead to that of the namespace, now
	// and later.
	Resolver bool
}

// Card is a card of the guest that stands for an interface from now on, or not
// any more.
type Card struct {
	Address   []byte // by which the guest finds the card
	Name      string // of the interface
	Index     int    // of the interface, on the host
	Unplugged bool
}

// Empty says whether there is nothing to do.
func (u *Update) Empty() bool {
	return len(u.Cards) == 0 && len(u.Sysctls) == 0 && len(u.Messages) == 0 && !u.Resolver
}

// Update looks at the namespace, plugs cards for interfaces that are new and pulls
// those of interfaces that have gone, and returns what the guest has to do since
// the last Update. Where it fails it has done a part, and the next goes on there.
func (n *Namespace) Update() (*Update, error) {
	if n == nil {
		return &Update{}, nil
	}
	c, err := n.Scan()
	if err != nil {
		return nil, err
	}
	u := &Update{Sysctls: map[string]string{}}
	if err := n.unplugGone(&c, u); err != nil {
		return nil, err
	}
	for i := range c.Interfaces {
		if err := n.refresh(&c.Interfaces[i], u); err != nil {
			return nil, fmt.Errorf("network interface %s: %w", c.Interfaces[i].Name, err)
		}
	}
	n.difference(&c, u)
	n.now = c
	u.Resolver, n.resolverTold = n.resolver && !n.resolverTold, n.resolver
	return u, nil
}

// Carry says to the cards that stand for something that the guest uses them now.
func (n *Namespace) Carry() {
	if n == nil {
		return
	}
	for _, c := range n.cards {
		if c.iface != 0 {
			c.device.SetCarrier(true)
		}
	}
}

// unplugGone pulls the cards of interfaces that have gone.
func (n *Namespace) unplugGone(c *Config, u *Update) error {
	for _, k := range n.cards {
		if k.iface == 0 || c.byIndex(k.iface) != nil {
			continue
		}
		u.Cards = append(u.Cards, Card{Address: k.device.MAC(), Index: k.iface, Unplugged: true})
		if err := n.unplug(k); err != nil {
			return err
		}
	}
	return nil
}

// refresh has a card stand for an interface as that is now.
func (n *Namespace) refresh(i *Interface, u *Update) error {
	was := n.now.byIndex(i.Index)
	k := n.find(i.Index)
	switch {
	case k == nil:
		var err error
		if k, err = n.plug(i); err != nil {
			return err
		}
	case was != nil && was.MTU != i.MTU:
		if err := n.setUp(k.tap.index, i.MTU); err != nil {
			return err
		}
	}
	if was == nil || was.Name != i.Name {
		u.Cards = append(u.Cards, Card{Address: k.device.MAC(), Name: i.Name, Index: i.Index})
	}
	return nil
}

// How the guest's kernel is to take a message.
const (
	flagsNew    = unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	flagsAdd    = unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_EXCL
	flagsChange = unix.NLM_F_REQUEST | unix.NLM_F_ACK
)

// difference fills in the messages that lead from the last configuration to c.
func (n *Namespace) difference(c *Config, u *Update) {
	old := &n.now
	put := func(m message, flags uint16) { u.Messages = m.encode(u.Messages, flags) }
	remove := func(gone []message) {
		for _, m := range gone {
			put(message{m.kind + 1, m.body}, flagsChange) // RTM_DEL… follows RTM_NEW…
		}
	}
	sysctlChanges(u.Sysctls, old.sysctls, c.sysctls, namespaceSysctls, "")
	remove(missing(old.rules, c.rules))
	remove(slices.DeleteFunc(missing(old.routes, c.routes), func(m message) bool {
		// With an interface its routes go, too.
		return slices.ContainsFunc(hops([]byte(m.body)), func(i int) bool { return old.byIndex(i) != nil && c.byIndex(i) == nil })
	}))
	remove(missing(old.loopback, c.loopback))
	for _, m := range missing(c.loopback, old.loopback) {
		put(m, flagsNew)
	}
	changed := len(old.Interfaces) != len(c.Interfaces)
	for i := range c.Interfaces {
		now, was := &c.Interfaces[i], old.byIndex(c.Interfaces[i].Index)
		if was == nil {
			was = &Interface{}
		}
		if was.equal(now) {
			continue
		}
		changed = true
		sysctlChanges(u.Sysctls, was.sysctls, now.sysctls, interfaceSysctls, now.Name)
		remove(missing(was.neighbours, now.neighbours))
		remove(missing(was.addresses, now.addresses))
		put(linkMessage(now, false), flagsChange)
		for _, m := range now.addresses {
			put(m, flagsNew)
		}
		put(linkMessage(now, true), flagsChange)
		for _, m := range now.neighbours {
			put(m, flagsNew)
		}
	}
	// Some may have gone with an address for which another one has come.
	if changed || !slices.Equal(old.routes, c.routes) {
		for _, m := range c.routes {
			put(m, flagsNew)
		}
	}
	for _, m := range missing(c.rules, old.rules) {
		put(m, flagsAdd)
	}
}

// SysctlOrder returns the names of the parameters in the order in which they are to
// be set: those of the namespace, of which "all" is written to every interface,
// before those of an interface (and lo).
func (u *Update) SysctlOrder() []string {
	late := func(name string) int {
		if _, ok := namespaceSysctls[name]; ok && !strings.Contains(name, ".conf.lo.") {
			return 0
		}
		return 1
	}
	return slices.SortedFunc(maps.Keys(u.Sysctls), func(a, b string) int {
		return cmp.Or(cmp.Compare(late(a), late(b)), cmp.Compare(a, b))
	})
}

// missing returns those of some that are not in others.
func missing(some, others []message) (out []message) {
	for _, m := range some {
		if !slices.Contains(others, m) {
			out = append(out, m)
		}
	}
	return out
}

// sysctlChanges adds what leads from old to new; what is in neither has its usual
// value.
func sysctlChanges(out, old, now, usual map[string]string, name string) {
	for key, value := range now {
		if v, ok := old[key]; !ok || v != value {
			out[key] = value
		}
	}
	for format := range usual {
		key := sysctlKey(format, name)
		_, was := old[key]
		if _, is := now[key]; was && !is {
			out[key] = usual[format]
		}
	}
}
