package passthrough

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestManyFiles is one find(1) over many files: each is seen, and few
// descriptors stay.
func TestManyFiles(t *testing.T) {
	dirs, files := 50, 1000
	if testing.Short() {
		dirs, files = 10, 100
	}
	tmp, err := os.MkdirTemp("/dev/shm", "runv") // 50,000 files take a disk half a minute
	if err != nil {
		tmp = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	top := filepath.Join(tmp, "tree")
	for d := range dirs {
		dir := fmt.Sprintf("%s/%d", top, d)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for f := range files {
			if err := unix.Mknod(fmt.Sprintf("%s/a file with number %d", dir, f), unix.S_IFREG|0o644, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	const fds = 128
	s := newServer(t, Options{PathFDs: fds})
	share(t, s, top, false)
	seen := filepath.Join(mount(t, s), "t", "tree")
	n, most := 0, 0
	err = filepath.WalkDir(seen, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n++
		if n%1000 == 0 {
			most = max(most, openFDs(t, top))
		}
		if n%7 == 0 && !e.IsDir() {
			return os.Chmod(p, 0o600) // which needs the file itself
		}
		_, err = e.Info()
		return err
	})
	if err != nil || n != dirs*files+dirs+1 {
		t.Errorf("found %d, %v, want %d", n, err, dirs*files+dirs+1)
	}
	// The cache, the open directories of the walk, the tree and its mount.
	if most == 0 && !testing.Short() || most > fds+8 {
		t.Errorf("%d descriptors open", most)
	}
}

// TestGone uses files whose name is gone, with descriptors evicted all the time.
func TestGone(t *testing.T) {
	dir, seen := mounted(t, Options{PathFDs: minPathFDs})
	write(t, dir+"/open", "content")
	if err := os.Mkdir(dir+"/cwd", 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(seen+"/open", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cwd, err := unix.Open(seen+"/cwd", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(cwd)
	if err := os.Remove(seen + "/open"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(seen + "/cwd"); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		p := fmt.Sprintf("%s/%d", seen, i)
		if err := os.Mkdir(p, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	until(t, patience, "attributes have expired", func() bool { // so that the server is asked
		var st unix.Stat_t
		return unix.Fstat(cwd, &st) == nil && st.Nlink == 0
	})
	if fi, err := f.Stat(); err != nil || fi.Size() != 7 || fi.Sys().(*unixStat).Nlink != 0 {
		t.Errorf("fstat of an unlinked file: %v, %v", fi, err)
	}
	if err := f.Chmod(0o400); err != nil {
		t.Errorf("fchmod of an unlinked file: %v", err)
	}
	if _, err := f.WriteAt([]byte("C"), 0); err != nil {
		t.Errorf("write of an unlinked file: %v", err)
	}
	if err := unix.Fchmodat(cwd, ".", 0o700, 0); err != nil {
		t.Errorf("chmod of a removed directory: %v", err)
	}
	for i := range 200 {
		if fi, err := os.Stat(fmt.Sprintf("%s/%d", seen, i)); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("stat after eviction: %v, %v", fi, err)
		}
	}
}

// TestHostEdits has what the host does seen by the guest within a second.
func TestHostEdits(t *testing.T) {
	dir, seen := mounted(t, Options{})
	write(t, dir+"/file", "before")
	if _, err := os.Stat(seen + "/new"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	f, err := os.Open(seen + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := func() string {
		b := make([]byte, 100)
		n, _ := f.ReadAt(b, 0)
		return string(b[:n])
	}
	if at() != "before" {
		t.Fatalf("read %q", at())
	}
	write(t, dir+"/new", "x")
	write(t, dir+"/file", "after!") // the same size
	if got := read(t, seen+"/file"); got != "after!" {
		t.Errorf("opened after the edit: %q", got)
	}
	until(t, time.Second, "the edit is seen in the open file", func() bool { return at() == "after!" })
	until(t, time.Second, "the new file is seen", func() bool { _, err := os.Stat(seen + "/new"); return err == nil })
	if err := os.Rename(dir+"/new", dir+"/moved"); err != nil {
		t.Fatal(err)
	}
	until(t, time.Second, "the renamed file is gone", func() bool { _, err := os.Stat(seen + "/new"); return errors.Is(err, fs.ErrNotExist) })
	if got := read(t, seen+"/moved"); got != "x" {
		t.Errorf("renamed on the host: %q", got)
	}
	if err := os.Remove(dir + "/moved"); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/moved", "another") // perhaps with the same inode number
	if got := read(t, seen+"/moved"); got != "another" {
		// An open goes by the name's entry, which may be half a second old.
		until(t, time.Second, "the new file is read", func() bool { return read(t, seen+"/moved") == "another" })
	}
	// Appending beside the host loses nothing.
	a, err := os.OpenFile(seen+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	h, err := os.OpenFile(dir+"/log", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for range 20 {
		a.WriteString("guest\n") //nolint:errcheck // read tells
		h.WriteString("host\n")  //nolint:errcheck // read tells
	}
	if got := read(t, dir+"/log"); strings.Count(got, "guest\n") != 20 || strings.Count(got, "host\n") != 20 || len(got) != 20*11 {
		t.Errorf("the log has %q", got)
	}
}

// names returns the names in what getdents returned.
func names(b []byte) (all []string) {
	for len(b) > 0 {
		var e fuse.DirEntry
		b = b[e.Parse(b):]
		all = append(all, e.Name)
	}
	return all
}

// TestBigDirectory reads a directory of many entries with seeks.
func TestBigDirectory(t *testing.T) {
	dir, seen := mounted(t, Options{})
	want := map[string]bool{}
	for i := range 5000 {
		name := fmt.Sprintf("%d%s", i, strings.Repeat("x", i%200))
		want[name] = true
		if err := unix.Mknod(dir+"/"+name, unix.S_IFREG|0o644, 0); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(seen)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for round := range 2 {
		names, err := f.Readdirnames(-1)
		if err != nil || len(names) != len(want) {
			t.Fatalf("round %d: %d names, %v", round, len(names), err)
		}
		for _, n := range names {
			if !want[n] {
				t.Fatalf("round %d: %q", round, n)
			}
		}
		if _, err := f.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 4096)
	if n, err := unix.ReadDirent(int(f.Fd()), buf); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	pos, err := unix.Seek(int(f.Fd()), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 4096)
	n, err := unix.ReadDirent(int(f.Fd()), first)
	if err != nil {
		t.Fatal(err)
	}
	for { // to the end, then back
		if n, err := unix.ReadDirent(int(f.Fd()), buf); err != nil || n == 0 {
			break
		}
	}
	if _, err := unix.Seek(int(f.Fd()), pos, 0); err != nil {
		t.Fatal(err)
	}
	again, err := unix.ReadDirent(int(f.Fd()), buf)
	if got, want := names(buf[:again]), names(first[:n]); err != nil || !slices.Equal(got, want) {
		t.Errorf("after seeking back: %q, %v, want %q", got, err, want)
	}
}
