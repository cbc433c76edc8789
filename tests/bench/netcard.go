package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// tapName is that of QEMU's tap in its namespace.
const tapName = "tap0"

// overQEMUCard has the work done in a bare machine, as r's are, whose card is QEMU's
// own, on a tap that is joined with the near end of p as ours are.
func (b *bench) overQEMUCard(ctx context.Context, r runtime, p *pair, env []string) (func(context.Context) ([]reading, error), error) {
	m, err := b.machine(ctx, r)
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(b.work)
	if err != nil {
		return nil, err
	}
	initrd, err := b.initrd("network.cpio", program)
	if err != nil {
		return nil, err
	}
	boot, err := m.onTap(p.near, initrd, append(env, "BENCH_ADDRESS="+nearAddress+"/24"))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) ([]reading, error) {
		out, err := boot(ctx, nil)
		if err != nil {
			return nil, err
		}
		return steps(out)
	}, nil
}

// onTap returns what boots the machine with an environment for its init, and a card of
// QEMU's that is joined with eth0 of a namespace. Lines of the console go to watch,
// too, unless that is nil.
func (m machine) onTap(ns *os.File, initrd string, env []string) (boot func(ctx context.Context, watch io.Writer) (string, error), err error) {
	mac, err := joinTap(ns)
	if err != nil {
		return nil, err
	}
	m.args = slices.Clone(m.args)
	for i := range m.args {
		if i > 0 && m.args[i-1] == "-append" { // what the kernel does not know is init's environment
			m.args[i] += " " + strings.Join(env, " ")
		}
	}
	return func(ctx context.Context, watch io.Writer) (string, error) {
		tap, err := openTap(ns)
		if err != nil {
			return "", err
		}
		defer tap.Close() //nolint:errcheck // QEMU has it
		out, err := m.bootWith(ctx, initrd, []*os.File{tap}, watch, "-netdev", "tap,id=net,vhost=off,fd=3",
			"-device", fmt.Sprintf("virtio-net-device,netdev=net,mac=%s", mac))
		return strings.ReplaceAll(out, "\r", ""), err
	}, nil
}

// joinTap makes a tap in a namespace, has it and eth0 there each send what the other
// one receives, and returns the address of eth0.
func joinTap(ns *os.File) (mac net.HardwareAddr, err error) {
	for _, args := range []string{
		"ip tuntap add dev " + tapName + " mode tap vnet_hdr",
		"ip link set " + tapName + " up",
		"tc qdisc add dev eth0 ingress",
		"tc qdisc add dev " + tapName + " ingress",
		"tc filter add dev eth0 ingress protocol all u32 match u32 0 0 action mirred egress redirect dev " + tapName,
		"tc filter add dev " + tapName + " ingress protocol all u32 match u32 0 0 action mirred egress redirect dev eth0",
	} {
		if err := runIn(ns, args); err != nil {
			return nil, err
		}
	}
	err = inside(ns, func() error {
		i, err := net.InterfaceByName("eth0")
		if err == nil {
			mac = i.HardwareAddr
		}
		return err
	})
	return mac, err
}

// openTap opens the tap that joinTap has made.
func openTap(ns *os.File) (f *os.File, err error) {
	err = inside(ns, func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), tapName)
		ifr, err := unix.NewIfreq(tapName)
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		return os.NewSyscallError("TUNSETIFF", unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr))
	})
	return f, err
}
