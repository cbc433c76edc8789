package passthrough

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// raw makes requests as a hostile guest, with no kernel between.
type raw struct {
	t    testing.TB
	s    *Server
	tree uint64
}

func newRaw(t testing.TB, s *Server) *raw {
	r := &raw{t: t, s: s}
	e, code := r.lookup(fuse.FUSE_ROOT_ID, "t")
	if !code.Ok() {
		t.Fatal(code)
	}
	s.mu.Lock()
	name := s.trees["t"].name
	s.mu.Unlock()
	if e, code = r.lookup(e.NodeId, name); !code.Ok() {
		t.Fatal(code)
	}
	r.tree = e.NodeId
	return r
}

func (r *raw) lookup(dir uint64, name string) (e fuse.EntryOut, code fuse.Status) {
	code = r.s.Lookup(nil, &fuse.InHeader{NodeId: dir}, name, &e)
	if code.Ok() && e.NodeId == 0 {
		code = fuse.ENOENT
	}
	return e, code
}

func (r *raw) open(node uint64, flags uint32) (uint64, fuse.Status) {
	var out fuse.OpenOut
	code := r.s.Open(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: node}, Flags: flags}, &out)
	return out.Fh, code
}

func TestNames(t *testing.T) {
	dir := t.TempDir()
	s := newServer(t, Options{})
	share(t, s, dir, false)
	r := newRaw(t, s)
	h := fuse.InHeader{NodeId: r.tree}
	for _, name := range []string{"", ".", "..", "/", "/etc", "a/b", "../x", "a\x00b", strings.Repeat("x", 256)} {
		var e fuse.EntryOut
		var c fuse.CreateOut
		codes := map[string]fuse.Status{
			"lookup":  s.Lookup(nil, &h, name, &e),
			"mkdir":   s.Mkdir(nil, &fuse.MkdirIn{InHeader: h}, name, &e),
			"mknod":   s.Mknod(nil, &fuse.MknodIn{InHeader: h, Mode: unix.S_IFREG}, name, &e),
			"symlink": s.Symlink(nil, &h, "x", name, &e),
			"create":  s.Create(nil, &fuse.CreateIn{InHeader: h}, name, &c),
			"link":    s.Link(nil, &fuse.LinkIn{InHeader: h, Oldnodeid: r.tree}, name, &e),
			"unlink":  s.Unlink(nil, &h, name),
			"rmdir":   s.Rmdir(nil, &h, name),
			"rename":  s.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: r.tree}, name, "x"),
			"rename2": s.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: r.tree}, "x", name),
		}
		for op, code := range codes {
			if code != fuse.EINVAL && code != fuse.Status(unix.ENAMETOOLONG) && (op != "rename2" || code != fuse.ENOENT) {
				t.Errorf("%s %q: %v", op, name, code)
			}
		}
	}
	if l, err := os.ReadDir(dir); err != nil || len(l) != 0 {
		t.Errorf("the tree has %v, %v", l, err)
	}
}

// TestSymlinkRace turns a directory into a symbolic link to one outside and
// back, while a hostile guest uses it.
func TestSymlinkRace(t *testing.T) {
	top := t.TempDir()
	tree, outside := top+"/tree", top+"/outside"
	for _, d := range []string{tree, tree + "/a", tree + "/b", outside} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, tree+"/b/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(tree+"/a/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, tree+"/a/dir/f", "inside")
	write(t, outside+"/f", "OUTSIDE")
	s := newServer(t, Options{PathFDs: minPathFDs})
	share(t, s, tree, false)
	r := newRaw(t, s)
	if err := os.Rename(tree+"/a/dir", tree+"/x"); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() { // x is a directory, then a link, then a directory
		for !stop.Load() {
			unix.Renameat2(unix.AT_FDCWD, tree+"/x", unix.AT_FDCWD, tree+"/b/link", unix.RENAME_EXCHANGE) //nolint:errcheck // it may be in use
		}
	})
	defer wg.Wait()
	defer stop.Store(true)
	inside := 0
	for i := 0; i < 20000 || inside < 100 && i < 1000000; i++ {
		e, code := r.lookup(r.tree, "x")
		if !code.Ok() {
			continue
		}
		// Drop what is cached, so that x is found anew by its name.
		for _, p := range s.cache.shrink(64) {
			s.evict(p)
		}
		h := fuse.InHeader{NodeId: e.NodeId}
		var c fuse.CreateOut
		if code := s.Create(nil, &fuse.CreateIn{InHeader: h, Flags: unix.O_RDWR, Mode: 0o644}, "made", &c); code.Ok() {
			s.Release(nil, &fuse.ReleaseIn{Fh: c.Fh})
			s.Unlink(nil, &h, "made")
			s.Forget(c.NodeId, 1)
		}
		if f, code := r.lookup(e.NodeId, "f"); code.Ok() {
			if fh, code := r.open(f.NodeId, unix.O_RDWR); code.Ok() {
				if got := r.read(fh); got != "inside" {
					t.Fatalf("read %q", got)
				}
				inside++
				s.Release(nil, &fuse.ReleaseIn{Fh: fh})
			}
			s.Forget(f.NodeId, 1)
		}
		s.Forget(e.NodeId, 1)
	}
	if inside == 0 {
		t.Error("the race was never won from inside")
	}
	if l, err := os.ReadDir(outside); err != nil || len(l) != 1 {
		t.Errorf("outside has %v, %v", l, err)
	}
}

