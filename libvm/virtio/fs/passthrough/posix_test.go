package passthrough

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"
)

// newServer returns a server that ends with the test.
func newServer(t testing.TB, o Options) *Server {
	t.Helper()
	if unix.Geteuid() != 0 {
		t.Skip("not root (try: sudo go test)")
	}
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// share adds path as the tree /t/<base>.
func share(t testing.TB, s *Server, path string, readOnly bool) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(os.NewSyscallError("open", err))
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := s.AddTree("t", filepath.Base(path), f, TreeOptions{ReadOnly: readOnly}); err != nil {
		t.Fatal(err)
	}
}

// mount mounts s with this host's FUSE and returns the mount point.
func mount(t testing.TB, s *Server) string {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no /dev/fuse (try: modprobe fuse)")
	}
	mnt := t.TempDir()
	o := s.MountOptions()
	o.DirectMountStrict = true
	o.DirectMountFlags = unix.MS_MGC_VAL
	o.AllowOther = true
	o.Options = append(o.Options, "default_permissions")
	srv, err := fuse.NewServer(s, mnt, o)
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve()
	if err := srv.WaitMount(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Unmount(); err != nil {
			t.Error(err)
			unix.Unmount(mnt, unix.MNT_DETACH) //nolint:errcheck // the first error counts
		}
	})
	return mnt
}

// mounted shares a new directory, writable, and mounts it. It returns the
// directory and where it is seen through the server.
func mounted(t testing.TB, o Options) (dir, seen string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, o)
	share(t, s, dir, false)
	return dir, filepath.Join(mount(t, s), "t", "tree")
}

// posixExceptions are the tests of go-fuse's suite that do not apply.
var posixExceptions = map[string]string{
	"FcntlFlockLocksFile": "go-fuse's own run skips it: the test is broken",
	"OpenSymlinkRace":     "go-fuse's own run skips it: the kernel's path walk has the race, without us",
}

func TestPosix(t *testing.T) {
	for name, fn := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if why := posixExceptions[name]; why != "" {
				t.Skip(why)
			}
			_, seen := mounted(t, Options{})
			fn(t, seen)
		})
	}
}

// TestPosixEvicted is the same with next to no descriptors kept, so that nearly
// every request opens its file anew.
func TestPosixEvicted(t *testing.T) {
	for name, fn := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if why := posixExceptions[name]; why != "" {
				t.Skip(why)
			}
			_, seen := mounted(t, Options{PathFDs: minPathFDs})
			fn(t, seen)
		})
	}
}
