package fs

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"runv/libvm/virtio/queue/queuetest"
)

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

// TestForgetBatch: after one FORGET the driver need not notify of the next ones,
// which are given back together, with one interrupt.
func TestForgetBatch(t *testing.T) {
	g, _ := boot(t)
	forget := func() {
		g.hiprio.Offer(in(g.message(FUSE_FORGET, 99, u64(1))))
	}
	forget()
	if err := g.hiprio.Notify(); err != nil {
		t.Fatal(err)
	}
	g.hiprio.Take(t, patience)
	before := g.hiprio.Interrupts()
	const n = 100
	for range n {
		forget() // without a notification
	}
	for range n {
		g.hiprio.Take(t, patience)
	}
	if got := g.hiprio.Interrupts() - before; got > n/2 {
		t.Errorf("%d interrupts for %d requests", got, n)
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
		g.serve(in(m[:k]), in(m[k:]), room(int(reply%9)), room(int(reply%(1<<20))))
		if e, _ := g.call(FUSE_STATFS, 1, nil, 80); e != 0 && op != FUSE_DESTROY && op != FUSE_INIT {
			t.Errorf("STATFS afterwards: %v", e)
		}
	})
}
