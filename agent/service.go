package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"runv/agent/container"
	"runv/agent/network"
	"runv/agent/rpc"
	"runv/agent/socket"
	"runv/agent/stream"
	"runv/agent/vsock"
	"runv/agent/watch"
	"runv/agent/wire"
)

// version is what Configure tells the host.
const version = "0.1.0"

// service answers the host's calls.
type service struct {
	m          *container.Manager
	sockets    *socket.Relay
	watcher    *watch.Watcher
	booted     int64 // CLOCK_BOOTTIME, ns
	streamPort atomic.Uint32
}

var _ rpc.Agent = (*service)(nil)

func (s *service) dialStream() (stream.Conn, error) {
	port := s.streamPort.Load()
	if port == 0 {
		return nil, errors.New("the host has not configured the stream port")
	}
	c, err := vsock.Dial(port)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// failed gives errors that the host decides by a code; their text is the same.
func failed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, container.ErrNotExist), errors.Is(err, container.ErrNoProcess):
		return &rpc.Error{Code: rpc.NotFound, Err: err}
	case errors.Is(err, container.ErrExist):
		return &rpc.Error{Code: rpc.AlreadyExists, Err: err}
	case errors.Is(err, container.ErrNotRunning):
		return &rpc.Error{Code: rpc.FailedPrecondition, Err: err}
	}
	return err
}

func (s *service) Configure(_ context.Context, r *rpc.ConfigureRequest) (*rpc.ConfigureResponse, error) {
	s.streamPort.Store(r.StreamPort)
	if r.UnixNanos != 0 {
		if err := setClock(r.UnixNanos); err != nil {
			return nil, err
		}
	}
	if len(r.Entropy) > 0 {
		if err := addEntropy(r.Entropy); err != nil {
			return nil, err
		}
	}
	if r.Hostname != "" {
		if err := unix.Sethostname([]byte(r.Hostname)); err != nil {
			return nil, fmt.Errorf("set hostname %q: %w", r.Hostname, err)
		}
	}
	release, err := kernelRelease()
	if err != nil {
		return nil, err
	}
	resp := &rpc.ConfigureResponse{KernelRelease: release, AgentVersion: version, BootNanos: s.booted}
	if r.Disks {
		if resp.Disks, err = disks(); err != nil {
			return nil, fmt.Errorf("list the disks: %w", err)
		}
	}
	return resp, nil
}

func stdio(r rpc.Stdio) container.Stdio {
	s := container.Stdio{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr}
	for _, f := range r.Extra {
		s.Extra = append(s.Extra, container.File{Token: f.Token, Reads: f.Reads, Writes: f.Writes})
	}
	return s
}

func (s *service) CreateContainer(_ context.Context, r *rpc.CreateContainerRequest) (*rpc.CreateContainerResponse, error) {
	trees := make([]container.Tree, len(r.Trees))
	for i, t := range r.Trees {
		trees[i] = container.Tree{Mount: int(t.Mount), Path: t.Path, Guest: t.Guest, Node: container.Node(t.Node)}
	}
	c, err := s.m.Create(&container.CreateRequest{
		ID: r.Id, Spec: r.Spec, Trees: trees, Stdio: stdio(r.Stdio), Rows: r.Rows, Cols: r.Cols,
		DeviceFilter: r.DeviceFilter, Seccomp: r.Seccomp, SeccompFlags: r.SeccompFlags, Listener: r.Listener,
		NoNewKeyring: r.NoNewKeyring, Notify: r.Notify, Network: change(&r.Network),
	})
	if err != nil {
		return nil, failed(err)
	}
	return &rpc.CreateContainerResponse{Pid: uint32(c.Pid())}, nil
}

func (s *service) StartContainer(_ context.Context, r *rpc.StartContainerRequest) (*rpc.Empty, error) {
	c, err := s.m.Get(r.Id)
	if err == nil {
		err = c.Start()
	}
	return &rpc.Empty{}, failed(err)
}

