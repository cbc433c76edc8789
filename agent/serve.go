package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"runv/agent/cgroup"
	"runv/agent/container"
	"runv/agent/network"
	"runv/agent/reap"
	"runv/agent/rpc"
	"runv/agent/socket"
	"runv/agent/task"
	"runv/agent/vsock"
	"runv/agent/watch"
)

// Where the host waits for the agent, and for questions for its name server.
const (
	controlPort  = 1024
	resolverPort = 1026
)

// run boots the guest and serves the host until it is gone.
func run() error {
	booted := bootNanos()
	ignoreSignals()
	if err := loadModules(); err != nil {
		return err
	}
	// The host waits for this; the mounts go on meanwhile.
	dialed := make(chan error, 1)
	var conn *vsock.Conn
	go func() {
		var err error
		conn, err = vsock.Dial(controlPort)
		dialed <- err
	}()
	if err := mountAll(); err != nil {
		return err
	}
	trees := make(chan error, 1)
	go func() { trees <- mountTrees() }()
	lastCap, err := task.LastCap()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	table := reap.New()
	go table.Run(ctx)

	s := &service{booted: booted, m: &container.Manager{
		Reaper: table, Exe: exePath, RunDir: runDir, Base: baseDir, Trees: treesDir,
		Mounted:    sync.OnceValue(func() error { return <-trees }),
		CgroupRoot: cgroup.Root, LastCap: lastCap,
	}}
	s.m.Dial = s.dialStream
	s.m.DialResolver = func() (network.Conn, error) {
		c, err := vsock.Dial(resolverPort)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	s.sockets = socket.New(s.dialStream, treesDir)
	s.watcher = &watch.Watcher{Dir: treesDir}
	if err := <-dialed; err != nil {
		return fmt.Errorf("dial the host: %w", err)
	}
	// An end of the connection is the end of the host: no reason for a guest.
	return rpc.Serve(ctx, conn, s)
}

// ignoreSignals takes what would end a Go program: a container without a pid
// namespace of its own may send it to PID 1. They are not ignored as the kernel
// means it, since the workloads would inherit that.
func ignoreSignals() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
}
