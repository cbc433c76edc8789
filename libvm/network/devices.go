package network

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// MoveDevices moves interfaces of the calling process's network namespace into that
// of another process (runtime-spec v1.3 config-linux.md "Network Devices"): each
// gets the name of its entry, if that has one, keeps the addresses of global scope
// that are there for good, and is set up. When that namespace goes, the kernel
// gives those of hardware back. Nothing is moved if one of them is not there.
func MoveDevices(pid int, devices map[string]specs.LinuxNetDevice) error {
	if len(devices) == 0 {
		return nil
	}
	path := fmt.Sprintf("/proc/%d/ns/net", pid)
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only names a namespace
	home, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := netlink.NewHandleAt(netns.NsHandle(f.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer there.Close()
	links := map[string]netlink.Link{}
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		if links[name], err = home.LinkByName(name); err != nil {
			return fmt.Errorf("link not found for interface %s on runtime namespace: %w", name, err)
		}
		if links[name].Attrs().Flags&net.FlagLoopback != 0 {
			return fmt.Errorf("interface %s is the loopback, of which each namespace has its own", name)
		}
	}
	for name, link := range links {
		newName := devices[name].Name
		if newName == "" {
			newName = name
		}
		if err := moveDevice(home, there, link, newName, int(f.Fd())); err != nil {
			return fmt.Errorf("move netDevice %s to namespace %s: %w", name, path, err)
		}
	}
	return nil
}

// moveDevice moves one interface from home to there, a namespace's descriptor.
func moveDevice(home, there *netlink.Handle, link netlink.Link, name string, ns int) error {
	addresses, err := home.AddrList(link, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list its addresses: %w", err)
	}
	// It can be renamed only while it is down, and by the same message, so that a
	// name which is taken in one of the two is in nobody's way.
	if err := home.LinkSetDown(link); err != nil {
		return fmt.Errorf("set it down: %w", err)
	}
	r := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index = int32(link.Attrs().Index)
	r.AddData(info)
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	r.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(ns))))
	if _, err := r.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		if link.Attrs().Flags&net.FlagUp != 0 {
			err = errors.Join(err, home.LinkSetUp(link)) // as it was
		}
		return err
	}
	moved, err := there.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find it as %s: %w", name, err)
	}
	for _, a := range addresses {
		if a.Flags&unix.IFA_F_PERMANENT == 0 || a.Scope != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		if err := there.AddrAdd(moved, &netlink.Addr{IPNet: a.IPNet}); err != nil {
			return fmt.Errorf("address %s: %w", a.IPNet, err)
		}
	}
	if err := there.LinkSetUp(moved); err != nil {
		return fmt.Errorf("set it up: %w", err)
	}
	return nil
}
