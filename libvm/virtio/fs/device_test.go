package fs

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/virtio/fs/passthrough"
	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
)

const patience = 20 * time.Second

// newShared returns a server of one writable tree, /t/tree, and its directory.
func newShared(t testing.TB) (*passthrough.Server, string) {
	t.Helper()
	if unix.Geteuid() != 0 {
		t.Skip("not root (try: sudo go test)")
	}
	dir := filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := passthrough.NewServer(passthrough.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.AddTree("t", "tree", f, passthrough.TreeOptions{}); err != nil {
		t.Fatal(err)
	}
	return s, dir
}

// guest is the driver's side of a device.
type guest struct {
	t      testing.TB
	device *Device
	hiprio *queuetest.Driver
	*queuetest.Driver
	unique uint64
}

// boot starts a device and negotiates.
func boot(t testing.TB) (*guest, string) {
	t.Helper()
	s, dir := newShared(t)
	return bootWith(t, s), dir
}

func bootWith(t testing.TB, s Server) *guest {
	t.Helper()
	d, err := New("runv", 1, s)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, device: d, hiprio: queuetest.New(t, 128, queue.Config{}),
		Driver: queuetest.New(t, queueSize, queue.Config{EventIdx: true, Indirect: true})}
	g.WantNext()
	if err := d.Start(0, []*queue.Queue{g.hiprio.Queue, g.Queue}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.hiprio.Queue.Close()
		g.Queue.Close()
		if err := d.Wait(); err != nil {
			t.Error(err)
		}
	})
	g.init()
	return g
}

// init negotiates all that a kernel offers.
func (g *guest) init() {
	g.t.Helper()
	arg := make([]byte, 64)
	binary.LittleEndian.PutUint32(arg, 7)
	binary.LittleEndian.PutUint32(arg[4:], 38)
	binary.LittleEndian.PutUint32(arg[8:], 128<<10)
	binary.LittleEndian.PutUint32(arg[12:], ^uint32(0))
	if e, _ := g.call(FUSE_INIT, 0, arg, 64); e != 0 {
		g.t.Fatalf("INIT: %v", e)
	}
}

// message is a request with its header.
func (g *guest) message(opcode uint32, node uint64, arg []byte) []byte {
	g.unique++
	b := make([]byte, sizeofInHeader, sizeofInHeader+len(arg))
	binary.LittleEndian.PutUint32(b, uint32(sizeofInHeader+len(arg)))
	binary.LittleEndian.PutUint32(b[4:], opcode)
	binary.LittleEndian.PutUint64(b[8:], g.unique)
	binary.LittleEndian.PutUint64(b[16:], node)
	return append(b, arg...)
}

func in(data []byte) queuetest.Buffer { return queuetest.Buffer{Data: data} }

func room(n int) queuetest.Buffer { return queuetest.Buffer{Data: make([]byte, n), Write: true} }

// call makes a request with room for reply bytes behind the header, and returns
// its status and what was written there.
func (g *guest) call(opcode uint32, node uint64, arg []byte, reply int) (unix.Errno, []byte) {
	g.t.Helper()
	m := g.message(opcode, node, arg)
	return g.raw(in(m[:sizeofInHeader]), in(m[sizeofInHeader:]), room(sizeofOutHeader), room(reply))
}

// serve has the device serve a chain of those buffers that are not empty.
func (g *guest) serve(bufs ...queuetest.Buffer) ([]queuetest.Buffer, queuetest.Used) {
	g.t.Helper()
	var some []queuetest.Buffer
	for _, b := range bufs {
		if len(b.Data) > 0 {
			some = append(some, b)
		}
	}
	g.OfferIndirect(some...)
	g.WantNext()
	if err := g.Notify(); err != nil {
		g.t.Fatal(err)
	}
	return some, g.Take(g.t, patience)
}

func (g *guest) raw(bufs ...queuetest.Buffer) (unix.Errno, []byte) {
	g.t.Helper()
	some, u := g.serve(bufs...)
	var out []byte
	for i, b := range some {
		if b.Write {
			out = append(out, u.Data[i]...)
		}
	}
	if u.Len > uint32(len(out)) {
		g.t.Fatalf("the device says it wrote %d bytes into %d", u.Len, len(out))
	}
	if u.Len == 0 {
		return unix.ENOTSUP, nil
	}
	if n := binary.LittleEndian.Uint32(out); n != u.Len {
		g.t.Errorf("reply says %d bytes, used ring says %d", n, u.Len)
	}
	if got := binary.LittleEndian.Uint64(out[8:]); got != g.unique {
		g.t.Errorf("reply to %d, want %d", got, g.unique)
	}
	return unix.Errno(-int32(binary.LittleEndian.Uint32(out[4:]))), out[sizeofOutHeader:u.Len]
}

