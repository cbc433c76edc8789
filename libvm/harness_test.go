package libvm

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/libvmtest"
	"runv/libvm/monitor"
	"runv/libvm/state"
)

// The test program is also what the library starts from /proc/self/exe.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case monitor.Command:
			os.Exit(libvmtest.Monitor())
		case ProxyCommand:
			status, err := Proxy(os.Args[2:])
			if err != nil {
				status = 1
			}
			os.Exit(status)
		}
	}
	// A program with the race detector waits a second at its end otherwise.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// testRuntime has a root of its own, and nothing left in it at the end.
func testRuntime(t *testing.T) *Runtime {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("monitors need new namespaces (try: sudo go test)")
	}
	kernel := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(kernel, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// Orphans come to us, as to an engine's shim.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	r := &Runtime{Root: filepath.Join(t.TempDir(), "root"), Log: slog.New(slog.DiscardHandler), Kernel: kernel}
	t.Cleanup(func() {
		ids, _ := state.List(r.Root)
		for _, id := range ids {
			t.Errorf("container %s was left", id)
			if err := r.Delete(context.Background(), id, true); err != nil {
				t.Error(err)
			}
		}
	})
	return r
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// bundleOf makes a bundle that runs args.
func bundleOf(t *testing.T, change func(*specs.Spec), args ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	spec := specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Cwd: "/", Args: args, Env: []string{"PATH=" + os.Getenv("PATH")}},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.NetworkNamespace},
			},
			// The ids are those of other tests, too.
			CgroupsPath: "/runv-" + strings.ReplaceAll(dir[1:], "/", "-"),
		},
	}
	if change != nil {
		change(&spec)
	}
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func annotate(key, value string) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Annotations = map[string]string{key: value} }
}

// created makes a container that is deleted at the end of the test.
func created(t *testing.T, r *Runtime, id string, args ...string) {
	t.Helper()
	if err := r.Create(testContext(t), CreateOptions{ID: id, Bundle: bundleOf(t, nil, args...)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Delete(context.Background(), id, true); err != nil {
			t.Error(err)
		}
	})
}

func started(t *testing.T, r *Runtime, id string, args ...string) {
	t.Helper()
	created(t, r, id, args...)
	if err := r.StartContainer(testContext(t), id); err != nil {
		t.Fatal(err)
	}
}

func status(t *testing.T, r *Runtime, id string) state.Status {
	t.Helper()
	s, err := r.State(id)
	if err != nil {
		t.Fatal(err)
	}
	return s.Status
}

// eventually waits until ok, or fails.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
