package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"

	"github.com/containerd/ttrpc"
	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"runv/agent/api"
	"runv/agent/cgroup"
	"runv/agent/container"
	"runv/agent/reap"
	"runv/agent/task"
)

// controlPort is where the host waits for the agent.
const controlPort = 1024

// run boots the guest and serves the host until it is gone.
func run() error {
	booted := bootNanos()
	ignoreSignals()
	if err := loadModules(); err != nil {
		return err
	}
	// The host waits for this; the mounts go on meanwhile.
	dialed := make(chan error, 1)
	var conn net.Conn
	go func() {
		var err error
		conn, err = vsock.Dial(vsock.Host, controlPort, nil)
		dialed <- err
	}()
	if err := mountAll(); err != nil {
		return err
	}
	trees := make(chan error, 1)
	go func() { trees <- mountTrees() }()
	if err := loopbackUp(); err != nil {
		return err
	}
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
	if err := <-dialed; err != nil {
		return fmt.Errorf("dial the host: %w", err)
	}
	return serve(ctx, conn, s)
}

// ignoreSignals takes what would end a Go program: a container without a pid
// namespace of its own may send it to PID 1. They are not ignored as the kernel
// means it, since the workloads would inherit that.
func ignoreSignals() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
}

// serve answers calls on one connection until it breaks.
func serve(ctx context.Context, conn net.Conn, s api.AgentService) error {
	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	api.RegisterAgentService(server, s)
	l := &oneConn{conn: conn, closed: make(chan struct{})}
	err = server.Serve(ctx, l)
	if errors.Is(err, net.ErrClosed) {
		return nil // the host is gone, and with it the reason for this guest
	}
	return err
}

// oneConn is a listener with a single connection, which it outlives by nothing:
// when the connection fails, Accept does.
type oneConn struct {
	conn   net.Conn
	taken  bool // used by Accept only, which one goroutine calls
	closed chan struct{}
	once   sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	if !l.taken {
		l.taken = true
		return &watchedConn{l.conn, l}, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

// watchedConn closes its listener with itself, or when it cannot be read.
type watchedConn struct {
	net.Conn
	l *oneConn
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.l.Close()
	}
	return n, err
}

func (c *watchedConn) Close() error {
	c.l.Close()
	return c.Conn.Close()
}