func u32(v ...uint32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return b
}

func u64(v ...uint64) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func cstr(s string) []byte { return append([]byte(s), 0) }

// lookup returns the node of name.
func (g *guest) lookup(node uint64, name string) uint64 {
	g.t.Helper()
	e, out := g.call(FUSE_LOOKUP, node, cstr(name), 128)
	if e != 0 || len(out) != 128 {
		g.t.Fatalf("LOOKUP %q: %v, %d bytes", name, e, len(out))
	}
	return binary.LittleEndian.Uint64(out)
}

func (g *guest) tree() uint64 { return g.lookup(g.lookup(1, "t"), "tree") }

// create makes a file and returns its node and handle.
func (g *guest) create(dir uint64, name string) (node, fh uint64) {
	g.t.Helper()
	e, out := g.call(FUSE_CREATE, dir, join(u32(unix.O_RDWR|unix.O_CREAT, 0o644, 0, 0), cstr(name)), 144)
	if e != 0 || len(out) != 144 {
		g.t.Fatalf("CREATE %q: %v", name, e)
	}
	return binary.LittleEndian.Uint64(out), binary.LittleEndian.Uint64(out[128:])
}

func writeIn(fh, off uint64, size int) []byte {
	return join(u64(fh, off), u32(uint32(size), 0), u64(0), u32(0, 0))
}

func TestConfig(t *testing.T) {
	s, _ := newShared(t)
	d, err := New("runv", 1, s)
	if err != nil {
		t.Fatal(err)
	}
	want := append(append([]byte("runv"), make([]byte, 32)...), 1, 0, 0, 0)
	if got := d.Config(); !bytes.Equal(got, want) {
		t.Errorf("config %q, want %q", got, want)
	}
	for _, tag := range []string{"", "a tag of more than thirty-six bytes.."} {
		if _, err := New(tag, 1, s); err == nil {
			t.Errorf("tag %q: no error", tag)
		}
	}
}

// TestRemount is a guest that unmounts and mounts again, without a reset of the
// device, and one that is not mounted.
func TestRemount(t *testing.T) {
	g, _ := boot(t)
	tree := g.tree()
	if e, _ := g.call(FUSE_DESTROY, 0, nil, 0); e != 0 {
		t.Fatalf("DESTROY: %v", e)
	}
	if e, _ := g.call(FUSE_GETATTR, tree, make([]byte, 16), 104); e != unix.EIO {
		t.Errorf("GETATTR without a session: %v", e)
	}
	arg := make([]byte, 64)
	binary.LittleEndian.PutUint32(arg, 7)
	binary.LittleEndian.PutUint32(arg[4:], 31)
	if e, _ := g.call(FUSE_INIT, 0, arg, 64); e != 0 {
		t.Fatalf("INIT: %v", e)
	}
	g.tree()
	arg[0] = 8
	if e, _ := g.call(FUSE_INIT, 0, arg, 64); e != unix.EPROTO {
		t.Errorf("INIT of another protocol: %v", e)
	}
}

// slowServer blocks in SyncFS.
type slowServer struct {
	Server
	entered chan struct{}
	leave   chan struct{}
}

func (s *slowServer) SyncFS() error {
	s.entered <- struct{}{}
	<-s.leave
	return nil
}

// TestSlowRequest has more requests than workers block, and then others.
func TestSlowRequest(t *testing.T) {
	inner, _ := newShared(t)
	s := &slowServer{Server: inner, entered: make(chan struct{}, 2*maxWorkers), leave: make(chan struct{})}
	g := bootWith(t, s)
	slow := func() {
		g.OfferIndirect(in(g.message(FUSE_SYNCFS, 1, u64(0))), room(sizeofOutHeader))
		if err := g.Notify(); err != nil {
			t.Fatal(err)
		}
	}
	enter := func() {
		select {
		case <-s.entered:
		case <-time.After(patience):
			t.Fatal("a request waits for one that blocks")
		}
	}
	for range maxWorkers - 1 {
		slow()
		enter()
	}
	if e, _ := g.call(FUSE_GETATTR, 1, make([]byte, 16), 104); e != 0 {
		t.Errorf("GETATTR beside %d that block: %v", maxWorkers-1, e)
	}
	slow()
	enter()
	slow() // no worker is left for this one
	close(s.leave)
	for range maxWorkers + 1 {
		g.WantNext()
		g.Take(t, patience)
	}
	if e, _ := g.call(FUSE_GETATTR, 1, make([]byte, 16), 104); e != 0 {
		t.Errorf("GETATTR afterwards: %v", e)
	}
}
