package kernel

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const testDep = `kernel/fs/fuse/fuse.ko:
kernel/fs/fuse/virtiofs.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko kernel/fs/fuse/fuse.ko
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_mmio.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko.gz: kernel/net/vmw_vsock/vsock.ko.gz kernel/drivers/virtio/virtio.ko
kernel/net/vmw_vsock/vsock.ko.gz:
kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/other.ko:
`

// tree makes a /lib/modules with the given index files for release.
func tree(t *testing.T, release string, files map[string]string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "lib", "modules")
	dir := filepath.Join(root, release)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestModules(t *testing.T) {
	root := tree(t, "6.1.0-1", map[string]string{"modules.dep": testDep, "modules.builtin": "kernel/fs/overlayfs/overlay.ko\n"})
	got, err := Modules("6.1.0-1", filepath.Join(t.TempDir(), "none"), root)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, m := range got {
		paths = append(paths, m.Path)
	}
	want := []string{
		"/lib/modules/6.1.0-1/kernel/drivers/virtio/virtio.ko",
		"/lib/modules/6.1.0-1/kernel/drivers/virtio/virtio_ring.ko",
		"/lib/modules/6.1.0-1/kernel/drivers/virtio/virtio_mmio.ko",
		"/lib/modules/6.1.0-1/kernel/net/vmw_vsock/vsock.ko",
		"/lib/modules/6.1.0-1/kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko",
		"/lib/modules/6.1.0-1/kernel/fs/fuse/fuse.ko",
		"/lib/modules/6.1.0-1/kernel/fs/fuse/virtiofs.ko",
		"/lib/modules/6.1.0-1/kernel/drivers/char/hw_random/virtio-rng.ko",
	}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	wantM := Module{
		Name: "vsock", Path: "/lib/modules/6.1.0-1/kernel/net/vmw_vsock/vsock.ko",
		File: filepath.Join(root, "6.1.0-1/kernel/net/vmw_vsock/vsock.ko.gz"),
	}
	if diff := cmp.Diff(wantM, got[3]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestModulesMonolithic(t *testing.T) {
	for _, release := range []string{"", "6.1.192-runv"} {
		got, err := Modules(release, t.TempDir())
		if got != nil || err != nil {
			t.Errorf("%q: got %v, %v, want none", release, got, err)
		}
	}
	builtin := "kernel/virtio_mmio.ko\nkernel/vmw_vsock_virtio_transport.ko\nkernel/virtiofs.ko\n"
	root := tree(t, "6.2", map[string]string{"modules.dep": "", "modules.builtin": builtin})
	got, err := Modules("6.2", root)
	if len(got) != 0 || err != nil {
		t.Errorf("all built in: got %v, %v, want none", got, err)
	}
}

func TestModulesErrors(t *testing.T) {
	tests := []struct {
		name, release string
		files         map[string]string
		want          string
	}{
		{"release", "../6.1", nil, "is not a name"},
		{"no depmod", "6.1", nil, "run depmod -b "},
		{"no virtio", "6.1", map[string]string{"modules.dep": ""}, "has no virtio_mmio"},
		{"no colon", "6.1", map[string]string{"modules.dep": "a.ko\n"}, "line 1: \"a.ko\" has no colon"},
		{"absolute", "6.1", map[string]string{"modules.dep": "\n/etc/a.ko:\n"}, "line 2: \"/etc/a.ko\" is not"},
		{"outside", "6.1", map[string]string{"modules.dep": "a.ko: ../../a.ko\n"}, "is not the path"},
		{"gone", "6.1", map[string]string{"modules.dep": "virtio_mmio.ko: virtio.ko\n"}, "virtio is needed and missing"},
		{"loop", "6.1", map[string]string{"modules.dep": "virtio_mmio.ko: b.ko\nb.ko: virtio_mmio.ko\n"}, "depends on itself"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Modules(tt.release, tree(t, "6.1", tt.files))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestModuleRead(t *testing.T) {
	dir := t.TempDir()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write([]byte("\x7fELF")) //nolint:errcheck // into memory
	w.Close()
	tests := []struct {
		file, content, want string
	}{
		{"a.ko", "\x7fELF", ""},
		{"b.ko.gz", z.String(), ""},
		{"c.ko.gz", "plain ELF data", "invalid header"},
		{"d.ko.xz", "x", "unxz"},
		{"e.ko.zst", "x", "unzstd"},
		{"f.ko.lz4", "x", "unknown compression"},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			m := Module{Name: "m", File: filepath.Join(dir, tt.file)}
			if err := os.WriteFile(m.File, []byte(tt.content), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := m.Read()
			if tt.want == "" {
				if err != nil || string(got) != "\x7fELF" {
					t.Errorf("got %q, %v", got, err)
				}
			} else if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func FuzzParseDep(f *testing.F) {
	f.Add(testDep)
	f.Add("a.ko: b.ko\nb.ko: a.ko\n")
	f.Fuzz(func(t *testing.T, s string) {
		deps, err := parseDep(strings.NewReader(s))
		if err != nil {
			return
		}
		r := resolver{deps: deps, done: make(map[string]bool)}
		for name := range deps {
			if err := r.add(name, 0); err != nil {
				return
			}
		}
		if len(r.order) != len(deps) {
			t.Errorf("%d modules in order, want %d", len(r.order), len(deps))
		}
	})
}