func (s *service) Exec(_ context.Context, r *rpc.ExecRequest) (*rpc.ExecResponse, error) {
	c, err := s.m.Get(r.Id)
	if err != nil {
		return nil, failed(err)
	}
	pid, err := c.Exec(&container.ExecRequest{
		ExecID: r.ExecId, Process: r.Process, Stdio: stdio(r.Stdio), Rows: r.Rows, Cols: r.Cols,
		Seccomp: r.Seccomp, SeccompFlags: r.SeccompFlags, Listener: r.Listener, Cgroup: r.Cgroup,
	})
	if err != nil {
		return nil, failed(err)
	}
	return &rpc.ExecResponse{Pid: uint32(pid)}, nil
}

func (s *service) Signal(_ context.Context, r *rpc.SignalRequest) (*rpc.Empty, error) {
	c, err := s.m.Get(r.Id)
	if err == nil {
		err = c.Signal(r.ExecId, unix.Signal(r.Signal), r.All)
	}
	return &rpc.Empty{}, failed(err)
}

func (s *service) Freeze(ctx context.Context, r *rpc.FreezeRequest) (*rpc.Empty, error) {
	c, err := s.m.Get(r.Id)
	if err == nil && r.UnixNanos != 0 {
		err = setClock(r.UnixNanos) // it stood still, maybe
	}
	if err == nil {
		err = c.Freeze(ctx, r.Frozen)
	}
	return &rpc.Empty{}, failed(err)
}

func (s *service) AddMemory(_ context.Context, r *rpc.AddMemoryRequest) (*rpc.Empty, error) {
	return &rpc.Empty{}, failed(addMemory(memoryDir, r.Address, r.Bytes))
}

func (s *service) Update(_ context.Context, r *rpc.UpdateRequest) (*rpc.Empty, error) {
	c, err := s.m.Get(r.Id)
	if err == nil {
		err = c.Update(r.Resources, r.CheckMemory)
	}
	return &rpc.Empty{}, failed(err)
}

func (s *service) Metrics(_ context.Context, r *rpc.MetricsRequest) (*rpc.MetricsResponse, error) {
	c, err := s.m.Get(r.Id)
	if err != nil {
		return nil, failed(err)
	}
	out := &rpc.MetricsResponse{}
	for _, f := range c.Metrics() {
		out.Files = append(out.Files, rpc.MetricFile{Name: f.Name, Content: f.Content})
	}
	return out, nil
}

func (s *service) AwaitOOM(ctx context.Context, r *rpc.AwaitOOMRequest) (*rpc.AwaitOOMResponse, error) {
	c, err := s.m.Get(r.Id)
	if err != nil {
		return nil, failed(err)
	}
	killed, ended := c.AwaitOOM(ctx, r.Seen)
	return &rpc.AwaitOOMResponse{Killed: killed, Ended: ended}, nil
}

func (s *service) Resize(_ context.Context, r *rpc.ResizeRequest) (*rpc.Empty, error) {
	c, err := s.m.Get(r.Id)
	if err == nil {
		err = c.Resize(r.ExecId, r.Rows, r.Cols)
	}
	return &rpc.Empty{}, failed(err)
}

func (s *service) Wait(ctx context.Context, r *rpc.WaitRequest) (*rpc.WaitResponse, error) {
	c, err := s.m.Get(r.Id)
	if err != nil {
		return nil, failed(err)
	}
	e, err := c.Wait(ctx, r.ExecId)
	if err != nil {
		return nil, failed(err)
	}
	w := &rpc.WaitResponse{
		Status: uint32(e.Status), OomKilled: e.OOMKilled, StdoutBytes: e.Stdout, StderrBytes: e.Stderr,
	}
	for _, n := range e.Extra {
		w.Extra = append(w.Extra, rpc.Written{Bytes: n})
	}
	return w, nil
}

func (s *service) Ready(ctx context.Context, r *rpc.ReadyRequest) (*rpc.Empty, error) {
	c, err := s.m.Get(r.Id)
	if err == nil {
		err = c.Ready(ctx)
	}
	return &rpc.Empty{}, failed(err)
}

