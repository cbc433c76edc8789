package monitor

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"runv/agent/api"
	"runv/agent/rawsock"
	"runv/agent/wire"
	"runv/libvm/guest"
	"runv/libvm/virtio/fs/passthrough"
)

// maxSocketConns bounds the connections to Unix sockets that are relayed at once,
// in both directions together: each costs descriptors and two threads.
const maxSocketConns = 512

// offerTime is how long a lookup in the guest waits until the guest's agent listens
// for a socket of the host.
const offerTime = 5 * time.Second

// socketRelay relays Unix sockets between host and guest, see passthrough/socket.go.
type socketRelay struct {
	guest *guest.Guest
	files *passthrough.Server
	log   *slog.Logger
	room  chan struct{} // one for each connection

	mu      sync.Mutex
	closed  bool
	offered map[uint64]*guest.Listener // by node: sockets of the host
	served  map[uint64]*served         // by node: sockets of the guest
	conns   map[io.Closer]bool
	outputs map[chan struct{}]bool // directions from the guest, each closed at its end
	work    sync.WaitGroup         // connections, and those who accept them
}

var _ passthrough.Sockets = (*socketRelay)(nil)

func newSocketRelay(g *guest.Guest, files *passthrough.Server, log *slog.Logger) *socketRelay {
	return &socketRelay{
		guest: g, files: files, log: log, room: make(chan struct{}, maxSocketConns),
		offered: map[uint64]*guest.Listener{}, served: map[uint64]*served{}, conns: map[io.Closer]bool{}, outputs: map[chan struct{}]bool{},
	}
}

// call makes a call of the agent, which may not have called us yet.
func (s *socketRelay) call(limit time.Duration, f func(context.Context, api.AgentService) error) error {
	a := s.guest.Agent()
	if a == nil {
		return guest.ErrLost
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return guest.Error(f(ctx, a))
}

// Offer has the guest listen for a socket of the host.
func (s *socketRelay) Offer(node uint64, kind int) error {
	l := s.guest.Listen(func(c net.Conn) { s.fromGuest(node, kind, c) })
	err := s.call(offerTime, func(ctx context.Context, a api.AgentService) error {
		_, err := a.ListenSocket(ctx, &api.ListenSocketRequest{Node: node, Kind: uint32(kind), Token: l.Token})
		return err
	})
	if err != nil {
		l.Close()
		s.log.Debug("the guest does not listen for a socket of the host", "node", node, "error", err)
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offered[node] = l
	return nil
}

// Withdraw has the guest listen no more.
func (s *socketRelay) Withdraw(node uint64) {
	s.mu.Lock()
	l := s.offered[node]
	delete(s.offered, node)
	s.mu.Unlock()
	if l == nil {
		return
	}
	l.Close()
	err := s.call(offerTime, func(ctx context.Context, a api.AgentService) error {
		_, err := a.CloseSocket(ctx, &api.CloseSocketRequest{Node: node})
		return err
	})
	if err != nil {
		s.log.Debug("the guest still listens for a socket of the host", "node", node, "error", err)
	}
}

// Binding asks the agent what a thread of the guest is about to bind.
func (s *socketRelay) Binding(thread uint32) int {
	var r *api.BindingSocketResponse
	err := s.call(offerTime, func(ctx context.Context, a api.AgentService) (err error) {
		r, err = a.BindingSocket(ctx, &api.BindingSocketRequest{Thread: thread})
		return err
	})
	if err != nil {
		return 0
	}
	switch kind := int(r.Kind); kind {
	case unix.SOCK_STREAM, unix.SOCK_SEQPACKET, unix.SOCK_DGRAM:
		return kind
	}
	return 0
}

// enter takes room for a connection that f carries; without room, or at the end,
// it says no.
func (s *socketRelay) enter(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	select {
	case s.room <- struct{}{}:
	default:
		return false
	}
	s.work.Go(func() {
		defer func() { <-s.room }()
		f()
	})
	return true
}

// track has close end a connection.
func (s *socketRelay) track(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[c] = true
	return true
}

func (s *socketRelay) untrack(c io.Closer) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	c.Close() //nolint:errcheck // its end
}

// fromGuest is a connection that a process of the guest has made.
func (s *socketRelay) fromGuest(node uint64, kind int, conn net.Conn) {
	if !s.enter(func() { s.connect(node, kind, conn) }) {
		conn.Close() //nolint:errcheck // too many
	}
}

func (s *socketRelay) connect(node uint64, kind int, conn net.Conn) {
	conn.SetReadDeadline(time.Now().Add(offerTime)) //nolint:errcheck // a closed connection fails the read
	peer, err := wire.ReadPeer(conn)
	conn.SetReadDeadline(time.Time{}) //nolint:errcheck // as above
	var fd int
	if err == nil {
		fd, err = s.files.DialSocket(node, kind, peer.UID, peer.GID)
	}
	if err != nil {
		s.log.Debug("connection of the guest to a socket", "node", node, "error", err)
		conn.Close() //nolint:errcheck // the process in the guest reads the end
		return
	}
	s.carry(os.NewFile(uintptr(fd), "socket"), conn, kind)
}

// carry copies between a socket of the host and a stream until both have ended.
func (s *socketRelay) carry(file *os.File, conn net.Conn, kind int) {
	if kind != unix.SOCK_STREAM {
		s.carryPackets(file, conn, kind)
		return
	}
	r, err := relaySocket(file, conn)
	if err != nil {
		return
	}
	c := closerFunc{func() { r.close() }}
	if !s.track(&c) {
		r.close()
		return
	}
	ended := s.output()
	s.work.Go(func() {
		defer ended()
		r.outputs.Wait()
	})
	r.finished()
	s.untrack(&c)
}

// output notes a direction from the guest, which ends when the returned function
// is called.
func (s *socketRelay) output() (ended func()) {
	c := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outputs[c] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.outputs, c)
		close(c)
	}
}

