package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/thread"
)

// The other end of the containers' network.
const (
	farAddress  = "10.77.0.1"
	nearAddress = "10.77.0.2"
	sinkPort    = "9001" // takes all, then answers with a byte
	sourcePort  = "9002" // sends without end
	echoPort    = "9003"
)

// measureNetwork has the same program send, receive and ask over a veth pair, in our
// containers and in others: TCP, with segments as large as they become.
func (b *bench) measureNetwork(ctx context.Context) (err error) {
	near, far, err := pairOfNamespaces()
	if err != nil {
		return err
	}
	defer near.Close() //nolint:errcheck // it goes with its last user
	defer far.Close()  //nolint:errcheck // as above
	stop, err := serveNetwork(far)
	if err != nil {
		return err
	}
	defer stop()
	dir, err := b.bundle(ctx, "network", func(s *specs.Spec) {
		s.Process.Args = []string{"/work"}
		s.Process.Env = append(s.Process.Env, "BENCH_CONTAINER=1", "BENCH_NETWORK="+farAddress)
		for i := range s.Linux.Namespaces {
			if s.Linux.Namespaces[i].Type == specs.NetworkNamespace {
				s.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), near.Fd())
			}
		}
	})
	if err != nil {
		return err
	}
	program, err := os.ReadFile(b.work)
	if err != nil {
		return err
	}
	if err := os.WriteFile(dir+"/rootfs/work", program, 0o755); err != nil {
		return err
	}
	variants := []variant{works(b.runv, dir)}
	for _, r := range b.others(ctx, dir, "runc") {
		variants = append(variants, works(r, dir))
	}
	all, err := b.interleave(ctx, "network", max(b.n/2, 1), variants...)
	if err != nil {
		return err
	}
	b.table.compareAll("net:", "ms", all, nil)
	return nil
}

// pairOfNamespaces makes two network namespaces with a veth pair between them.
func pairOfNamespaces() (near, far *os.File, err error) {
	for _, f := range []**os.File{&near, &far} {
		err = errors.Join(err, thread.Own(func() (err error) {
			if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
				*f, err = os.Open("/proc/thread-self/ns/net")
			}
			return err
		}))
	}
	if err != nil {
		return nil, nil, err
	}
	path := func(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }
	for _, c := range []struct {
		in   *os.File
		args string
	}{
		{near, "link set lo up"},
		{near, "link add eth0 type veth peer name far0 netns " + path(far)},
		{near, "addr add " + nearAddress + "/24 dev eth0"},
		{near, "link set eth0 up"},
		{far, "addr add " + farAddress + "/24 dev far0"},
		{far, "link set far0 up"},
	} {
		cmd := exec.Command("nsenter", append([]string{"--net=" + path(c.in), "ip"}, strings.Fields(c.args)...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, nil, fmt.Errorf("ip %s: %w: %s", c.args, err, out)
		}
	}
	return near, far, nil
}

// serveNetwork serves the ports in a namespace until stop.
func serveNetwork(ns *os.File) (stop func(), err error) {
	var listeners []net.Listener
	stop = func() {
		for _, l := range listeners {
			l.Close() //nolint:errcheck // only listened
		}
	}
	for port, serve := range map[string]func(net.Conn){
		sinkPort: func(c net.Conn) {
			io.Copy(io.Discard, c) //nolint:errcheck // the other side tells
			c.Write([]byte{1})     //nolint:errcheck // as above
		},
		sourcePort: func(c net.Conn) {
			b := make([]byte, 256<<10)
			for err := error(nil); err == nil; {
				_, err = c.Write(b)
			}
		},
		echoPort: func(c net.Conn) { io.Copy(c, c) }, //nolint:errcheck // as above
	} {
		var l net.Listener
		err := thread.Own(func() (err error) {
			if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
				l, err = net.Listen("tcp", net.JoinHostPort(farAddress, port))
			}
			return err
		})
		if err != nil {
			stop()
			return nil, err
		}
		listeners = append(listeners, l)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					serve(c)
					c.Close() //nolint:errcheck // the other side tells
				}()
			}
		}()
	}
	return stop, nil
}
