// Package network gives a container its network: cards of the guest that stand for
// interfaces of the host, with the names, addresses and routes that the host says.
//
// Cards that nobody needs stay in the guest's own network namespace, where no
// container sees them. What a container's kernel is to do comes from the host as
// messages of rtnetlink(7); here only the numbers of the interfaces are put in.
package network

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Change is what is to become different.
type Change struct {
	Cards    []Card
	Sysctls  []Sysctl
	Messages []byte
	Resolver bool              // listen where Docker's name server would
	Own      map[string]string // parameters that the container asks for itself
}

// Card is a card that is to stand for an interface, or is a spare again.
type Card struct {
	Address   []byte // Ethernet address with which the card was made
	Name      string // of the interface
	Index     uint32 // of the interface, on the host
	Unplugged bool
}

// Sysctl is a kernel parameter of the network.
type Sysctl struct{ Name, Value string }

// Namespace is the network of a container. The zero value is one without cards.
type Namespace struct {
	// Dial connects to the name server of the host's namespace (resolver.go).
	Dial func() (Conn, error)
	// Cgroup is the path of a cgroup v2 that the container's are below.
	Cgroup string

	indexes  map[uint32]uint32 // of interfaces: on the host, and here
	resolver *resolver         // nil: none yet
}

// Inside runs f on a thread in the network namespace of a process. Neither f nor
// what it calls may leave the thread.
func Inside(pidfd int, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		if err := unix.Setns(pidfd, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("join the container's network: %w", os.NewSyscallError("setns", err))
			return
		}
		done <- f()
	}()
	return <-done
}

// Apply changes the network of the container that a process is in. Parameters are
// set by set. The first time it sets lo up.
func (n *Namespace) Apply(pidfd int, c *Change, set func(name, value string) error) error {
	home := &place{ns: -1}
	if len(c.Cards) > 0 {
		var err error
		if home, err = here(); err != nil {
			return err
		}
		defer home.close()
	}
	return Inside(pidfd, func() error {
		if n.indexes == nil {
			if err := loopbackUp(); err != nil {
				return err
			}
			n.indexes = map[uint32]uint32{loopback: loopback}
		}
		if len(c.Cards)+len(c.Messages) > 0 {
			if err := n.change(c, home, set); err != nil {
				return err
			}
		}
		if c.Resolver && n.resolver == nil {
			r, err := listen(n.Cgroup)
			if err != nil {
				return err
			}
			n.resolver = r
			r.serve(n.Dial)
		}
		for k, v := range c.Own {
			if err := set(k, v); err != nil {
				return err
			}
		}
		return nil
	})
}

// change does what the host wants.
func (n *Namespace) change(c *Change, home *place, set func(name, value string) error) error {
	p, err := here()
	if err != nil {
		return err
	}
	defer p.close()
	for _, k := range c.Cards {
		if err := n.move(k, home, p); err != nil {
			return fmt.Errorf("network interface %s: %w", k.Name, err)
		}
	}
	for _, s := range c.Sysctls {
		// Nobody has asked for it in the config: a value that this kernel does not
		// have, or does not take, it does without.
		_ = set(s.Name, s.Value)
	}
	return n.send(p.socket, c.Messages)
}

// place is a network namespace.
type place struct {
	*socket
	ns int // descriptor
}

// here is that of the calling thread.
func here() (*place, error) {
	const path = "/proc/thread-self/ns/net"
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	s, err := open()
	if err != nil {
		unix.Close(ns)
		return nil, err
	}
	return &place{s, ns}, nil
}

func (p *place) close() {
	p.socket.close()
	unix.Close(p.ns)
}

// loopback is the index of lo, in each namespace.
const loopback = 1

// loopbackUp sets lo up in the network namespace of the calling thread.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

// move brings a card from home here, under its new name, or back if it is a spare
// again. What is here already gets the name only.
func (n *Namespace) move(c Card, home, here *place) error {
	index, err := here.find(c.Address)
	if err != nil {
		return err
	}
	switch {
	case c.Unplugged:
		delete(n.indexes, c.Index)
		if index == 0 {
			return nil // the workload has made away with it
		}
		return here.link(index, "spare%d", home.ns)
	case index != 0:
		err = here.link(index, c.Name, -1)
	default:
		if index, err = home.find(c.Address); err != nil {
			return err
		}
		if index == 0 {
			return fmt.Errorf("the guest has no card %x", c.Address)
		}
		if err = home.link(index, c.Name, here.ns); err == nil {
			index, err = here.find(c.Address)
		}
	}
	n.indexes[c.Index] = index
	return err
}

// send has the kernel do what messages say. That something is there already, or
// not any more, is what was wanted.
func (n *Namespace) send(s *socket, messages []byte) error {
	for len(messages) > 0 {
		m, rest, err := cut(messages)
		if err != nil {
			return err
		}
		messages = rest
		if err := n.translate(m); err != nil {
			return err
		}
		err = s.talk(m, nil)
		switch {
		case err == nil:
		case deletes(m) && (errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EADDRNOTAVAIL)):
		case !deletes(m) && errors.Is(err, unix.EEXIST):
		default:
			return fmt.Errorf("%s: %w", describe(m), err)
		}
	}
	return nil
}
