package passthrough

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

type unixStat = syscall.Stat_t

func lstat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// asUser runs f with the ids of a user, and a umask, on a thread of its own.
func asUser(t *testing.T, uid, gid, umask int, f func() error) {
	t.Helper()
	c := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			c <- err
			return
		}
		unix.Umask(umask)
		for _, set := range [][4]uintptr{
			{unix.SYS_SETGROUPS, 0, 0, 0},
			{unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)},
			{unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)},
		} {
			if _, _, errno := unix.RawSyscall(set[0], set[1], set[2], set[3]); errno != 0 {
				c <- errno
				return
			}
		}
		c <- f()
	}()
	if err := <-c; err != nil {
		t.Errorf("as %d:%d: %v", uid, gid, err)
	}
}

func TestOwner(t *testing.T) {
	dir, seen := mounted(t, Options{})
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/setgid", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir+"/setgid", 0, 4000); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir+"/setgid", 0o777|fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	for p := seen; p != "/tmp"; p = p[:strings.LastIndexByte(p, '/')] {
		if err := os.Chmod(p, 0o755); err != nil && !errors.Is(err, unix.EROFS) {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	asUser(t, 1234, 2345, 0o027, func() error {
		return errors.Join(
			os.Mkdir(seen+"/dir", 0o777),
			os.WriteFile(seen+"/file", []byte("x"), 0o666),
			os.Symlink("target", seen+"/link"),
			unix.Mkfifo(seen+"/fifo", 0o666),
			os.WriteFile(seen+"/setgid/file", nil, 0o666),
			os.Mkdir(seen+"/setgid/dir", 0o777),
		)
	})
	tests := []struct {
		name string
		gid  uint32
		mode uint32
	}{
		{"dir", 2345, unix.S_IFDIR | 0o750},
		{"file", 2345, unix.S_IFREG | 0o640},
		{"link", 2345, unix.S_IFLNK | 0o777},
		{"fifo", 2345, unix.S_IFIFO | 0o640},
		{"setgid/file", 4000, unix.S_IFREG | 0o640},
		{"setgid/dir", 4000, unix.S_IFDIR | unix.S_ISGID | 0o750},
	}
	for _, tt := range tests {
		st := lstat(t, dir+"/"+tt.name)
		if st.Uid != 1234 || st.Gid != tt.gid || st.Mode != tt.mode {
			t.Errorf("%s: %d:%d %#o, want 1234:%d %#o", tt.name, st.Uid, st.Gid, st.Mode, tt.gid, tt.mode)
		}
	}
	// The server's threads are all root again.
	for range 50 {
		write(t, seen+"/root", "x")
		if st := lstat(t, dir+"/root"); st.Uid != 0 || st.Gid != 0 {
			t.Fatalf("root's file is %d:%d", st.Uid, st.Gid)
		}
		os.Remove(seen + "/root")
	}
}

// TestSetUID has setuid and setgid go when they must, and only then.
func TestSetUID(t *testing.T) {
	dir, seen := mounted(t, Options{})
	for p := seen; p != "/tmp"; p = p[:strings.LastIndexByte(p, '/')] {
		if err := os.Chmod(p, 0o755); err != nil && !errors.Is(err, unix.EROFS) {
			t.Fatal(err)
		}
	}
	const suid = unix.S_IFREG | 0o6777
	tests := []struct {
		name string
		uid  int
		f    func(p string) error
		want uint32
	}{
		{"root writes", 0, func(p string) error { return appendTo(p) }, suid},
		{"user writes", 1234, func(p string) error { return appendTo(p) }, suid &^ 0o6000},
		{"user truncates", 1234, func(p string) error { return os.Truncate(p, 0) }, suid &^ 0o6000},
		{"user opens with O_TRUNC", 1234, func(p string) error { return os.WriteFile(p, nil, 0) }, suid &^ 0o6000},
		{"root changes the owner", 0, func(p string) error { return os.Chown(p, 1, 1) }, suid &^ 0o6000},
		{"root changes the mode", 0, func(p string) error { return unix.Chmod(p, 0o4711) }, unix.S_IFREG | 0o4711},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			name := "/" + strings.ReplaceAll(tt.name, " ", "-")
			write(t, seen+name, "x")
			if err := unix.Chmod(seen+name, 0o6777); err != nil {
				t.Fatal(err)
			}
			if got := lstat(t, dir+name).Mode; got != suid {
				t.Fatalf("mode %#o", got)
			}
			asUser(t, tt.uid, tt.uid, 0, func() error { return tt.f(seen + name) })
			if got := lstat(t, dir+name).Mode; got != tt.want {
				t.Errorf("mode %#o, want %#o", got, tt.want)
			}
		})
	}
}

func appendTo(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString("more")
	return err
}

