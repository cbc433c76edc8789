package passthrough

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"runv/agent/wire"
)

// agentOf plays the monitor and the guest's agent for a file system that is mounted
// in this process: it listens at once, and hands what it accepts to DialSocket.
type agentOf struct {
	t       *testing.T
	s       *Server
	mnt     string
	binding atomic.Int32

	mu        sync.Mutex
	listeners map[uint64]net.Listener
	served    map[uint64]*os.File
	refuse    error // set while nothing is looked up
}

func (a *agentOf) Offer(node uint64, kind int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refuse != nil {
		return a.refuse
	}
	network := map[int]string{unix.SOCK_STREAM: "unix", unix.SOCK_SEQPACKET: "unixpacket"}[kind]
	l, err := net.ListenUnix(network, &net.UnixAddr{Name: filepath.Join(a.mnt, wire.ListenName(node)), Net: network})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	a.listeners[node] = l
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fd, err := a.s.DialSocket(node, kind, 0, 0)
			if err != nil {
				a.t.Error(err)
				c.Close()
				continue
			}
			f := os.NewFile(uintptr(fd), "socket")
			io.Copy(c, f) //nolint:errcheck // the client tells
			c.Close()
			f.Close()
		}
	}()
	return nil
}

func (a *agentOf) Withdraw(node uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listeners[node].Close()
	delete(a.listeners, node)
}

func (a *agentOf) Binding(uint32) int { return int(a.binding.Load()) }

func (a *agentOf) Serve(node uint64, _, fd int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.served[node] = os.NewFile(uintptr(fd), "served")
}

func (a *agentOf) Close(node uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.served[node].Close()
	delete(a.served, node)
}

func (a *agentOf) offered() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.listeners)
}

func (a *agentOf) serving() (nodes []uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for n := range a.served {
		nodes = append(nodes, n)
	}
	return nodes
}

// socketTree mounts a tree with an agent.
func socketTree(t *testing.T) (*agentOf, string) {
	t.Helper()
	s := newServer(t, Options{})
	a := &agentOf{t: t, s: s, listeners: map[uint64]net.Listener{}, served: map[uint64]*os.File{}}
	s.SetSockets(a)
	dir := t.TempDir()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.AddTree("0", "tree", f, TreeOptions{}); err != nil {
		t.Fatal(err)
	}
	mnt := mount(t, s)
	a.mu.Lock()
	a.mnt = mnt
	a.mu.Unlock()
	t.Cleanup(func() { // or the mount is busy
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, l := range a.listeners {
			l.Close()
		}
	})
	return a, dir
}

func greeter(t *testing.T, path, text string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	t.Cleanup(func() { l.Close() })
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			io.WriteString(c, text) //nolint:errcheck // the client tells
			c.Close()
		}
	}()
	return l
}

func greeting(path string) (string, error) {
	c, err := net.Dial("unix", path)
	if err != nil {
		return "", err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	return string(b), err
}

// TestSocketOffered: a socket is offered when it is looked up and somebody listens,
// and not any longer.
func TestSocketOffered(t *testing.T) {
	a, dir := socketTree(t)
	l := greeter(t, dir+"/sock", "hello")
	at := a.mnt + "/0/tree/sock"
	for range 2 {
		if got, err := greeting(at); got != "hello" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	if n := a.offered(); n != 1 {
		t.Errorf("%d sockets are offered, want 1", n)
	}
	if err := os.Rename(dir+"/sock", dir+"/moved"); err != nil {
		t.Fatal(err)
	}
	if got, err := greeting(a.mnt + "/0/tree/moved"); got != "hello" || err != nil {
		t.Errorf("renamed: got %q, %v", got, err)
	}
	l.Close()
	if _, err := greeting(a.mnt + "/0/tree/moved"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("nobody listens: got %v", err)
	}
	if n := a.offered(); n != 0 {
		t.Errorf("%d sockets are offered, want none", n)
	}
	a.mu.Lock()
	a.refuse = errors.New("the agent does not")
	a.mu.Unlock()
	greeter(t, dir+"/refused", "")
	if _, err := greeting(a.mnt + "/0/tree/refused"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the agent refuses: got %v", err)
	}
}

// TestSocketBoundByGuest: the MKNOD of a bind is a socket of the host, another is a
// file, and with its last name it is closed.
func TestSocketBoundByGuest(t *testing.T) {
	a, dir := socketTree(t)
	a.binding.Store(unix.SOCK_STREAM)
	l, err := net.Listen("unix", a.mnt+"/0/tree/guest")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", dir+"/guest")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if len(a.serving()) != 1 {
		t.Fatalf("%d sockets are served, want 1", len(a.serving()))
	}
	for _, node := range a.serving() {
		// The agent finds the socket of the guest by its node.
		if c, err := net.Dial("unix", filepath.Join(a.mnt, wire.ConnectName(node))); err != nil {
			t.Error(err)
		} else {
			c.Close()
		}
	}
	if c, err := net.Dial("unix", a.mnt+"/0/tree/guest"); err != nil || a.offered() != 0 {
		t.Errorf("in the guest: %v, %d sockets are offered", err, a.offered())
	} else {
		c.Close()
	}
	if _, err := net.Listen("unix", a.mnt+"/0/tree/guest"); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("bound twice: got %v", err)
	}
	if err := os.Link(a.mnt+"/0/tree/guest", a.mnt+"/0/tree/second"); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"guest", "second"} {
		if err := os.Remove(a.mnt + "/0/tree/" + name); err != nil {
			t.Fatal(err)
		}
		if got, want := len(a.serving()), 1-i; got != want {
			t.Errorf("after %d names went: %d sockets are served, want %d", i+1, got, want)
		}
	}
	a.binding.Store(0)
	if err := unix.Mknod(a.mnt+"/0/tree/file", unix.S_IFSOCK|0o600, 0); err != nil {
		t.Fatal(err)
	}
	if len(a.serving()) != 0 {
		t.Error("mknod(2) made a socket that is served")
	}
}