// closerFunc is a function as an io.Closer.
type closerFunc struct{ f func() }

func (c *closerFunc) Close() error {
	c.f()
	return nil
}

// carryPackets does the same for what keeps the bounds of packets.
func (s *socketRelay) carryPackets(file *os.File, conn net.Conn, kind int) {
	unix.SetNonblock(int(file.Fd()), true) //nolint:errcheck // one of ours
	f, err := pollable(file)
	if err != nil {
		conn.Close() //nolint:errcheck // unused
		return
	}
	c := closerFunc{func() {
		f.Close()    //nolint:errcheck // sockets
		conn.Close() //nolint:errcheck // as above
	}}
	if !s.track(&c) {
		c.f()
		return
	}
	defer s.untrack(&c)
	var both sync.WaitGroup
	both.Go(func() {
		if kind == unix.SOCK_DGRAM {
			return // an answer has nowhere to go
		}
		if wire.SendPackets(conn, f, true) == nil {
			closeWrite(conn) //nolint:errcheck // the guest may have gone
			return
		}
		c.f()
	})
	ended := s.output()
	both.Go(func() {
		defer ended()
		err := wire.ReceivePackets(conn, func(b []byte) error { _, err := f.Write(b); return err })
		if err == nil && kind != unix.SOCK_DGRAM && rawsock.CloseWrite(f) == nil {
			return
		}
		c.f()
	})
	both.Wait()
}

// pollable makes a file anew whose descriptor has become non-blocking, so that Go
// does not give a thread to each read.
func pollable(f *os.File) (*os.File, error) {
	defer f.Close() //nolint:errcheck // duplicated
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	unix.SetNonblock(fd, true) //nolint:errcheck // Fd made it blocking
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// drain waits until what the workload, which has ended, wrote to sockets of the host
// has been delivered, as far as that is read.
func (s *socketRelay) drain(ctx context.Context) {
	s.mu.Lock()
	idle := len(s.conns) == 0
	s.mu.Unlock()
	if idle {
		return
	}
	s.call(drainTime, func(ctx context.Context, a api.AgentService) error { //nolint:errcheck // it has gone, or is stuck
		_, err := a.DrainSockets(ctx, &api.DrainSocketsRequest{})
		return err
	})
	// Those of now: the guest may make others all the time.
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.outputs))
	s.mu.Unlock()
	limit := time.After(drainTime)
	for _, ended := range all {
		select {
		case <-ended:
		case <-ctx.Done():
			return
		case <-limit:
			return
		}
	}
}

// close ends all connections and sockets. No request of the guest may follow.
func (s *socketRelay) close() {
	s.mu.Lock()
	s.closed = true
	all := make([]io.Closer, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	for _, v := range s.served {
		all = append(all, v.file)
	}
	s.mu.Unlock()
	for _, c := range all {
		c.Close() //nolint:errcheck // sockets
	}
	s.work.Wait()
}
