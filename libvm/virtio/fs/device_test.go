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
	if err := s.AddTree("t", "tree", f, false); err != nil {
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
func room(n int) queuetest.Buffer     { return queuetest.Buffer{Data: make([]byte, n), Write: true} }

// call makes a request with room for reply bytes behind the header, and returns
// its status and what was written there.
func (g *guest) call(opcode uint32, node uint64, arg []byte, reply int) (unix.Errno, []byte) {
	g.t.Helper()
	m := g.message(opcode, node, arg)
	return g.raw(in(m[:sizeofInHeader]), in(m[sizeofInHeader:]), room(sizeofOutHeader), room(reply))
}

func (g *guest) raw(bufs ...queuetest.Buffer) (unix.Errno, []byte) {
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
	u := g.Take(g.t, patience)
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

func TestReadWrite(t *testing.T) {
	g, dir := boot(t)
	_, fh := g.create(g.tree(), "file")
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	m := g.message(FUSE_WRITE, 0, writeIn(fh, 0, len(data)))
	bufs := []queuetest.Buffer{in(m[:sizeofInHeader]), in(m[sizeofInHeader:])}
	for i := 0; i < len(data); i += 4096 {
		bufs = append(bufs, in(data[i:i+4096]))
	}
	e, out := g.raw(append(bufs, room(sizeofOutHeader), room(8))...)
	if e != 0 || binary.LittleEndian.Uint32(out) != uint32(len(data)) {
		t.Fatalf("WRITE: %v, %x", e, out)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("host reads %d bytes, %v", len(got), err)
	}
	m = g.message(FUSE_READ, 0, join(u64(fh, 16), u32(1<<20, 0), u64(0), u32(0, 0)))
	bufs = []queuetest.Buffer{in(m), room(sizeofOutHeader)}
	for i := 0; i < len(data); i += 4096 {
		bufs = append(bufs, room(4096))
	}
	if e, out = g.raw(bufs...); e != 0 || !bytes.Equal(out, data[16:]) {
		t.Fatalf("READ: %v, %d bytes", e, len(out))
	}
}

func TestRequestShapes(t *testing.T) {
	g, _ := boot(t)
	tree := g.tree()
	node, fh := g.create(tree, "file")
	huge := u32(^uint32(0), 0)
	tests := []struct {
		name string
		bufs func() []queuetest.Buffer
		want unix.Errno
	}{
		{"unknown opcode", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(77, 1, nil)), room(64)}
		}, unix.ENOSYS},
		{"opcode of all ones", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(^uint32(0), 1, nil)), room(64)}
		}, unix.ENOSYS},
		{"half a header", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_LOOKUP, 1, nil)[:20]), room(64)}
		}, unix.ENOTSUP},
		{"getattr without arguments", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_GETATTR, tree, nil)), room(200)}
		}, unix.EIO},
		{"no room for the reply", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_GETATTR, tree, make([]byte, 16))), room(20)}
		}, unix.EIO},
		{"no room for a header", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_GETATTR, tree, make([]byte, 16))), room(15)}
		}, unix.ENOTSUP},
		{"read of 4 GiB", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_READ, node, join(u64(fh, 0), huge, u64(0), u32(0, 0)))), room(8192)}
		}, unix.EIO},
		{"write of more than it has", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_WRITE, node, writeIn(fh, 0, 1<<20))), in([]byte("x")), room(64)}
		}, unix.EIO},
		{"getxattr of 4 GiB", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_GETXATTR, node, join(huge, cstr("user.x")))), room(8192)}
		}, unix.ENODATA},
		{"setxattr with half its arguments", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_SETXATTR, node, u32(1, 0))), room(64)}
		}, unix.EIO},
		{"go-fuse's node", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_GETATTR, pollHackNode, make([]byte, 16))), room(200)}
		}, unix.ESTALE},
		{"go-fuse's name", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_LOOKUP, 1, cstr(pollHackName))), room(200)}
		}, unix.ENOENT},
		{"lookup of dot dot", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_LOOKUP, tree, cstr(".."))), room(200)}
		}, unix.EINVAL},
		{"lookup of a path", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_LOOKUP, tree, cstr("a/b"))), room(200)}
		}, unix.EINVAL},
		{"lookup of a name without end", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_LOOKUP, tree, bytes.Repeat([]byte("a"), 60<<10))), room(200)}
		}, unix.ENAMETOOLONG},
		{"a megabyte of lookup", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_LOOKUP, tree, make([]byte, 1<<20))), room(200)}
		}, unix.EIO},
		{"extension longer than the request", func() []queuetest.Buffer {
			m := g.message(FUSE_LOOKUP, tree, cstr("x"))
			m[36], m[37] = 0xff, 0xff
			return []queuetest.Buffer{in(m), room(200)}
		}, unix.EIO},
		{"ioctl", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_IOCTL, node, make([]byte, 32))), room(200)}
		}, unix.ENOTTY},
		{"interrupt", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_INTERRUPT, 0, u64(1))), room(200)}
		}, unix.ENOTSUP},
		{"batch of forgets that says more than it has", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_BATCH_FORGET, 0, join(u32(1<<31, 0), u64(99, 1)))), room(200)}
		}, unix.ENOTSUP},
		{"syncfs", func() []queuetest.Buffer {
			return []queuetest.Buffer{in(g.message(FUSE_SYNCFS, 1, u64(0))), room(64)}
		}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g.t = t
			if e, _ := g.raw(tt.bufs()...); e != tt.want {
				t.Errorf("got %v, want %v", e, tt.want)
			}
		})
	}
	g.t = t
	if e, _ := g.call(FUSE_GETATTR, tree, make([]byte, 16), 104); e != 0 {
		t.Errorf("GETATTR after all that: %v", e)
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

// TestForget has a node go with its last reference, over hiprio.
func TestForget(t *testing.T) {
	g, _ := boot(t)
	node, fh := g.create(g.tree(), "file")
	if e, _ := g.call(FUSE_RELEASE, node, join(u64(fh), u32(0, 0), u64(0)), 0); e != 0 {
		t.Fatalf("RELEASE: %v", e)
	}
	if e, _ := g.call(FUSE_READ, node, join(u64(fh, 0), u32(1, 0), u64(0), u32(0, 0)), 1); e != unix.EBADF {
		t.Errorf("READ after RELEASE: %v", e)
	}
	g.hiprio.Offer(in(g.message(FUSE_FORGET, node, u64(1<<40))))
	if err := g.hiprio.Notify(); err != nil {
		t.Fatal(err)
	}
	if u := g.hiprio.Take(t, patience); u.Len != 0 {
		t.Errorf("FORGET has a reply of %d bytes", u.Len)
	}
	if e, _ := g.call(FUSE_GETATTR, node, make([]byte, 16), 104); e != unix.ESTALE {
		t.Errorf("GETATTR after FORGET: %v", e)
	}
}

// FuzzRequest gives the device chains of arbitrary bytes and shapes: first a
// request, split where at says, then room for a reply.
func FuzzRequest(f *testing.F) {
	for op := uint32(0); op < opcodes+2; op++ {
		arg := make([]byte, 120)
		copy(arg[max(inSize(op)-sizeofInHeader, 0):], "a\x00b\x00")
		f.Add(op, uint64(1), arg, uint16(40), uint32(4096))
		f.Add(op, uint64(3), arg, uint16(7), uint32(300))
	}
	s, dir := newShared(f)
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("content"), 0o644); err != nil {
		f.Fatal(err)
	}
	g := bootWith(f, s)
	f.Fuzz(func(t *testing.T, op uint32, node uint64, arg []byte, at uint16, reply uint32) {
		g.t = t
		g.init()
		tree := g.tree()
		g.create(tree, "a")
		if node == 0 {
			node = tree
		}
		m := g.message(op, node, arg[:min(len(arg), 1<<17)])
		k := min(int(at), len(m))
		bufs := []queuetest.Buffer{in(m[:k]), in(m[k:]), room(int(reply % 9)), room(int(reply % (1 << 20)))}
		var some []queuetest.Buffer
		for _, b := range bufs {
			if len(b.Data) > 0 {
				some = append(some, b)
			}
		}
		g.OfferIndirect(some...)
		g.WantNext()
		if err := g.Notify(); err != nil {
			t.Fatal(err)
		}
		g.Take(t, patience)
		if e, _ := g.call(FUSE_STATFS, 1, nil, 80); e != 0 && op != FUSE_DESTROY && op != FUSE_INIT {
			t.Errorf("STATFS afterwards: %v", e)
		}
	})
}
