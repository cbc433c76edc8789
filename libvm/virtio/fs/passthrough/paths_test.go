package passthrough

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestNoPaths serves from a thread whose root is an empty directory, as a
// monitor does that has pivoted away: nothing needs a path of the host.
func TestNoPaths(t *testing.T) {
	dir, empty := t.TempDir(), t.TempDir()
	if err := os.Mkdir(dir+"/d", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/d/file", "content")
	s := newServer(t, Options{PathFDs: minPathFDs})
	share(t, s, dir, false)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends
		if err := errors.Join(unix.Unshare(unix.CLONE_FS), unix.Chroot(empty), unix.Chdir("/")); err != nil {
			done <- err
			return
		}
		done <- func() error {
			r := &raw{t: t, s: s, tree: s.trees["t"].root.id}
			d, code := r.lookup(r.tree, "d")
			f, code2 := r.lookup(d.NodeId, "file")
			fh, code3 := r.open(f.NodeId, unix.O_RDWR)
			if !code.Ok() || !code2.Ok() || !code3.Ok() {
				return fmt.Errorf("open: %v, %v, %v", code, code2, code3)
			}
			if got := r.read(fh); got != "content" {
				return fmt.Errorf("read %q", got)
			}
			s.Release(nil, &fuse.ReleaseIn{Fh: fh})
			h := fuse.InHeader{NodeId: f.NodeId, Caller: fuse.Caller{Owner: fuse.Owner{Uid: 5, Gid: 6}}}
			var a fuse.AttrOut
			set := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: h, Mode: 0o600, Size: 3, Owner: fuse.Owner{Uid: 1, Gid: 2},
				Valid: fuse.FATTR_MODE | fuse.FATTR_SIZE | fuse.FATTR_UID | fuse.FATTR_GID | fuse.FATTR_MTIME}}
			if code := s.SetAttr(nil, &set, &a); !code.Ok() || a.Size != 3 || a.Mode != unix.S_IFREG|0o600 || a.Uid != 1 || a.Mtime != 0 {
				return fmt.Errorf("setattr: %v, %+v", code, a)
			}
			if code := s.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: h, Size: 1}, "user.x", []byte("y")); !code.Ok() {
				return fmt.Errorf("setxattr: %v", code)
			}
			var e fuse.EntryOut
			link := fuse.LinkIn{InHeader: fuse.InHeader{NodeId: d.NodeId}, Oldnodeid: f.NodeId}
			if code := s.Link(nil, &link, "other", &e); !code.Ok() || e.NodeId != f.NodeId || e.Nlink != 2 {
				return fmt.Errorf("link: %v, %+v", code, e)
			}
			h.NodeId = d.NodeId
			if code := s.Mkdir(nil, &fuse.MkdirIn{InHeader: h, Mode: 0o777, Umask: 0o22}, "made", &e); !code.Ok() || e.Uid != 5 || e.Mode != unix.S_IFDIR|0o755 {
				return fmt.Errorf("mkdir: %v, %+v", code, e)
			}
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
