// Package socket is the guest's end of the relay of Unix sockets, of which
// libvm/virtio/fs/passthrough says how the two kernels find each other's.
//
//	process ─connect─▶ listener ──stream──▶ host: connects to its socket
//	host's stream ◀──────────── Connect ─connect─▶ socket that a process has bound
//
// A SOCK_STREAM is copied as it is, with half-close. The packets of a SOCK_SEQPACKET
// or SOCK_DGRAM are framed (wire.SendPackets); of a SOCK_DGRAM they go in one
// direction only, as an answer would need an address of the other kernel.
package socket

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"runv/agent/rawsock"
	"runv/agent/stream"
	"runv/agent/wire"
)

// maxConns bounds the connections that are relayed at once. Those beyond wait in
// the backlog of their sockets.
const maxConns = 512

// connectTimeout is how long a process may leave its backlog full, in seconds.
const connectTimeout = 5

// Relay holds the sockets and connections of the guest.
type Relay struct {
	// Dial connects to the host's port for streams.
	Dial stream.Dialer
	// Dir is where the shared trees are mounted.
	Dir string

	buffers stream.Buffers
	room    chan struct{} // one for each connection

	mu        sync.Mutex
	listeners map[uint64]*listener
	conns     map[conn]bool
}

// conn is what a relayed connection is: *stream.Duplex, or *packets.
type conn interface {
	Done() <-chan struct{} // all that the process wrote is with the host
	Over() <-chan struct{} // both directions have ended
	Close()
}

// New makes a relay without sockets.
func New(dial stream.Dialer, dir string) *Relay {
	return &Relay{
		Dial: dial, Dir: dir, room: make(chan struct{}, maxConns),
		listeners: map[uint64]*listener{}, conns: map[conn]bool{},
	}
}

// listener is a socket of the host, as the guest's processes find it.
type listener struct {
	relay *Relay
	file  *os.File
	kind  int
	token []byte
}

// Listen makes the socket of the host at a node one that can be connected to. Each
// connection opens a stream by the token.
func (r *Relay) Listen(node uint64, kind int, token []byte) error {
	switch kind {
	case unix.SOCK_STREAM, unix.SOCK_SEQPACKET, unix.SOCK_DGRAM:
	default:
		return fmt.Errorf("socket of kind %d", kind)
	}
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(r.Dir, wire.ListenName(node))}); err != nil {
		f.Close()
		return os.NewSyscallError("bind", err)
	}
	if kind != unix.SOCK_DGRAM {
		if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
			f.Close()
			return os.NewSyscallError("listen", err)
		}
	}
	l := &listener{relay: r, file: f, kind: kind, token: token}
	r.mu.Lock()
	old := r.listeners[node]
	r.listeners[node] = l
	r.mu.Unlock()
	if old != nil {
		old.file.Close()
	}
	go l.run()
	return nil
}

// Close ends a listener. Connections go on.
func (r *Relay) Close(node uint64) {
	r.mu.Lock()
	l := r.listeners[node]
	delete(r.listeners, node)
	r.mu.Unlock()
	if l != nil {
		l.file.Close()
	}
}

// run takes connections until the listener is closed.
func (l *listener) run() {
	if l.kind == unix.SOCK_DGRAM {
		l.datagrams()
		return
	}
	raw, err := l.file.SyscallConn()
	if err != nil {
		return
	}
	for {
		l.relay.room <- struct{}{}
		fd, err := rawsock.Accept(raw, unix.SOCK_NONBLOCK)
		if err != nil {
			<-l.relay.room
			return // closed
		}
		go l.connected(fd)
	}
}

// connected relays a connection that a process has made.
func (l *listener) connected(fd int) {
	ours := os.NewFile(uintptr(fd), "connection")
	c, err := l.open(fd)
	if err != nil {
		ours.Close()
		<-l.relay.room
		return
	}
	_ = l.relay.carry(c, ours, l.kind)
}

// open asks the host for a connection to its socket.
func (l *listener) open(fd int) (stream.Conn, error) {
	var peer wire.Peer
	if fd >= 0 {
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return nil, os.NewSyscallError("getsockopt", err)
		}
		peer = wire.Peer{UID: cred.Uid, GID: cred.Gid}
	}
	c, err := stream.Open(l.relay.Dial, l.token)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(peer.Bytes()); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// carry copies between a stream and a socket, both of which it owns, and gives the
