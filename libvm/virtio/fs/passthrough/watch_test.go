package passthrough

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"runv/agent/wire"
)

// watchedTree mounts a tree whose changes are watched.
func watchedTree(t *testing.T) (s *Server, dir, mnt string) {
	t.Helper()
	s = newServer(t, Options{})
	s.EnableWatches()
	dir = t.TempDir()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.AddTree("0", "tree", f, TreeOptions{}); err != nil {
		t.Fatal(err)
	}
	return s, dir, mount(t, s)
}

// lookup is what the guest's kernel does with a path.
func lookup(t *testing.T, s *Server, names ...string) uint64 {
	t.Helper()
	id := uint64(fuse.FUSE_ROOT_ID)
	for _, name := range names {
		var out fuse.EntryOut
		if code := s.Lookup(nil, &fuse.InHeader{NodeId: id}, name, &out); !code.Ok() || out.NodeId == 0 {
			t.Fatalf("%s: %v", name, code)
		}
		id = out.NodeId
	}
	return id
}

// TestRepeatChangesNothing: whatever the agent's thread does, the host stays as it is.
func TestRepeatChangesNothing(t *testing.T) {
	s, dir, mnt := watchedTree(t)
	write(t, dir+"/file", "content")
	if err := os.Mkdir(dir+"/sub", 0o700); err != nil {
		t.Fatal(err)
	}
	before := state(t, dir)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s.watch.thread.Store(uint32(unix.Gettid()))
	at := mnt + "/0/tree/"
	times := []unix.Timespec{{Sec: 1}, {Sec: 2}}
	for _, tt := range []struct {
		name string
		do   func() error
		want error
	}{
		{"utimes", func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, at+"file", times, 0) }, nil},
		{"chmod", func() error { return unix.Chmod(at+"file", 0o777) }, nil},
		{"truncate", func() error { return unix.Truncate(at+"file", 1) }, nil},
		{"open", func() error {
			fd, err := unix.Open(at+"file", unix.O_WRONLY|unix.O_TRUNC, 0)
			if err == nil {
				if _, err := unix.Write(fd, []byte("x")); !errors.Is(err, unix.EBADF) && !errors.Is(err, unix.EIO) {
					t.Errorf("write: %v", err)
				}
				err = unix.Close(fd)
			}
			return err
		}, nil},
		{"unlink", func() error { return unix.Unlink(at + "file") }, nil},
		{"rmdir", func() error { return unix.Rmdir(at + "sub") }, nil},
		{"rename", func() error { return unix.Rename(at+"file", at+"other") }, nil},
		{"mkdir", func() error { return unix.Mkdir(at+"new", 0o700) }, unix.ENOENT},
		{"mknod", func() error { return unix.Mknod(at+"new", unix.S_IFREG, 0) }, unix.ENOENT},
		{"symlink", func() error { return unix.Symlink("x", at+"new") }, unix.ENOENT},
		{"create", func() error { _, err := unix.Open(at+"new", unix.O_CREAT|unix.O_WRONLY, 0o600); return err }, unix.EROFS},
		{"link", func() error { return unix.Link(at+"file", at+"new") }, unix.EROFS},
	} {
		if err := tt.do(); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if diff := cmp.Diff(before, state(t, dir)); diff != "" {
			t.Fatalf("%s changed the host: %s", tt.name, diff)
		}
	}
}

// state is what a directory of the host has.
func state(t *testing.T, dir string) (all []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		fi, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fi.Name()+" "+fi.Mode().String()+" "+fi.ModTime().String())
		if fi.Mode().IsRegular() {
			all = append(all, read(t, dir+"/"+fi.Name()))
		}
	}
	return all
}

// TestChanges: what is changed behind the guest's back is told, what the guest did
// is not, nor what it does not watch.
func TestChanges(t *testing.T) {
	s, dir, mnt := watchedTree(t)
	for _, d := range []string{"/watched", "/other"} {
		if err := os.Mkdir(dir+d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir+"/watched/file", "")
	root, sub := lookup(t, s, "0", "tree"), lookup(t, s, "0", "tree", "watched")
	if n, err := s.Watch([]uint64{root, sub, sub, 1 << 50}, 0); n != 2 || err != nil {
		t.Fatalf("watching %d, %v", n, err)
	}
	write(t, mnt+"/0/tree/watched/own", "x")
	write(t, dir+"/other/unseen", "x")
	write(t, dir+"/watched/file", "x")
	rename := func(from, to string) {
		if err := os.Rename(dir+from, dir+to); err != nil {
			t.Fatal(err)
		}
	}
	rename("/watched/file", "/moved")
	rename("/other/unseen", "/watched/came")
	rename("/moved", "/other/went")
	if err := os.Chmod(dir+"/watched/came", 0o600); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	n, err := s.watch.file.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	const at = "0/tree/watched"
	want := []Change{
		{Kind: wire.Modified, Dir: at, Name: "file", Mode: unix.S_IFREG},
		{Kind: wire.CloseWrite, Dir: at, Name: "file", Mode: unix.S_IFREG},
		{Kind: wire.Moved, Dir: at, Name: "file", ToDir: "0/tree", To: "moved", Mode: unix.S_IFREG},
		{Kind: wire.MovedHere, Dir: at, Name: "came", Mode: unix.S_IFREG},
		{Kind: wire.Deleted, Dir: "0/tree", Name: "moved", Mode: unix.S_IFREG},
		{Kind: wire.Attributes, Dir: at, Name: "came", Mode: unix.S_IFREG},
	}
	if diff := cmp.Diff(want, s.changes(buf[:n]), cmpopts.IgnoreUnexported(Change{})); diff != "" {
		t.Error(diff)
	}
	if n, err := s.Watch(nil, 0); n != 0 || err != nil || s.watch.on.Load() {
		t.Errorf("nothing is watched any more: %d, %v", n, err)
	}
}

// TestActivity: a lookup is told of once.
func TestActivity(t *testing.T) {
	s, _, _ := watchedTree(t)
	for range 2 {
		s.Rearm()
		for range 3 {
			lookup(t, s, "0", "tree")
		}
		<-s.Activity()
		select {
		case <-s.Activity():
			t.Error("told twice")
		default:
		}
	}
}

func event(wd int32, mask, cookie uint32, name string) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(wd))
	b = binary.NativeEndian.AppendUint32(b, mask)
	b = binary.NativeEndian.AppendUint32(b, cookie)
	size := (len(name) + 16) &^ 15
	b = binary.NativeEndian.AppendUint32(b, uint32(size))
	return append(append(b, name...), make([]byte, size-len(name))...)
}

func TestParseEvents(t *testing.T) {
	b := slices.Concat(event(1, unix.IN_CREATE, 0, "a"), event(-1, unix.IN_Q_OVERFLOW, 0, ""), event(2, unix.IN_MOVED_TO, 7, "bc"))
	want := []rawEvent{{1, unix.IN_CREATE, 0, "a"}, {-1, unix.IN_Q_OVERFLOW, 0, ""}, {2, unix.IN_MOVED_TO, 7, "bc"}}
	if diff := cmp.Diff(want, parseEvents(b), cmp.AllowUnexported(rawEvent{})); diff != "" {
		t.Error(diff)
	}
	if got := parseEvents(b[:len(b)-1]); len(got) != 2 {
		t.Errorf("cut off: got %d events", len(got))
	}
}

func FuzzParseEvents(f *testing.F) {
	f.Add(event(1, unix.IN_CREATE, 0, "a"))
	f.Fuzz(func(_ *testing.T, b []byte) { parseEvents(b) })
}