func TestXattr(t *testing.T) {
	dir, seen := mounted(t, Options{})
	for _, old := range []bool{false, true} {
		write(t, seen+"/file", "x")
		set := func(name, value string) error { return unix.Setxattr(seen+"/file", name, []byte(value), 0) }
		get := func(path, name string) string {
			b := make([]byte, 100)
			n, err := unix.Getxattr(path, name, b)
			if err != nil {
				return err.Error()
			}
			return string(b[:n])
		}
		if err := errors.Join(set("user.a", "1"), set("trusted.overlay.opaque", "y")); err != nil {
			t.Fatal(err)
		}
		if got := get(seen+"/file", "trusted.overlay.opaque"); got != "y" {
			t.Errorf("trusted in the guest: %q", got)
		}
		if got := get(dir+"/file", "trusted.overlay.opaque"); got != unix.ENODATA.Error() {
			t.Errorf("trusted on the host: %q", got)
		}
		if err := unix.Setxattr(dir+"/file", "trusted.host", []byte("h"), 0); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1000)
		n, err := unix.Listxattr(seen+"/file", b)
		list := string(b[:max(n, 0)])
		if err != nil || !strings.Contains(list, "user.a\x00") || !strings.Contains(list, "trusted.overlay.opaque\x00") ||
			strings.Contains(list, "runv") || strings.Contains(list, "trusted.host") {
			t.Errorf("list: %q, %v", list, err)
		}
		if got := get(seen+"/file", "trusted.host"); got != unix.ENODATA.Error() {
			t.Errorf("the host's trusted attribute in the guest: %q", got)
		}
		if err := set("security.selinux", "x"); !errors.Is(err, unix.EPERM) {
			t.Errorf("security.selinux: %v", err)
		}
		if err := set("user.runv.trusted.x", "x"); !errors.Is(err, unix.EPERM) {
			t.Errorf("user.runv.*: %v", err)
		}
		if err := unix.Removexattr(seen+"/file", "user.a"); err != nil {
			t.Errorf("remove: %v", err)
		}
		if err := os.Remove(seen + "/file"); err != nil {
			t.Fatal(err)
		}
		if old {
			break
		}
	}
}

// TestXattrBefore613 uses the way for kernels without getxattrat.
func TestXattrBefore613(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/file", "x")
	if err := os.Symlink("x", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, Options{})
	s.xat = false
	share(t, s, dir, false)
	r := newRaw(t, s)
	for _, tt := range []struct{ name, attr string }{{"file", "user.x"}, {"link", "security.capability"}} {
		e, code := r.lookup(r.tree, tt.name)
		if !code.Ok() {
			t.Fatal(code)
		}
		h := fuse.InHeader{NodeId: e.NodeId}
		code = s.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: h, Size: 3}, tt.attr, []byte("abc"))
		if tt.name == "link" {
			// Not a value of a capability; but the link itself was asked, and not x.
			if code == fuse.ENOENT || code.Ok() {
				t.Errorf("%s: set: %v", tt.name, code)
			}
			continue
		}
		b := make([]byte, 10)
		n, code2 := s.GetXAttr(nil, &h, tt.attr, b)
		if !code.Ok() || !code2.Ok() || string(b[:n]) != "abc" {
			t.Errorf("%s: %v, %v, %q", tt.name, code, code2, b[:n])
		}
		if n, code := s.ListXAttr(nil, &h, b); !code.Ok() || string(b[:n]) != tt.attr+"\x00" {
			t.Errorf("%s: list %q, %v", tt.name, b[:n], code)
		}
		if code := s.RemoveXAttr(nil, &h, tt.attr); !code.Ok() {
			t.Errorf("%s: remove %v", tt.name, code)
		}
	}
}

// TestDefaultACL has the umask not count where a directory has a default ACL.
func TestDefaultACL(t *testing.T) {
	dir, seen := mounted(t, Options{})
	if err := os.Mkdir(dir+"/acl", 0o755); err != nil {
		t.Fatal(err)
	}
	// version 2, then tag, perm, id: user::rwx group::rwx mask::rwx other::r-x, user:1234:rwx
	acl := []byte{2, 0, 0, 0}
	for _, e := range [][3]uint32{{1, 7, ^uint32(0)}, {2, 7, 1234}, {4, 7, ^uint32(0)}, {0x10, 7, ^uint32(0)}, {0x20, 5, ^uint32(0)}} {
		acl = append(acl, byte(e[0]), 0, byte(e[1]), 0, byte(e[2]), byte(e[2]>>8), byte(e[2]>>16), byte(e[2]>>24))
	}
	if err := unix.Setxattr(dir+"/acl", aclDefault, acl, 0); err != nil {
		t.Skipf("no ACLs here: %v (try: a TMPDIR on ext4)", err)
	}
	asUser(t, 0, 0, 0o077, func() error {
		return errors.Join(os.WriteFile(seen+"/acl/file", nil, 0o666), os.WriteFile(seen+"/file", nil, 0o666))
	})
	if got := lstat(t, dir+"/acl/file").Mode; got != unix.S_IFREG|0o664 {
		t.Errorf("with a default ACL: %#o", got)
	}
	if got := lstat(t, dir+"/file").Mode; got != unix.S_IFREG|0o600 {
		t.Errorf("without: %#o", got)
	}
}
