package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"runv/agent/cgroup"
	"runv/agent/listener"
	"runv/agent/network"
	"runv/agent/reap"
	"runv/agent/setup"
	"runv/agent/stream"
)

// Container is one container. Its first process exists from Create on.
type Container struct {
	id        string
	noKeyring bool // its processes keep the session keyring of the agent
	m         *Manager
	spec      *spec
	ns        uintptr // clone flags of its own namespaces
	group     *cgroup.Group
	listener  []byte // token of the stream of the first process's seccomp listener
	pidfd     int    // of the first process, to join its namespaces; -1: none
	devices   string
	notify    *notifySocket // nil: none
	created   atomic.Bool
	watch     sync.WaitGroup // of the processes' ends
	startedAt atomic.Int64   // when the workload was exec'd, in ns since the epoch; 0: not yet

	init *process
	peer *setup.Peer

	plugging sync.Mutex
	network  network.Namespace

	mu       sync.Mutex
	started  bool
	execs    map[string]*process
	finished []string // ended execs, oldest first
}

// process is a process that the host asked for.
type process struct {
	io   *streams
	proc *reap.Process // nil until it was forked
	done chan struct{} // closed when exit is valid
	exit Exit
}

// Exit is how a process ended.
type Exit struct {
	Status    int  // exit status, or 128 + signal
	OOMKilled bool // a process of the container was, for want of memory
	// Stdout counts what was written to stdout or the terminal until the
	// process ended, Stderr the same of stderr. Bytes.
	Stdout, Stderr uint64
	Extra          []uint64 // the same of each of Stdio.Extra
}

// Pid returns the first process's id in the guest's root pid namespace.
func (c *Container) Pid() int { return c.init.proc.Pid }

// Start lets the first process exec the workload. An error is why it could not.
func (c *Container) Start() error {
	c.mu.Lock()
	if c.started {
		c.mu.Unlock()
		return errors.New("cannot start a container that has been started")
	}
	c.started = true
	c.mu.Unlock()
	defer c.peer.Close()
	if len(c.listener) > 0 && c.spec.Process.NoNewPrivileges {
		// The filter is installed right before the exec. A process that fails
		// before tells why by itself.
		go func() { _ = c.takeListener() }()
	}
	err := c.peer.Start()
	c.startedAt.Store(time.Now().UnixNano())
	return err
}

// lookup returns a process by its exec id; "" is the first one.
func (c *Container) lookup(execID string) (*process, error) {
	if execID == "" {
		return c.init, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.execs[execID]; p != nil {
		return p, nil
	}
	return nil, ErrNoProcess
}

// Freeze stops all processes of the container, or lets them go on.
func (c *Container) Freeze(ctx context.Context, frozen bool) error {
	return c.group.Freeze(ctx, frozen)
}

// Resize sets the size of a process's terminal, or that which it will have.
func (c *Container) Resize(execID string, rows, cols uint32) error {
	r, w, err := windowSize(rows, cols, 0, 0)
	if err != nil {
		return err
	}
	p, err := c.lookup(execID)
	if err != nil {
		return err
	}
	return p.io.resize(r, w)
}

// Wait returns when a process has ended. For the first process its output is
// with the host, and its files are, too. For another one the output may be kept
// open by processes that it left behind: the counts say how much is its own.
func (c *Container) Wait(ctx context.Context, execID string) (Exit, error) {
	p, err := c.lookup(execID)
	if err != nil {
		return Exit{}, err
	}
	select {
	case <-p.done:
		return p.exit, nil
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
}

// watchInit ends the container with its first process, as runc does: with a pid
// namespace of its own the kernel kills the rest anyway.
//
// What the processes wrote is with the host's file server then, without a
// syncfs(2), which would have the host write all of it to its disk (80 ms here):
// the guest writes through, and what it has only in its page cache, pages of
// shared mappings, it writes when a mapping or a file is closed, the last time at
// exit (fuse_vma_close and fuse_flush in Linux's fs/fuse/file.c).
func (c *Container) watchInit() {
	p := c.init
	<-p.proc.Done()
	_ = c.group.Kill()
	_ = c.group.WaitEmpty(context.Background())
	p.io.ended(&p.exit)
	p.io.drain()
	p.exit.Status, p.exit.OOMKilled = p.proc.Status(), c.group.OOMKilled() > 0
	close(p.done)
}

// maxFinished bounds the ended execs that a container remembers: a health check
// runs one every few seconds for as long as the container lives.
const maxFinished = 256

// watchExec reports the end of a further process.
func (c *Container) watchExec(id string, p *process) {
	<-p.proc.Done()
	p.io.ended(&p.exit)
	p.exit.Status, p.exit.OOMKilled = p.proc.Status(), c.group.OOMKilled() > 0
	close(p.done)
	// The streams close themselves when the last process closes them; the
	// container's end closes them otherwise.
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.execs == nil {
		return
	}
	c.finished = append(c.finished, id)
	if len(c.finished) > maxFinished {
		delete(c.execs, c.finished[0])
		c.finished = c.finished[1:]
	}
}

// end kills what runs, waits for it, and frees what the container has.
func (c *Container) end(ctx context.Context) error {
	c.peer.Close()
	_ = c.init.proc.Signal(unix.SIGKILL)
	if err := c.group.Kill(); err != nil {
		return fmt.Errorf("kill cgroup %s: %w", c.group.Path, err)
	}
	select {
	case <-c.init.proc.Done():
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of the container: %w", ctx.Err())
	}
	if err := c.group.WaitEmpty(ctx); err != nil {
		return err
	}
	// Before the watchers are waited for: they drain to a host that may have
	// stopped reading.
	c.init.io.close()
	c.mu.Lock()
	execs := c.execs
	c.execs = nil
	c.mu.Unlock()
	for _, p := range execs {
		p.io.close()
	}
	c.watch.Wait()
	return c.free()
}

// free gives back what Create took, as far as it came.
func (c *Container) free() error {
	var errs []error
	if c.pidfd >= 0 {
		unix.Close(c.pidfd)
		c.pidfd = -1
	}
	if c.group != nil {
		errs = append(errs, c.group.Remove())
	}
	if c.notify != nil {
		errs = append(errs, c.notify.close())
	}
	if c.devices != "" {
		errs = append(errs, os.RemoveAll(c.devices))
	}
	return errors.Join(errs...)
}

// takeListener passes the seccomp listener of the first process, which waits for
// that, on to the host.
func (c *Container) takeListener() error {
	if err := c.passListener(c.Pid(), c.init.proc.Done(), c.listener); err != nil {
		_ = c.init.proc.Signal(unix.SIGKILL) // nobody would answer its calls
		return err
	}
	return c.peer.Release()
}

func (c *Container) passListener(pid int, done <-chan struct{}, token []byte) error {
	fd, err := listener.Take(pid, done)
	if err != nil {
		return err
	}
	conn, err := stream.Open(c.m.Dial, token)
	if err != nil {
		unix.Close(fd)
		return err
	}
	listener.Serve(fd, conn)
	return nil
}
