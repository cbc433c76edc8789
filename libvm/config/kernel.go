package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Search is where FindKernel looks when no kernel was named.
type Search struct {
	// Binary is the path of the runv program; empty: its surroundings are not
	// searched.
	Binary string
	// Dirs hold a file vmlinux each.
	Dirs []string
	// Cache is the cache directory of builds; empty: not searched.
	Cache string
}

// DefaultSearch is the search list of an installed runv: next to the program,
// in PREFIX/share, and what `make kernel` left in the cache.
func DefaultSearch(getenv func(string) string) Search {
	s := Search{Dirs: []string{"/usr/local/share/runv", "/usr/share/runv"}, Cache: cacheDir(getenv)}
	if exe, err := os.Executable(); err == nil {
		s.Binary = exe
	}
	return s
}

// cacheDir is RUNV_CACHE, or runv in the user's cache; empty if there is none.
func cacheDir(getenv func(string) string) string {
	if v := getenv(EnvCache); v != "" {
		return v
	}
	if v := getenv("XDG_CACHE_HOME"); filepath.IsAbs(v) {
		return filepath.Join(v, "runv")
	}
	if v := getenv("HOME"); v != "" {
		return filepath.Join(v, ".cache", "runv")
	}
	return ""
}

// FindKernel gives the absolute path of the guest's kernel: the one that was
// named, or the first regular file of the search list. Its error says where it
// looked and what to do.
func (c Config) FindKernel(s Search) (string, error) {
	if c.Kernel != "" {
		if err := regular(c.Kernel); err != nil {
			return "", fmt.Errorf("kernel (%s): %w", cmp.Or(c.KernelFrom, "configuration"), err)
		}
		return c.Kernel, nil
	}
	looked := s.paths()
	for _, path := range looked {
		if regular(path) == nil {
			return filepath.Abs(path)
		}
	}
	if s.Cache != "" {
		pattern := filepath.Join(s.Cache, "kernel", "*", "vmlinux")
		if path := newest(pattern); path != "" {
			return filepath.Abs(path)
		}
		looked = append(looked, pattern)
	}
	return "", fmt.Errorf("no guest kernel found (looked for %s): run: make kernel, or pass --kernel FILE", strings.Join(looked, ", "))
}

// paths lists the files to look for, in order.
func (s Search) paths() []string {
	var out []string
	if s.Binary != "" {
		dir := filepath.Dir(s.Binary)
		out = append(out, filepath.Join(dir, "vmlinux"), filepath.Join(dir, "..", "share", "runv", "vmlinux"))
	}
	for _, dir := range s.Dirs {
		out = append(out, filepath.Join(dir, "vmlinux"))
	}
	return out
}

// newest gives the file of a pattern that was written last; empty if none is.
func newest(pattern string) string {
	matches, err := filepath.Glob(pattern)
	if err != nil {
		return ""
	}
	var best string
	var when time.Time
	for _, m := range matches {
		st, err := os.Stat(m)
		if err == nil && st.Mode().IsRegular() && (best == "" || st.ModTime().After(when)) {
			best, when = m, st.ModTime()
		}
	}
	return best
}

// regular says why a path is not a file that can be opened.
func regular(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	return nil
}