func (s *service) Processes(_ context.Context, r *rpc.ProcessesRequest) (*rpc.ProcessesResponse, error) {
	c, err := s.m.Get(r.Id)
	if err != nil {
		return nil, failed(err)
	}
	list, err := c.Processes()
	if err != nil {
		return nil, err
	}
	out := &rpc.ProcessesResponse{}
	for _, p := range list {
		out.Processes = append(out.Processes, rpc.Process{
			Pid: uint32(p.Pid), Ppid: uint32(p.PPid), ContainerPid: uint32(p.ContainerPid),
			Uid: p.UID, Comm: p.Comm, Args: p.Args, Tty: p.TTY, ElapsedMs: p.ElapsedMs, CpuMs: p.CPUMs, Stat: p.Stat,
			Nice: p.Nice, Threads: p.Threads, Rss: p.RSS, Vsize: p.VSize, Pgid: uint32(p.Pgid), Sid: uint32(p.Sid), Memory: p.Memory,
		})
	}
	return out, nil
}

// change is what a message says.
func change(n *rpc.Network) *network.Change {
	c := &network.Change{Messages: n.Messages, Resolver: n.Resolver}
	for _, k := range n.Cards {
		c.Cards = append(c.Cards, network.Card{Address: k.Address, Name: k.Name, Index: k.Index, Unplugged: k.Unplugged})
	}
	for _, v := range n.Sysctls {
		c.Sysctls = append(c.Sysctls, network.Sysctl{Name: v.Name, Value: v.Value})
	}
	return c
}

func (s *service) ChangeNetwork(_ context.Context, r *rpc.ChangeNetworkRequest) (*rpc.Empty, error) {
	c, err := s.m.Get(r.Id)
	if err == nil {
		err = c.ChangeNetwork(change(&r.Network))
	}
	return &rpc.Empty{}, failed(err)
}

func (s *service) DeleteContainer(ctx context.Context, r *rpc.DeleteContainerRequest) (*rpc.Empty, error) {
	return &rpc.Empty{}, failed(s.m.Delete(ctx, r.Id))
}

func (s *service) ListenSocket(_ context.Context, r *rpc.ListenSocketRequest) (*rpc.Empty, error) {
	return &rpc.Empty{}, s.sockets.Listen(r.Node, int(r.Kind), r.Token)
}

func (s *service) CloseSocket(_ context.Context, r *rpc.CloseSocketRequest) (*rpc.Empty, error) {
	s.sockets.Close(r.Node)
	return &rpc.Empty{}, nil
}

func (s *service) ConnectSocket(_ context.Context, r *rpc.ConnectSocketRequest) (*rpc.Empty, error) {
	if r.Probe {
		if !s.sockets.Bound(r.Node) {
			return nil, &rpc.Error{Code: rpc.NotFound, Err: unix.ECONNREFUSED}
		}
		return &rpc.Empty{}, nil
	}
	return &rpc.Empty{}, s.sockets.Connect(r.Node, int(r.Kind), r.Token, wire.Peer{UID: r.Uid, GID: r.Gid})
}

func (s *service) BindingSocket(_ context.Context, r *rpc.BindingSocketRequest) (*rpc.BindingSocketResponse, error) {
	return &rpc.BindingSocketResponse{Kind: uint32(socket.Binding(int(r.Thread)))}, nil
}

func (s *service) DrainSockets(context.Context, *rpc.DrainSocketsRequest) (*rpc.Empty, error) {
	s.sockets.Drain()
	return &rpc.Empty{}, nil
}

func (s *service) Watches(context.Context, *rpc.WatchesRequest) (*rpc.WatchesResponse, error) {
	nodes, err := s.watcher.Nodes()
	if err != nil {
		return nil, err
	}
	r := &rpc.WatchesResponse{Thread: s.watcher.Thread()}
	for _, n := range nodes {
		r.Nodes = binary.LittleEndian.AppendUint64(r.Nodes, n)
	}
	return r, nil
}

func (s *service) Repeat(_ context.Context, r *rpc.RepeatRequest) (*rpc.Empty, error) {
	return &rpc.Empty{}, s.watcher.Repeat(&watch.Change{
		Kind: int(r.Kind), Dir: r.Dir, Name: r.Name, ToDir: r.ToDir, To: r.To, Mode: r.Mode,
	})
}

func (s *service) Stats(context.Context, *rpc.StatsRequest) (*rpc.StatsResponse, error) {
	return stats()
}