// room back when they have ended.
func (r *Relay) carry(s stream.Conn, ours *os.File, kind int) error {
	var c conn
	if kind == unix.SOCK_STREAM {
		d, err := r.buffers.NewDuplex(s, ours)
		if err != nil {
			<-r.room
			return err
		}
		c = d
	} else {
		c = newPackets(s, ours, kind)
	}
	r.mu.Lock()
	r.conns[c] = true
	r.mu.Unlock()
	go func() {
		<-c.Over()
		r.mu.Lock()
		delete(r.conns, c)
		r.mu.Unlock()
		<-r.room
	}()
	return nil
}

// Connect connects to the socket that a process of the guest has bound at a node,
// and relays it to a stream of the token, in the name of a user.
func (r *Relay) Connect(node uint64, kind int, token []byte, peer wire.Peer) error {
	select {
	case r.room <- struct{}{}:
	default:
		return fmt.Errorf("%d connections are relayed already", maxConns)
	}
	fd, err := connectAs(filepath.Join(r.Dir, wire.ConnectName(node)), kind, peer)
	if err != nil {
		<-r.room
		return err
	}
	c, err := stream.Open(r.Dial, token)
	if err != nil {
		unix.Close(fd)
		<-r.room
		return err
	}
	return r.carry(c, os.NewFile(uintptr(fd), "connection"), kind)
}

// Bound says whether anybody has bound the socket at a node. Who asks is not noticed:
// a datagram socket cannot be connected to another kind.
func (r *Relay) Bound(node uint64) bool {
	fd, err := connectAs(filepath.Join(r.Dir, wire.ConnectName(node)), unix.SOCK_DGRAM, wire.Peer{})
	if err == nil {
		unix.Close(fd)
	}
	return err == nil || errors.Is(err, unix.EPROTOTYPE)
}

// connectAs connects as a user, on a thread that ends with it.
func connectAs(path string, kind int, peer wire.Peer) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good
		done <- func() error {
			tv := unix.Timeval{Sec: connectTimeout}
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
				return os.NewSyscallError("setsockopt", err)
			}
			if peer != (wire.Peer{}) {
				if err := become(peer); err != nil {
					return err
				}
			}
			return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}()
	}()
	if err = <-done; err == nil {
		err = errors.Join(
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{}),
			unix.SetNonblock(fd, true))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// become gives the thread the effective ids of a user, and keeps its capabilities.
func become(p wire.Peer) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	keep := ^uintptr(0)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, keep, uintptr(p.GID), keep); e != 0 {
		return os.NewSyscallError("setresgid", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(p.UID), keep); e != 0 {
		return os.NewSyscallError("setresuid", e)
	}
	return os.NewSyscallError("capset", unix.Capset(&hdr, &caps[0]))
}

// Drain waits until what was written by processes that have ended is with the host.
func (r *Relay) Drain() {
	r.mu.Lock()
	all := make([]conn, 0, len(r.conns))
	for c := range r.conns {
		all = append(all, c)
	}
	r.mu.Unlock()
	for _, c := range all {
		if h, ok := c.(interface{ HungUp() bool }); !ok || h.HungUp() {
			<-c.Done()
		}
	}
}

// Binding returns the kind of the socket that a thread is binding at this moment,
// of which the host has seen that a file is made for it; 0: it does something else.
func Binding(thread int) int {
	f := blockedIn(thread)
	if len(f) < 2 || f[0] != strconv.Itoa(unix.SYS_BIND) {
		return 0
	}
	fd, err := strconv.ParseUint(f[1], 0, 32)
	if err != nil {
		return 0
	}
	leader, err := threadGroup(thread)
	if err != nil {
		return 0
	}
	pidfd, err := unix.PidfdOpen(leader, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(pidfd)
	s, err := unix.PidfdGetfd(pidfd, int(fd), 0)
	if err != nil {
		return 0
	}
	defer unix.Close(s)
	domain, err := unix.GetsockoptInt(s, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || domain != unix.AF_UNIX {
		return 0
	}
	kind, err := unix.GetsockoptInt(s, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return 0
	}
	return kind
}

// blockedTries and blockedPause bound the wait for a thread that has asked the host,
// and is about to wait for the answer.
const (
	blockedTries = 200
	blockedPause = time.Millisecond
)

// blockedIn returns the number and arguments of the system call that a thread waits
// in (proc(5), /proc/pid/syscall); nothing if it does not.
func blockedIn(thread int) []string {
	for range blockedTries {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(thread) + "/syscall")
		if err != nil {
			return nil
		}
		if f := strings.Fields(string(b)); len(f) != 1 || f[0] != "running" {
			return f
		}
		time.Sleep(blockedPause)
	}
	return nil
}

// threadGroup is the process of a thread.
func threadGroup(thread int) (int, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(thread) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Tgid:"); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, fmt.Errorf("thread %d has no process", thread)
}