// TestSpecialFiles has the server refuse to open what has effects when opened.
func TestSpecialFiles(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(dir+"/fifo", 0o666); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, Options{})
	share(t, s, dir, false)
	r := newRaw(t, s)
	for _, name := range []string{"fifo", "null", "link"} {
		e, code := r.lookup(r.tree, name)
		if !code.Ok() {
			t.Fatalf("lookup %s: %v", name, code)
		}
		var out fuse.AttrOut
		h := fuse.InHeader{NodeId: e.NodeId}
		size := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: h, Valid: fuse.FATTR_SIZE}}
		if code := s.SetAttr(nil, &size, &out); code != fuse.EINVAL {
			t.Errorf("truncate %s: %v", name, code)
		}
		for _, flags := range []uint32{unix.O_RDONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_TRUNC} {
			if _, code := r.open(e.NodeId, flags); code != fuse.Status(unix.ENXIO) {
				t.Errorf("open %s: %v", name, code)
			}
		}
		var open fuse.OpenOut
		if code := s.OpenDir(nil, &fuse.OpenIn{InHeader: h}, &open); code != fuse.ENOTDIR {
			t.Errorf("opendir %s: %v", name, code)
		}
	}
	if e, _ := r.lookup(r.tree, "null"); e.Rdev != 1<<8|3 {
		t.Errorf("null is device %#x", e.Rdev)
	}
	var e fuse.EntryOut
	dev := fuse.MknodIn{InHeader: fuse.InHeader{NodeId: r.tree}, Mode: unix.S_IFCHR | 0o666, Rdev: 1<<8 | 3}
	if code := s.Mknod(nil, &dev, "mem", &e); code != fuse.EPERM {
		t.Errorf("mknod of a device: %v", code)
	}
	dev.Rdev = 0
	if code := s.Mknod(nil, &dev, "whiteout", &e); !code.Ok() {
		t.Errorf("mknod of a whiteout: %v", code)
	}
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/file", "content")
	if err := os.Mkdir(dir+"/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, Options{})
	share(t, s, dir, true)
	r := newRaw(t, s)
	before, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	e, code := r.lookup(r.tree, "file")
	if !code.Ok() {
		t.Fatal(code)
	}
	fh, code := r.open(e.NodeId, unix.O_RDONLY)
	if !code.Ok() || r.read(fh) != "content" {
		t.Fatalf("read: %v", code)
	}
	top, file := fuse.InHeader{NodeId: r.tree}, fuse.InHeader{NodeId: e.NodeId}
	var eo fuse.EntryOut
	var co fuse.CreateOut
	var ao fuse.AttrOut
	got := map[string]fuse.Status{
		"create":      s.Create(nil, &fuse.CreateIn{InHeader: top}, "x", &co),
		"tmpfile":     s.Tmpfile(nil, &fuse.CreateIn{InHeader: top, Flags: unix.O_RDWR}, &co),
		"mkdir":       s.Mkdir(nil, &fuse.MkdirIn{InHeader: top}, "x", &eo),
		"mknod":       s.Mknod(nil, &fuse.MknodIn{InHeader: top, Mode: unix.S_IFREG}, "x", &eo),
		"symlink":     s.Symlink(nil, &top, "x", "x", &eo),
		"link":        s.Link(nil, &fuse.LinkIn{InHeader: top, Oldnodeid: e.NodeId}, "x", &eo),
		"unlink":      s.Unlink(nil, &top, "file"),
		"rmdir":       s.Rmdir(nil, &top, "dir"),
		"rename":      s.Rename(nil, &fuse.RenameIn{InHeader: top, Newdir: r.tree}, "file", "x"),
		"setxattr":    s.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: file, Size: 1}, "user.x", []byte("x")),
		"removexattr": s.RemoveXAttr(nil, &file, "user.x"),
	}
	for _, flags := range []uint32{unix.O_WRONLY, unix.O_RDWR, unix.O_RDONLY | unix.O_TRUNC} {
		_, code := r.open(e.NodeId, flags)
		got[fmt.Sprintf("open %#x", flags)] = code
	}
	for name, valid := range map[string]uint32{"chmod": fuse.FATTR_MODE, "chown": fuse.FATTR_UID, "truncate": fuse.FATTR_SIZE,
		"ftruncate": fuse.FATTR_SIZE | fuse.FATTR_FH, "utimes": fuse.FATTR_MTIME} {
		in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: file, Valid: valid, Fh: fh}}
		got[name] = s.SetAttr(nil, &in, &ao)
	}
	for op, code := range got {
		if code != fuse.EROFS {
			t.Errorf("%s: %v", op, code)
		}
	}
	// What goes through a handle fails as on a descriptor opened for reading.
	if _, code := s.Write(nil, &fuse.WriteIn{Fh: fh}, []byte("x")); code != fuse.EBADF {
		t.Errorf("write: %v", code)
	}
	if code := s.Fallocate(nil, &fuse.FallocateIn{Fh: fh, Length: 1}); code != fuse.EBADF {
		t.Errorf("fallocate: %v", code)
	}
	if _, code := s.CopyFileRange(nil, &fuse.CopyFileRangeIn{FhIn: fh, FhOut: fh, OffOut: 100, Len: 1}); code != fuse.EBADF {
		t.Errorf("copy_file_range: %v", code)
	}
	after, err := os.Stat(dir)
	if err != nil || read(t, dir+"/file") != "content" || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("the tree has changed, %v", err)
	}
}

