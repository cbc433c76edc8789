package passthrough

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A Unix socket is found by its inode, and each kernel has a table of its own:
// connect(2) in the guest finds the file of a socket of the host, and nobody
// behind it. So the guest's agent binds a socket to that very inode: it calls
// bind(2) on a name in the root of the file system, and the MKNOD that the kernel
// makes of it is answered with the node of the host's socket.
//
//	guest: connect("/mnt/sock")      LOOKUP ──▶ is a socket, and somebody listens:
//	                                            Sockets.Offer ──▶ the agent
//	agent: bind("/.runv-listen-<n>") MKNOD ───▶ node n
//	                                 LOOKUP ◀── node n: the guest's kernel finds the agent
//
// The other way round, the MKNOD of a guest's bind(2) makes a socket that listens
// on the host, and for each connection to it the agent connects to
// /.runv-connect-<n>, which is the node of the guest's socket.

// Sockets carries connections between host and guest. A kind is SOCK_STREAM,
// SOCK_DGRAM or SOCK_SEQPACKET.
type Sockets interface {
	// Offer has the guest listen for a socket of the host. It returns when it does.
	Offer(node uint64, kind int) error
	// Withdraw ends that: nobody listens on the host any more.
	Withdraw(node uint64)
	// Binding returns the kind of the socket that a thread of the guest binds
	// at this moment; 0: none, it is in another system call.
	Binding(thread uint32) int
	// Serve takes a socket that is bound on the host in the place of the guest's,
	// and listens if it can. The descriptor is its own.
	Serve(node uint64, kind, fd int)
	// Close is told that a socket that is served has lost its last name.
	Close(node uint64)
}

// maxSockets bounds the sockets of the host that are offered to the guest, and
// those of the guest that are served on the host: each costs a descriptor.
const maxSockets = 512

// maxOffers bounds the requests that wait for the guest's agent at the same time,
// far below the workers that a queue has.
const maxOffers = 16

// sockets is the part of a Server that knows which sockets are relayed.
type sockets struct {
	relay Sockets
	offer chan struct{} // one for each request that waits

	mu      sync.Mutex
	offered map[uint64]*offer   // by node: the host's
	served  map[*inode]struct{} // the guest's
}

// offer is a socket of the host. done is closed when the guest listens, or err says
// why not.
type offer struct {
	n    *inode
	kind int
	done chan struct{}
	err  error
}

// SetSockets sets who relays connections; without, sockets are files only. It is
// called before the guest runs.
func (s *Server) SetSockets(r Sockets) {
	s.socks.relay = r
	s.socks.offer = make(chan struct{}, maxOffers)
	s.socks.offered = map[uint64]*offer{}
	s.socks.served = map[*inode]struct{}{}
}

// socketSeen is called when the guest has looked a socket up, and returns when it
// can be connected to, or cannot be.
func (s *Server) socketSeen(n *inode) {
	k := &s.socks
	if k.relay == nil {
		return
	}
	k.mu.Lock()
	_, own := k.served[n]
	k.mu.Unlock()
	if own {
		return
	}
	kind, err := s.probe(n)
	k.mu.Lock()
	o := k.offered[n.id]
	if err != nil || o != nil && o.kind != kind {
		if o != nil {
			delete(k.offered, n.id)
		}
		k.mu.Unlock()
		if o != nil {
			<-o.done
			k.relay.Withdraw(n.id)
		}
		return
	}
	if o != nil {
		k.mu.Unlock()
		<-o.done
		return
	}
	k.mu.Unlock()
	if !s.roomForSocket() {
		return
	}
	select {
	case k.offer <- struct{}{}:
		defer func() { <-k.offer }()
	default:
		return // the guest asks again at the next connect
	}
	k.mu.Lock()
	if o = k.offered[n.id]; o != nil {
		k.mu.Unlock()
		<-o.done
		return
	}
	o = &offer{n: n, kind: kind, done: make(chan struct{})}
	k.offered[n.id] = o
	k.mu.Unlock()
	o.err = k.relay.Offer(n.id, kind)
	if o.err != nil {
		k.mu.Lock()
		delete(k.offered, n.id)
		k.mu.Unlock()
	}
	close(o.done)
}

// roomForSocket says whether a further socket may be relayed. Those that are not
// used any more make room.
func (s *Server) roomForSocket() bool {
	k := &s.socks
	k.mu.Lock()
	if len(k.offered) < maxSockets {
		k.mu.Unlock()
		return true
	}
	var all []*offer
	for _, o := range k.offered {
		all = append(all, o)
	}
	k.mu.Unlock()
	for _, o := range all {
		if !o.n.gone.Load() {
			if _, err := s.probe(o.n); err == nil {
				continue
			}
		}
		k.mu.Lock()
		delete(k.offered, o.n.id)
		k.mu.Unlock()
		<-o.done
		k.relay.Withdraw(o.n.id)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.offered) < maxSockets
}

