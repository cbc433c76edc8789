package passthrough

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// testIDs maps 0 to 9 on disk to 1000 to 1009, and users 100 and 101 to 0 and 1.
var testIDs = IDMap{
	UID: []IDRange{{0, 1000, 10}, {100, 0, 2}},
	GID: []IDRange{{0, 1000, 10}, {200, 0, 2}},
}

func TestIDMapping(t *testing.T) {
	for _, tt := range []struct {
		file, guest uint32
		ok          bool
	}{{0, 1000, true}, {9, 1009, true}, {10, overflowID, false}, {100, 0, true}, {101, 1, true}, {102, overflowID, false}} {
		got, ok := guestID(testIDs.UID, tt.file)
		if got != tt.guest || ok != tt.ok {
			t.Errorf("%d on disk: %d, %v, want %d, %v", tt.file, got, ok, tt.guest, tt.ok)
		}
		if back, ok := fileID(testIDs.UID, got); tt.ok && (back != tt.file || !ok) {
			t.Errorf("%d in the guest: %d, %v, want %d", got, back, ok, tt.file)
		}
	}
	full := []IDRange{{0, ^uint32(0) - 9, 10}}
	if got, ok := guestID(full, 9); got != ^uint32(0) || !ok {
		t.Errorf("at the end of all ids: %d, %v", got, ok)
	}
}

// kernelIDMapped binds dir, mapped by the kernel as testIDs says.
func kernelIDMapped(t *testing.T, dir string) string {
	t.Helper()
	ids := func(m []IDRange) (out []syscall.SysProcIDMap) {
		for _, r := range m {
			out = append(out, syscall.SysProcIDMap{ContainerID: int(r.File), HostID: int(r.Guest), Size: int(r.Size)})
		}
		return out
	}
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids(testIDs.UID), GidMappings: ids(testIDs.GID), Pdeathsig: unix.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("no user namespace here: %v", err)
	}
	defer func() {
		cmd.Process.Kill() //nolint:errcheck // it only held the namespace
		cmd.Wait()         //nolint:errcheck // killed
	}()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Skipf("open_tree: %v", err)
	}
	defer unix.Close(fd)
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}); err != nil {
		t.Skipf("the file system of %s does not do id-mapped mounts here: %v (try: TMPDIR on ext4)", dir, err)
	}
	at := filepath.Join(t.TempDir(), "mapped")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) }) //nolint:errcheck // the test is over
	return at
}

