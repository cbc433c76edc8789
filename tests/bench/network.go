package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/thread"
)

// The ends of the containers' network.
const (
	farAddress  = "10.77.0.1"
	nearAddress = "10.77.0.2"
)

// qemuCard is a bare machine with QEMU's own network card.
const qemuCard = "qemu-card"

// goalNet bounds our time, and our CPU time, to that of QEMU's own card.
const goalNet = 1.0

// measureNetwork compares the network of our containers with that of others'.
func (b *bench) measureNetwork(ctx context.Context) error {
	return b.networkOf(ctx, 1, b.runv, b.runv)
}

// networkOf has the same program send, receive and ask over a veth pair: in
// containers of some runtimes and of runc, and in a bare machine, as that of machine
// is, with QEMU's own card. It does a part of the work (1: all, 2: half of it …).
func (b *bench) networkOf(ctx context.Context, part int, machine runtime, rs ...runtime) (err error) {
	try, err := b.bundle(ctx, "try", succeeds)
	if err != nil {
		return err
	}
	env := []string{"BENCH_NETWORK=" + farAddress, fmt.Sprintf("BENCH_PART=%d", part)}
	var all []variant
	for _, r := range append(rs, b.others(ctx, try, "runc")...) {
		p, err := newPair()
		if err != nil {
			return err
		}
		defer p.close()
		dir, err := b.networkBundle(ctx, p.near, env)
		if err != nil {
			return err
		}
		once := works(r, dir).once
		all = append(all, variant{r.name, p.measured(once)})
	}
	p, err := newPair()
	if err != nil {
		return err
	}
	defer p.close()
	once, err := b.overQEMUCard(ctx, machine, p, env)
	if err != nil {
		return err
	}
	all = append(all, variant{qemuCard, p.measured(once)})
	series, err := b.interleave(ctx, "network", max(b.n/2, 1), all...)
	if err != nil {
		return err
	}
	b.table.compareAll("net:", "ms", series, map[string]float64{qemuCard: goalNet})
	return nil
}

// networkBundle makes the bundle of a container in a namespace.
func (b *bench) networkBundle(ctx context.Context, ns *os.File, env []string) (string, error) {
	dir, err := b.bundle(ctx, "network", func(s *specs.Spec) {
		s.Process.Args = []string{"/work"}
		s.Process.Env = append(append(s.Process.Env, "BENCH_CONTAINER=1"), env...)
		s.Root.Readonly = false // iperf3 has files
		for i := range s.Linux.Namespaces {
			if s.Linux.Namespaces[i].Type == specs.NetworkNamespace {
				s.Linux.Namespaces[i].Path = nsPath(ns)
			}
		}
	})
	if err != nil {
		return "", err
	}
	program, err := os.ReadFile(b.work)
	if err != nil {
		return "", err
	}
	return dir, os.WriteFile(dir+"/rootfs/work", program, 0o755)
}

// pair is two network namespaces with a veth pair between them, and servers in the
// far one.
type pair struct {
	near, far *os.File
	servers   *servers
}

// newPair makes one.
func newPair() (*pair, error) {
	p, err := newLink("far0")
	if err != nil {
		return nil, err
	}
	if p.servers, err = serveNetwork(p.far); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// newLink makes one without servers, whose far interface has a name.
func newLink(name string) (_ *pair, err error) {
	p := &pair{}
	for _, f := range []**os.File{&p.near, &p.far} {
		err = errors.Join(err, thread.Own(func() (err error) {
			if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
				*f, err = os.Open("/proc/thread-self/ns/net")
			}
			return err
		}))
	}
	for _, c := range []struct {
		in   *os.File
		args string
	}{
		{p.near, "ip link set lo up"},
		{p.near, "ip link add eth0 type veth peer name " + name + " netns " + nsPath(p.far)},
		{p.near, "ip addr add " + nearAddress + "/24 dev eth0"},
		{p.near, "ip link set eth0 up"},
		{p.far, "ip addr add " + farAddress + "/24 dev " + name},
		{p.far, "ip link set " + name + " up"},
	} {
		if err == nil {
			err = runIn(c.in, c.args)
		}
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// close frees it; the namespaces go with their last user.
func (p *pair) close() {
	if p.servers != nil {
		p.servers.close()
	}
	for _, f := range []*os.File{p.near, p.far} {
		if f != nil {
			f.Close() //nolint:errcheck // only names a namespace
		}
	}
}

// measured adds to what once measures what CPU time each step took.
func (p *pair) measured(once func(context.Context) ([]reading, error)) func(context.Context) ([]reading, error) {
	return func(ctx context.Context) ([]reading, error) {
		readings, err := once(ctx)
		return append(readings, p.servers.take()...), err
	}
}

// nsPath is by what others reach a namespace of ours.
func nsPath(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }

// runIn runs a command in a network namespace.
func runIn(ns *os.File, args string) error {
	cmd := exec.Command("nsenter", append([]string{"--net=" + nsPath(ns)}, strings.Fields(args)...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", args, err, out)
	}
	return nil
}

// inside runs f on a thread in a network namespace.
func inside(ns *os.File, f func() error) error {
	return thread.Own(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return f()
	})
}

// networkPart is the part of the work that is done on an emulated host.
const networkPart = 10

// measureKVMNetwork compares the network of our own VMM with that of QEMU on KVM.
func (b *bench) measureKVMNetwork(ctx context.Context) error {
	own, other, err := b.backends(ctx)
	if err != nil {
		return err
	}
	return b.networkOf(ctx, networkPart, other, own, other)
}
