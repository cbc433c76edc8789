package passthrough

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const patience = 20 * time.Second

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// until waits for ok.
func until(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// openFDs counts the descriptors of this process below dir.
func openFDs(t testing.TB, dir string) (n int) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, dir) {
			n++
		}
	}
	return n
}

func TestTable(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/file", "a file")
	s := newServer(t, Options{})
	add := func(key, name, path string) error {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return s.AddTree(key, name, f, TreeOptions{})
	}
	if err := add("0", "etc", dir); err != nil {
		t.Fatal(err)
	}
	mnt := mount(t, s)
	if err := add("1", "file", dir+"/file"); err != nil { // while it is mounted
		t.Fatal(err)
	}
	if err := add("1", "again", dir); !errors.Is(err, ErrTreeExists) {
		t.Errorf("the same key: %v", err)
	}
	for _, bad := range []string{"", ".", "..", "a/b", "a\x00"} {
		if add(bad, "x", dir) == nil || add("x", bad, dir) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	var got []string
	err := filepath.WalkDir(mnt, func(p string, _ fs.DirEntry, err error) error {
		got = append(got, strings.TrimPrefix(p, mnt))
		return err
	})
	want := "[ /0 /0/etc /0/etc/file /1 /1/file]"
	if err != nil || fmt.Sprint(got) != want {
		t.Errorf("walk: %q, %v, want %v", got, err, want)
	}
	if got := read(t, mnt+"/1/file"); got != "a file" {
		t.Errorf("the tree of one file has %q", got)
	}
	for _, p := range []string{"/x", "/0/x", "/1/x"} {
		if err := os.Mkdir(mnt+p, 0o755); !errors.Is(err, unix.EROFS) {
			t.Errorf("mkdir %s: %v", p, err)
		}
	}
	f, err := os.Open(mnt + "/0/etc/file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.RemoveTree("0"); err != nil {
		t.Fatal(err)
	}
	until(t, time.Second, "stat of a file in a removed tree fails", func() bool { _, err := f.Stat(); return err != nil })
	until(t, time.Second, "the key of a removed tree is gone", func() bool {
		_, err := os.Stat(mnt + "/0")
		return errors.Is(err, fs.ErrNotExist)
	})
	if err := s.RemoveTree("0"); !errors.Is(err, ErrTreeNotExist) {
		t.Errorf("removed twice: %v", err)
	}
	if n := openFDs(t, dir); n != 1 { // of tree 1
		t.Errorf("%d descriptors are left in the tree, want 1", n)
	}
}

func (r *raw) read(fh uint64) string {
	r.t.Helper()
	buf := make([]byte, 4096)
	res, code := r.s.Read(nil, &fuse.ReadIn{Fh: fh, Size: 4096}, buf)
	if !code.Ok() {
		r.t.Fatal(code)
	}
	defer res.Done()
	b, code := res.Bytes(buf)
	if !code.Ok() {
		r.t.Fatal(code)
	}
	return string(b)
}