// bindSocket makes the socket file name in dir for a bind(2) of the guest, with a
// socket of the host behind it. ok is false if it has to be a file only: it is no
// bind, or nothing can be bound there.
func (s *Server) bindSocket(in *fuse.MknodIn, dir *inode, p *pathFD, name string, mode uint32, out *fuse.EntryOut) (code fuse.Status, ok bool) {
	k := &s.socks
	if k.relay == nil || len(name) > maxSocketName {
		return fuse.OK, false
	}
	k.mu.Lock()
	full := len(k.served) >= maxSockets
	k.mu.Unlock()
	if full && !s.dropServed() {
		return fuse.OK, false
	}
	kind := k.relay.Binding(in.Pid)
	if kind == 0 {
		return fuse.OK, false
	}
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fuse.OK, false
	}
	// The mode of the file is that of the socket; the umask of the process is 0.
	if err = unix.Fchmod(fd, mode&0o7777); err == nil {
		err = inDir(p.fd, func() error {
			return s.as(dir, in.Uid, in.Gid, func() error { return unix.Bind(fd, &unix.SockaddrUnix{Name: socketPath(name)}) })
		})
	}
	if err == nil && kind != unix.SOCK_DGRAM {
		err = unix.Listen(fd, backlog)
	}
	if err == nil {
		err = s.enter(dir, p, name, out)
	}
	if err == unix.EADDRINUSE {
		unix.Close(fd)
		return fuse.Status(unix.EEXIST), true
	}
	n, c := s.node(out.NodeId)
	if err != nil || !c.Ok() {
		unix.Close(fd)
		return fuse.OK, false
	}
	k.mu.Lock()
	k.served[n] = struct{}{}
	k.mu.Unlock()
	k.relay.Serve(n.id, kind, fd)
	return fuse.OK, true
}

// socketPath is the address of a name in the working directory. Package unix takes
// one that begins with @ for a socket without a file, of the network namespace.
func socketPath(name string) string {
	if strings.HasPrefix(name, "@") {
		return "./" + name
	}
	return name
}

// dropServed forgets sockets that the guest's kernel has forgotten, and says whether
// there were any.
func (s *Server) dropServed() bool {
	k := &s.socks
	k.mu.Lock()
	var gone []*inode
	for n := range k.served {
		if n.gone.Load() {
			gone = append(gone, n)
			delete(k.served, n)
		}
	}
	k.mu.Unlock()
	for _, n := range gone {
		k.relay.Close(n.id)
	}
	return len(gone) > 0
}

// maxSocketName is what sun_path holds with its NUL (unix(7)).
const maxSocketName = 107

// backlog is that of a socket that listens for the guest's; SOMAXCONN of Linux
// before 5.4, as connections are taken at once.
const backlog = 128

// socketUnlinked is called when a socket has lost a name.
func (s *Server) socketUnlinked(n *inode, p *pathFD) {
	k := &s.socks
	if k.relay == nil {
		return
	}
	var st unix.Statx_t
	if err := statxFD(p.fd, &st); err == nil && st.Nlink > 0 {
		return
	}
	k.mu.Lock()
	_, own := k.served[n]
	delete(k.served, n)
	o := k.offered[n.id]
	delete(k.offered, n.id)
	k.mu.Unlock()
	if own {
		k.relay.Close(n.id)
	}
	if o != nil {
		<-o.done
		k.relay.Withdraw(n.id)
	}
}

// SocketEnded is told that the guest's socket at a node has been closed: from now
// on its file is one of a socket that nobody listens at.
func (s *Server) SocketEnded(node uint64) {
	n, code := s.node(node)
	if !code.Ok() {
		return
	}
	s.socks.mu.Lock()
	delete(s.socks.served, n)
	s.socks.mu.Unlock()
}

// socketNode is the node that a name in the root stands for, counted.
func (s *Server) socketNode(name, prefix string) (*inode, error) {
	hex, ok := strings.CutPrefix(name, prefix)
	if !ok || s.socks.relay == nil {
		return nil, unix.ENOENT
	}
	id, err := strconv.ParseUint(hex, 16, 64)
	if err != nil || fmt.Sprintf("%x", id) != hex {
		return nil, unix.ENOENT
	}
	n, code := s.node(id)
	if !code.Ok() || n.typ != unix.S_IFSOCK {
		return nil, unix.ENOENT
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table.get(id) != n {
		return nil, unix.ENOENT
	}
	n.nlookup++
	return n, nil
}

// socketEntry answers for such a name.
func (s *Server) socketEntry(name, prefix string, out *fuse.EntryOut) fuse.Status {
	n, err := s.socketNode(name, prefix)
	if err != nil {
		return statusOf(err)
	}
	code := s.entryOf(n, out)
	out.SetEntryTimeout(0)
	if !code.Ok() {
		s.Forget(n.id, 1)
	}
	return code
}
