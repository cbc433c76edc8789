package passthrough

import (
	"fmt"
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// benchTree is a tree of files in memory, so that the server is what is measured.
func benchTree(b *testing.B) *raw {
	b.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "runv")
	if err != nil {
		b.Skip("no /dev/shm (try: mount -t tmpfs tmpfs /dev/shm)")
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	for i := range 1000 {
		write(b, fmt.Sprintf("%s/%04d", dir, i), "content")
	}
	s := newServer(b, Options{})
	share(b, s, dir, false)
	r := newRaw(b, s)
	b.ReportAllocs()
	b.ResetTimer()
	return r
}

func BenchmarkLookup(b *testing.B) {
	r := benchTree(b)
	for b.Loop() {
		e, code := r.lookup(r.tree, "0500")
		if !code.Ok() {
			b.Fatal(code)
		}
		r.s.Forget(e.NodeId, 1)
	}
}

func BenchmarkGetAttr(b *testing.B) {
	r := benchTree(b)
	e, _ := r.lookup(r.tree, "0500")
	in := fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: e.NodeId}}
	var out fuse.AttrOut
	for b.Loop() {
		if code := r.s.GetAttr(nil, &in, &out); !code.Ok() {
			b.Fatal(code)
		}
	}
}

func BenchmarkOpenReadRelease(b *testing.B) {
	r := benchTree(b)
	e, _ := r.lookup(r.tree, "0500")
	for b.Loop() {
		fh, code := r.open(e.NodeId, unix.O_RDONLY)
		if !code.Ok() || r.read(fh) != "content" {
			b.Fatal(code)
		}
		r.s.Release(nil, &fuse.ReleaseIn{Fh: fh})
	}
}

func BenchmarkCreateUnlink(b *testing.B) {
	for _, uid := range []uint32{0, 1000} {
		b.Run(fmt.Sprintf("uid=%d", uid), func(b *testing.B) {
			r := benchTree(b)
			h := fuse.InHeader{NodeId: r.tree, Caller: fuse.Caller{Owner: fuse.Owner{Uid: uid, Gid: uid}}}
			for b.Loop() {
				var c fuse.CreateOut
				if code := r.s.Create(nil, &fuse.CreateIn{InHeader: h, Flags: unix.O_RDWR, Mode: 0o666, Umask: 0o22}, "new", &c); !code.Ok() {
					b.Fatal(code)
				}
				r.s.Release(nil, &fuse.ReleaseIn{Fh: c.Fh})
				if code := r.s.Unlink(nil, &h, "new"); !code.Ok() {
					b.Fatal(code)
				}
				r.s.Forget(c.NodeId, 1)
			}
		})
	}
}

// BenchmarkReadDirPlus lists 1000 files with their attributes, a page at a time.
func BenchmarkReadDirPlus(b *testing.B) {
	r := benchTree(b)
	buf := make([]byte, 4096)
	for b.Loop() {
		var open fuse.OpenOut
		if code := r.s.OpenDir(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: r.tree}}, &open); !code.Ok() {
			b.Fatal(code)
		}
		for off, size := uint64(0), 1; size > 0; {
			list := fuse.NewDirEntryList(buf, off)
			if code := r.s.ReadDirPlus(nil, &fuse.ReadIn{Fh: open.Fh, Offset: off}, list); !code.Ok() {
				b.Fatal(code)
			}
			off, size = list.Offset, len(list.Bytes())
		}
		r.s.ReleaseDir(&fuse.ReleaseIn{Fh: open.Fh})
	}
	r.s.Reset()
}

func BenchmarkRead1M(b *testing.B) {
	r := benchTree(b)
	var c fuse.CreateOut
	h := fuse.InHeader{NodeId: r.tree}
	if code := r.s.Create(nil, &fuse.CreateIn{InHeader: h, Flags: unix.O_RDWR, Mode: 0o666}, "big", &c); !code.Ok() {
		b.Fatal(code)
	}
	buf := make([]byte, MaxWrite)
	if _, code := r.s.Write(nil, &fuse.WriteIn{Fh: c.Fh, Size: MaxWrite}, buf); !code.Ok() {
		b.Fatal(code)
	}
	b.SetBytes(MaxWrite)
	for b.Loop() {
		res, code := r.s.Read(nil, &fuse.ReadIn{Fh: c.Fh, Size: MaxWrite}, buf)
		if !code.Ok() {
			b.Fatal(code)
		}
		if got, code := res.Bytes(buf); !code.Ok() || len(got) != MaxWrite {
			b.Fatal(code)
		}
		res.Done()
	}
}
