package setup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestResolve(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{
		"abs": "/a", "rel": "a/b", "up": "../../../../a", "a/back": "..", "dangling": "/x/y",
		"loop": "loop", "chain": "abs/b", "dots": "/a/../../..",
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ in, want string }{
		{"/", ""}, {"", ""}, {"/a/b", "a/b"}, {"a//./b/", "a/b"}, {"/../../a", "a"}, {"/a/b/../..", ""},
		{"/abs/b", "a/b"}, {"/rel/new/dir", "a/b/new/dir"}, {"/up/b", "a/b"}, {"/a/back/a", "a"},
		{"/dangling/z", "x/y/z"}, {"/chain", "a/b"}, {"/dots/a", "a"}, {"/new/../../a", "a"}, {"/file/x", "file/x"},
	}
	for _, tt := range tests {
		if got, err := resolve(root, tt.in); got != tt.want || err != nil {
			t.Errorf("%q: %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
	if _, err := resolve(root, "/loop"); err == nil {
		t.Error("a loop is resolved")
	}
}

func FuzzResolve(f *testing.F) {
	root := f.TempDir()
	if err := os.Symlink("../../etc", filepath.Join(root, "l")); err != nil {
		f.Fatal(err)
	}
	f.Add("/l/../../x")
	f.Fuzz(func(t *testing.T, name string) {
		if got, err := resolve(root, name); err == nil && got != "" && !filepath.IsLocal(got) {
			t.Errorf("%q leads to %q", name, got)
		}
	})
}

// What is made under a root stays in it, and a symlink that appears after the
// path was resolved is not followed.
func TestRootDir(t *testing.T) {
	base := t.TempDir()
	root, out := filepath.Join(base, "root"), filepath.Join(base, "out")
	for _, d := range []string{root, out} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r, err := openRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if err := os.Symlink("../out", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	fd, err := r.file("/link/sub/file")
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if _, err := os.Stat(filepath.Join(root, "out/sub/file")); err != nil {
		t.Error(err)
	}
	if e, _ := os.ReadDir(out); len(e) != 0 {
		t.Errorf("made outside: %v", e)
	}
	if fd, err := r.walk("link/evil"); err == nil {
		unix.Close(fd)
		t.Error("walked through a symlink")
	}
	fd, err = r.dir("/link/dir")
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if fi, err := os.Stat(filepath.Join(root, "out/dir")); err != nil || !fi.IsDir() {
		t.Error(err)
	}
}

func TestMergeDevices(t *testing.T) {
	mode := os.FileMode(0o600)
	got := MergeDevices([]specs.LinuxDevice{
		{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229},
		{Path: "/dev/./null", Type: "c", Major: 1, Minor: 3, FileMode: &mode},
	})
	var paths []string
	for _, d := range got {
		paths = append(paths, d.Path)
	}
	want := []string{"/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/fuse", "/dev/./null"}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Error(diff)
	}
}