// TestTwoTrees has neither a link nor a rename go from one to the other.
func TestTwoTrees(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	write(t, a+"/file", "x")
	s := newServer(t, Options{})
	share(t, s, a, false)
	f, err := os.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.AddTree("u", "b", f, TreeOptions{}); err != nil {
		t.Fatal(err)
	}
	r := newRaw(t, s)
	e, _ := r.lookup(fuse.FUSE_ROOT_ID, "u")
	if e, _ = r.lookup(e.NodeId, "b"); e.NodeId == 0 {
		t.Fatal("no tree")
	}
	file, _ := r.lookup(r.tree, "file")
	var out fuse.EntryOut
	in := fuse.LinkIn{InHeader: fuse.InHeader{NodeId: e.NodeId}, Oldnodeid: file.NodeId}
	if code := s.Link(nil, &in, "x", &out); code != fuse.EXDEV {
		t.Errorf("link: %v", code)
	}
	if code := s.Rename(nil, &fuse.RenameIn{InHeader: fuse.InHeader{NodeId: r.tree}, Newdir: e.NodeId}, "file", "x"); code != fuse.EXDEV {
		t.Errorf("rename: %v", code)
	}
}

// TestLimits has a guest that takes all it can get.
func TestLimits(t *testing.T) {
	dir := t.TempDir()
	for i := range 40 {
		write(t, fmt.Sprintf("%s/%02d", dir, i), "x")
	}
	s := newServer(t, Options{MaxInodes: 12, MaxFiles: 10})
	share(t, s, dir, false)
	r := newRaw(t, s)
	var nodes []uint64
	for i := range 40 {
		if e, code := r.lookup(r.tree, fmt.Sprintf("%02d", i)); code.Ok() {
			nodes = append(nodes, e.NodeId)
		} else if code != fuse.Status(unix.ENOMEM) {
			t.Fatalf("lookup: %v", code)
		}
	}
	if len(nodes) != 10 { // and the tree's two
		t.Errorf("%d lookups, want 10", len(nodes))
	}
	opened := 0
	for range 20 {
		if _, code := r.open(nodes[0], unix.O_RDONLY); code.Ok() {
			opened++
		} else if code != fuse.Status(unix.ENFILE) {
			t.Fatalf("open: %v", code)
		}
	}
	if opened != 10 {
		t.Errorf("%d files open, want 10", opened)
	}
	s.Reset()
	var od fuse.OpenOut
	if code := s.OpenDir(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: r.tree}}, &od); !code.Ok() {
		t.Fatal(code)
	}
	// A listing has every name, also of those that cannot be referenced.
	seen := map[string]bool{}
	for off := uint64(0); ; {
		buf := make([]byte, 4096)
		list := fuse.NewDirEntryList(buf, off)
		if code := s.ReadDirPlus(nil, &fuse.ReadIn{Fh: od.Fh, Offset: off, Size: 4096}, list); !code.Ok() {
			t.Fatal(code)
		}
		entries, _, err := fuse.ParseDirLookupEntries(list.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			seen[e.Name], off = true, e.Off
		}
	}
	if len(seen) != 42 {
		t.Errorf("%d names listed, want 42", len(seen))
	}
}
