package monitor

import (
	"context"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"runv/agent/api"
	"runv/agent/rawsock"
	"runv/agent/wire"
)

// served is a socket of the guest, in whose place one listens on the host.
type served struct {
	node uint64
	kind int
	file *os.File
}

// Serve takes connections to a socket of the guest.
func (s *socketRelay) Serve(node uint64, kind, fd int) {
	v := &served{node: node, kind: kind, file: os.NewFile(uintptr(fd), "socket")}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || v.file == nil {
		v.file.Close() //nolint:errcheck // not used
		return
	}
	if old := s.served[node]; old != nil {
		old.file.Close() //nolint:errcheck // of another file that the node was
	}
	s.served[node] = v
	if kind == unix.SOCK_DGRAM {
		s.work.Go(func() { s.datagrams(v) })
		return
	}
	s.work.Go(func() { s.accept(v) })
}

// Close ends that. Connections go on.
func (s *socketRelay) Close(node uint64) {
	s.mu.Lock()
	v := s.served[node]
	delete(s.served, node)
	s.mu.Unlock()
	if v != nil {
		v.file.Close() //nolint:errcheck // a socket
	}
}

// accept takes connections until the socket is closed.
func (s *socketRelay) accept(v *served) {
	raw, err := v.file.SyscallConn()
	if err != nil {
		return
	}
	for {
		fd, err := rawsock.Accept(raw, 0)
		if err != nil {
			return // closed
		}
		f := os.NewFile(uintptr(fd), "connection")
		if !s.enter(func() { s.toGuest(v, f) }) {
			f.Close() //nolint:errcheck // too many
		}
	}
}

// toGuest is a connection that a process of the host has made.
func (s *socketRelay) toGuest(v *served, f *os.File) {
	var peer wire.Peer
	if cred, err := unix.GetsockoptUcred(int(f.Fd()), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
		peer = wire.Peer{UID: cred.Uid, GID: cred.Gid}
	}
	conn, err := s.dialGuest(v, peer)
	if err != nil {
		f.Close() //nolint:errcheck // the process reads the end
		return
	}
	s.carry(f, conn, v.kind)
}

// dialGuest asks the agent for a connection to a socket of the guest. If nobody has
// that open any more, it is not served any longer.
func (s *socketRelay) dialGuest(v *served, peer wire.Peer) (net.Conn, error) {
	stream := s.guest.NewStream()
	req := &api.ConnectSocketRequest{Node: v.node, Kind: uint32(v.kind), Token: stream.Token, Uid: peer.UID, Gid: peer.GID}
	err := s.call(answerTime, func(ctx context.Context, a api.AgentService) error {
		_, err := a.ConnectSocket(ctx, req)
		return err
	})
	if err != nil {
		stream.Cancel()
		s.log.Debug("connection to a socket of the guest", "node", v.node, "error", err)
		req.Probe = true
		if perr := s.call(answerTime, func(ctx context.Context, a api.AgentService) error {
			_, err := a.ConnectSocket(ctx, req)
			return err
		}); perr != nil {
			s.files.SocketEnded(v.node)
			s.Close(v.node)
		}
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	return stream.Wait(ctx)
}

// datagrams sends what comes to a SOCK_DGRAM on to the guest, by one stream, which
// is opened with the first packet.
func (s *socketRelay) datagrams(v *served) {
	raw, err := v.file.SyscallConn()
	if err != nil {
		return
	}
	for raw.Read(rawsock.Readable) == nil {
		conn, err := s.dialGuest(v, wire.Peer{})
		if err != nil {
			return
		}
		if !s.track(conn) {
			conn.Close() //nolint:errcheck // the end
			return
		}
		err = wire.SendPackets(conn, v.file, false)
		s.untrack(conn)
		if err == nil {
			return
		}
	}
}
