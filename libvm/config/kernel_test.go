package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// touch makes a file, written so many hours ago.
func touch(t *testing.T, path string, hours int) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	when := time.Now().Add(-time.Duration(hours) * time.Hour)
	if err := os.Chtimes(path, when, when); err != nil {
		t.Fatal(err)
	}
	return path
}

// Each place is found when those before it are empty.
func TestFindKernel(t *testing.T) {
	dir := t.TempDir()
	s := Search{Binary: dir + "/bin/runv", Dirs: []string{dir + "/a", dir + "/b"}, Cache: dir + "/cache"}
	find := func(c Config, want string) {
		t.Helper()
		got, err := c.FindKernel(s)
		if err != nil || got != want {
			t.Errorf("found %q, %v; want %q", got, err, want)
		}
	}
	touch(t, dir+"/cache/kernel/6.1-old/vmlinux", 3)
	newer := touch(t, dir+"/cache/kernel/5.0-new/vmlinux", 1)
	find(Config{}, newer)
	b := touch(t, dir+"/b/vmlinux", 9)
	find(Config{}, b)
	a := touch(t, dir+"/a/vmlinux", 9)
	find(Config{}, a)
	share := touch(t, dir+"/share/runv/vmlinux", 9)
	find(Config{}, share)
	if err := os.MkdirAll(dir+"/bin/vmlinux", 0o755); err != nil {
		t.Fatal(err)
	}
	find(Config{}, share) // a directory is no kernel
	if err := os.Remove(dir + "/bin/vmlinux"); err != nil {
		t.Fatal(err)
	}
	beside := touch(t, dir+"/bin/vmlinux", 9)
	find(Config{}, beside)
	find(Config{Kernel: newer}, newer)
}

func TestFindKernelErrors(t *testing.T) {
	dir := t.TempDir()
	_, err := Config{}.FindKernel(Search{Binary: dir + "/bin/runv", Dirs: []string{dir + "/a"}, Cache: dir + "/cache"})
	for _, want := range []string{
		"no guest kernel found", dir + "/bin/vmlinux", dir + "/share/runv/vmlinux", dir + "/a/vmlinux",
		dir + "/cache/kernel/*/vmlinux", "run: make kernel, or pass --kernel FILE",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	_, err = Config{Kernel: dir + "/x", KernelFrom: "--kernel"}.FindKernel(Search{})
	if want := "kernel (--kernel): stat " + dir + "/x: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	_, err = Config{Kernel: dir}.FindKernel(Search{})
	if err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("error %v, want it to refuse a directory", err)
	}
}

func TestCacheDir(t *testing.T) {
	for _, tt := range []struct {
		env  []string
		want string
	}{
		{[]string{"RUNV_CACHE", "/c", "XDG_CACHE_HOME", "/x", "HOME", "/h"}, "/c"},
		{[]string{"XDG_CACHE_HOME", "/x", "HOME", "/h"}, "/x/runv"},
		{[]string{"XDG_CACHE_HOME", "rel", "HOME", "/h"}, "/h/.cache/runv"},
		{nil, ""},
	} {
		if got := DefaultSearch(env(tt.env...)).Cache; got != tt.want {
			t.Errorf("%v: cache %q, want %q", tt.env, got, tt.want)
		}
	}
}
