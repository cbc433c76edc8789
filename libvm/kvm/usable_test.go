package kvm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What a probe found out is kept, until the next boot of the host.
func TestUsableKeepsTheVerdict(t *testing.T) {
	b := backend(t)
	path := t.TempDir()
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	first := b.Usable(context.Background(), dir)
	if first != nil && !errors.Is(first, ErrSlow) {
		t.Fatal(first)
	}
	cache := filepath.Join(path, cacheName)
	kept, err := os.ReadFile(cache)
	if err != nil {
		t.Fatal(err)
	}
	// Nothing can be probed with a context that has ended: this is the cache's.
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	again := b.Usable(ended, dir)
	if (first == nil) != (again == nil) || first != nil && (again.Error() != first.Error() || !errors.Is(again, ErrSlow)) {
		t.Errorf("first %v, then %v", first, again)
	}
	for _, stale := range []string{`{"bootID":"another","slow":"was"}`, "", "{", `{"bootID":`} {
		if err := os.WriteFile(cache, []byte(stale), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := b.Usable(context.Background(), dir); (err == nil) != (first == nil) {
			t.Errorf("with the cache %q: got %v, want %v", stale, err, first)
		}
		if now, err := os.ReadFile(cache); err != nil || len(now) != len(kept) && first == nil {
			t.Errorf("the cache %q became %q, %v", stale, now, err)
		}
	}
}

// A cache that is a trap is not followed, and not waited for.
func TestUsableWithoutACache(t *testing.T) {
	b := backend(t)
	path := t.TempDir()
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	victim := filepath.Join(path, "victim")
	if err := os.Symlink(victim, filepath.Join(path, cacheName)); err != nil {
		t.Fatal(err)
	}
	if err := b.Usable(context.Background(), dir); err != nil && !errors.Is(err, ErrSlow) {
		t.Error(err)
	}
	if _, err := os.Lstat(victim); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link's target: %v", err)
	}
}