// TestIDMapLikeTheKernel does the same in a mapped tree of ours and in one of the
// kernel, as several users, and compares errors, owners seen and owners on disk.
func TestIDMapLikeTheKernel(t *testing.T) {
	make2 := func() string {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		for name, owner := range map[string]int{"mine": 0, "user": 5, "root": 100, "foreign": 5000} {
			write(t, dir+"/"+name, "x")
			if err := os.Mkdir(dir+"/d-"+name, 0o777); err != nil {
				t.Fatal(err)
			}
			for _, p := range []string{name, "d-" + name} {
				gid := owner
				if owner == 100 {
					gid = 200
				}
				if err := errors.Join(os.Chown(dir+"/"+p, owner, gid), os.Chmod(dir+"/"+p, 0o777)); err != nil {
					t.Fatal(err)
				}
			}
			write(t, dir+"/d-"+name+"/inside", "x")
		}
		if err := errors.Join(os.Mkdir(dir+"/setgid", 0), os.Chown(dir+"/setgid", 100, 7), os.Chmod(dir+"/setgid", os.ModeSetgid|0o777)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	theirDisk := make2()
	theirs := kernelIDMapped(t, theirDisk)
	ourDisk := make2()
	s := newServer(t, Options{})
	root, err := os.Open(ourDisk)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := s.AddTree("t", filepath.Base(ourDisk), root, TreeOptions{IDs: &testIDs}); err != nil {
		t.Fatal(err)
	}
	ours := filepath.Join(mount(t, s), "t", filepath.Base(ourDisk))
	for _, p := range []string{ours, theirs, ourDisk, theirDisk} {
		for p = filepath.Dir(p); p != "/tmp" && p != "/"; p = filepath.Dir(p) {
			os.Chmod(p, 0o755) //nolint:errcheck // of the mounted one it cannot be changed, and need not
		}
	}
	list := func(dir string) (out []string) {
		err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			st := lstat(t, path)
			out = append(out, fmt.Sprintf("%s %d:%d %o", strings.TrimPrefix(path, dir), st.Uid, st.Gid, st.Mode))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	same := func(what string) {
		t.Helper()
		if diff := cmp.Diff(list(theirs), list(ours)); diff != "" {
			t.Errorf("%s: seen: -kernel +ours:\n%s", what, diff)
		}
		if diff := cmp.Diff(list(theirDisk), list(ourDisk)); diff != "" {
			t.Errorf("%s: on disk: -kernel +ours:\n%s", what, diff)
		}
	}
	same("at first")
	for _, tt := range []struct {
		name string
		uid  int
		f    func(dir string) error
	}{
		{"root makes a file", 0, func(d string) error { return os.WriteFile(d+"/r", nil, 0o644) }},
		{"user makes a directory", 1005, func(d string) error { return os.Mkdir(d+"/u", 0o755) }},
		{"user links", 1005, func(d string) error { return errors.Join(os.Symlink("x", d+"/l"), os.Link(d+"/user", d+"/hard")) }},
		{"user makes a FIFO", 1009, func(d string) error { return unix.Mkfifo(d+"/fifo", 0o600) }},
		{"stranger makes a file", 2000, func(d string) error { return os.WriteFile(d+"/s", nil, 0o644) }},
		{"user in the setgid directory", 1003, func(d string) error { return os.WriteFile(d+"/setgid/f", nil, 0o644) }},
		{"root changes the owner", 0, func(d string) error { return os.Chown(d+"/mine", 1, 1) }},
		{"root changes the owner to a stranger", 0, func(d string) error { return os.Chown(d+"/mine", 2000, -1) }},
		{"root takes what is nobody's", 0, func(d string) error { return os.Chown(d+"/foreign", 1002, 1002) }},
		{"root changes the mode of nobody's", 0, func(d string) error { return os.Chmod(d+"/d-foreign/inside", 0o600) }},
		{"root changes the mode of nobody's directory", 0, func(d string) error { return os.Chmod(d+"/d-foreign", 0o700) }},
		{"stranger writes", 2000, func(d string) error { return appendTo(d + "/user") }},
		{"user writes into nobody's directory", 1005, func(d string) error { return os.WriteFile(d+"/d-foreign/x", nil, 0o600) }},
		{"root removes nobody's directory", 0, func(d string) error { return unix.Rmdir(d + "/d-foreign") }},
		{"root moves nobody's directory", 0, func(d string) error { return os.Rename(d+"/d-foreign", d+"/moved") }},
		{"root reads nobody's", 0, func(d string) error { _, err := os.ReadFile(d + "/d-foreign/inside"); return err }},
		{"user changes the mode", 1005, func(d string) error { return os.Chmod(d+"/user", 0o640) }},
		{"user changes another's mode", 1005, func(d string) error { return os.Chmod(d+"/root", 0o640) }},
		{"root removes", 0, func(d string) error { return os.RemoveAll(d + "/d-user") }},
		{"root gives an ACL", 0, func(d string) error { return unix.Setxattr(d+"/root", aclAccess, testACL(1004), 0) }},
		{"root gives a stranger an ACL", 0, func(d string) error { return unix.Setxattr(d+"/root", aclAccess, testACL(3000), 0) }},
		{"root gives capabilities", 0, func(d string) error { return unix.Setxattr(d+"/root", capability, testCaps(), 0) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var errs [2]error
			for i, dir := range []string{theirs, ours} {
				asUser(t, tt.uid, tt.uid, 0o022, func() error {
					errs[i] = tt.f(dir)
					return nil
				})
			}
			if a, b := errno(errs[0]), errno(errs[1]); a != b {
				t.Errorf("kernel: %v, ours: %v", errs[0], errs[1])
			}
			same(tt.name)
		})
	}
	for _, name := range []string{aclAccess, capability} {
		if a, b := attr(theirs+"/root", name), attr(ours+"/root", name); a != b {
			t.Errorf("%s: seen through the kernel's %q, ours %q", name, a, b)
		}
		if a, b := attr(theirDisk+"/root", name), attr(ourDisk+"/root", name); a != b {
			t.Errorf("%s: on disk: the kernel's %q, ours %q", name, a, b)
		}
	}
}

func errno(err error) unix.Errno {
	var e unix.Errno
	errors.As(err, &e)
	return e
}

func attr(path, name string) string {
	b := make([]byte, 200)
	n, err := unix.Getxattr(path, name, b)
	if err != nil {
		return err.Error()
	}
	return string(b[:n])
}

// testACL is user::rw- user:<id>:rw- group::r-- group:<id>:r-- mask::rw- other::---
func testACL(id uint32) []byte {
	b := []byte{2, 0, 0, 0}
	for _, e := range [][3]uint32{{1, 6, ^uint32(0)}, {aclUser, 6, id}, {4, 4, ^uint32(0)}, {aclGroup, 4, id}, {0x10, 6, ^uint32(0)}, {0x20, 0, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return b
}

// testCaps is cap_net_raw+ep, of revision 2.
func testCaps() []byte {
	b := make([]byte, capsV2)
	binary.LittleEndian.PutUint32(b, capsV2Magic|1)
	binary.LittleEndian.PutUint32(b[4:], 1<<13)
	return b
}

// FuzzIDMapXattr: values that a guest sets come back as they were, if they are
// taken at all.
func FuzzIDMapXattr(f *testing.F) {
	f.Add(testACL(1004), true)
	f.Add(testCaps(), false)
	f.Fuzz(func(t *testing.T, b []byte, acl bool) {
		name := capability
		if acl {
			name = aclAccess
		}
		in := bytes.Clone(b)
		v, err := testIDs.xattrToFile(name, b)
		if !bytes.Equal(in, b) {
			t.Fatal("the guest's memory was changed")
		}
		if err != nil {
			return
		}
		back, err := testIDs.xattrToGuest(name, bytes.Clone(v))
		if err != nil {
			t.Fatalf("%x is taken, and cannot be read: %v", b, err)
		}
		if acl && !bytes.Equal(back, b) {
			t.Errorf("%x came back as %x", b, back)
		}
	})
}