// TestSocketBoundAtSign: a name that begins with @ is a file, and not one of the
// abstract sockets of the host's network namespace.
func TestSocketBoundAtSign(t *testing.T) {
	a, dir := socketTree(t)
	a.binding.Store(unix.SOCK_STREAM)
	for _, name := range []string{"@guest", "@" + strings.Repeat("x", maxSocketName-1)} {
		root, err := os.Open(a.mnt + "/0/tree")
		if err != nil {
			t.Fatal(err)
		}
		// By the shortest path, as sun_path has no room for a longer one.
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = inDir(int(root.Fd()), func() error {
			return unix.Bind(fd, &unix.SockaddrUnix{Name: "./" + name[:min(len(name), maxSocketName-2)]})
		})
		if err != nil {
			t.Errorf("bind %s: %v", name, err)
		}
		unix.Close(fd)
		root.Close()
	}
	if got := len(a.serving()); got != 2 {
		t.Errorf("%d sockets are served, want 2", got)
	}
	l, err := net.Dial("unix", dir+"/@guest")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// TestSocketNamesOfRoot: a guest finds no other file by those names.
func TestSocketNamesOfRoot(t *testing.T) {
	a, dir := socketTree(t)
	write(t, dir+"/file", "")
	greeter(t, dir+"/sock", "")
	var out fuse.EntryOut
	lookup := func(parent uint64, name string) uint64 {
		h := fuse.InHeader{NodeId: parent}
		if code := a.s.Lookup(nil, &h, name, &out); !code.Ok() {
			t.Fatalf("%s: %v", name, code)
		}
		return out.NodeId
	}
	tree := lookup(lookup(fuse.FUSE_ROOT_ID, "0"), "tree")
	file, sock := lookup(tree, "file"), lookup(tree, "sock")
	if got := lookup(fuse.FUSE_ROOT_ID, wire.ConnectName(sock)); got != sock {
		t.Errorf("the socket's node: got %#x, want %#x", got, sock)
	}
	for _, name := range []string{
		wire.ConnectName(file), wire.ConnectName(tree), wire.ConnectName(fuse.FUSE_ROOT_ID), wire.ConnectName(0), wire.ConnectName(1 << 40),
		wire.ConnectPrefix, wire.ConnectPrefix + "0" + wire.ConnectName(sock)[len(wire.ConnectPrefix):], wire.ListenName(sock),
	} {
		if got := lookup(fuse.FUSE_ROOT_ID, name); got != 0 {
			t.Errorf("%s: got node %#x", name, got)
		}
	}
	in := fuse.MknodIn{InHeader: fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, Mode: unix.S_IFSOCK}
	for _, name := range []string{"x", wire.ListenName(file), wire.ListenName(0)} {
		if code := a.s.Mknod(nil, &in, name, &out); code != fuse.EROFS {
			t.Errorf("mknod %s: %v", name, code)
		}
	}
	if _, err := a.s.DialSocket(file, unix.SOCK_STREAM, 0, 0); err != unix.ENOTSOCK {
		t.Errorf("dial of a file: %v", err)
	}
}
