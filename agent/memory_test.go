package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAddMemory: what the kernel's files are told, by files that keep it.
func TestAddMemory(t *testing.T) {
	const block = 128 << 20
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  map[string]string // contents then; nil: an error
		err   string
	}{
		{"taken", map[string]string{"block_size_bytes": "8000000\n", "probe": "", "memory9/state": "offline\n"},
			map[string]string{"probe": "0x48000000", "memory9/state": "online"}, ""},
		{"online by itself", map[string]string{"block_size_bytes": "8000000\n", "probe": "", "memory9/state": "online\n"},
			map[string]string{"probe": "0x48000000", "memory9/state": "online\n"}, ""},
		{"other blocks", map[string]string{"block_size_bytes": "80000000\n", "probe": ""}, nil, "takes memory by `80000000` bytes"},
		{"no number", map[string]string{"block_size_bytes": "x", "probe": ""}, nil, "takes memory by `x` bytes"},
		{"no probe", map[string]string{"block_size_bytes": "8000000\n"}, nil, "CONFIG_ARCH_MEMORY_PROBE"},
		{"no hotplug", nil, nil, "CONFIG_MEMORY_HOTPLUG"},
		{"no block", map[string]string{"block_size_bytes": "8000000\n", "probe": ""}, nil, "memory9/state: no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range tt.files {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			err := addMemory(dir, 9*block, block)
			if tt.want == nil {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range tt.want {
				// The files of sysfs begin anew at each write; these have the end of
				// what was there before behind it.
				if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !strings.HasPrefix(string(got), want) {
					t.Errorf("%s: %q, %v, want %q", name, got, err, want)
				}
			}
		})
	}
}
