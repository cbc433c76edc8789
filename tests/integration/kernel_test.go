package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/tests/harness"
)

// ownKernel is the runtime without the environment's choice of a kernel.
func ownKernel(t *testing.T) *harness.Runtime {
	r := newRuntime(t)
	r.Env = append(r.Env, "RUNV_KERNEL=")
	return r
}

func TestBringYourOwnKernel(t *testing.T) {
	uname := harness.Args("uname", "-r")
	for _, tt := range []struct {
		name   string
		run    func(r *harness.Runtime, kernel string)
		change func(kernel string) harness.Change
	}{
		{"flag", func(r *harness.Runtime, k string) { r.Flags = append(r.Flags, "--kernel", k) }, nil},
		{"environment", func(r *harness.Runtime, k string) { r.Env = append(r.Env, "RUNV_KERNEL="+k) }, nil},
		{"annotation", nil, func(k string) harness.Change {
			return func(s *specs.Spec) { s.Annotations = map[string]string{"io.runv.kernel": k} }
		}},
		{"vm.kernel", nil, func(k string) harness.Change {
			return func(s *specs.Spec) { s.VM = &specs.VM{Kernel: specs.VMKernel{Path: k}} }
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := ownKernel(t)
			b := r.NewBundle(uname)
			// One that no default finds, and that says who it is in its path.
			kernel := filepath.Join(r.Dir, "my-kernel")
			if err := os.Symlink(setup.Kernel, kernel); err != nil {
				t.Fatal(err)
			}
			if tt.run != nil {
				tt.run(r, kernel)
			}
			if tt.change != nil {
				b.Change(t, tt.change(kernel))
			}
			res := r.Run("run", "--bundle", b.Dir, r.NewID())
			if res.Status != 0 || !strings.HasSuffix(strings.TrimSpace(res.Stdout), "-runv") {
				t.Errorf("got status %d, %q, %q", res.Status, res.Stdout, res.Stderr)
			}
			// The same choice of a kernel that is not there is what fails.
			if err := os.Remove(kernel); err != nil {
				t.Fatal(err)
			}
			res = r.Run("run", "--bundle", b.Dir, r.NewID())
			if res.Status != 1 || !strings.Contains(res.Stderr, "my-kernel") {
				t.Errorf("missing: got status %d, %q, want an error that names it", res.Status, res.Stderr)
			}
		})
	}
}

func TestBzImage(t *testing.T) {
	image := filepath.Join(filepath.Dir(setup.Kernel), "bzImage")
	if _, err := os.Stat(image); err != nil {
		t.Skipf("%v (try: make kernel)", err)
	}
	r := ownKernel(t)
	r.Flags = append(r.Flags, "--kernel", image)
	b := r.NewBundle(harness.Args("uname", "-r"))
	if got := r.Must("run", "--bundle", b.Dir, r.NewID()); !strings.HasSuffix(strings.TrimSpace(got), "-runv") {
		t.Errorf("uname -r: got %q", got)
	}
}

// TestDebianKernel runs a distribution's kernel, whose drivers are modules.
func TestDebianKernel(t *testing.T) {
	kernel := os.Getenv("RUNV_TEST_DEBIAN_KERNEL")
	if kernel == "" {
		t.Skip("RUNV_TEST_DEBIAN_KERNEL is not set (try: make test-integration)")
	}
	r := ownKernel(t)
	r.Flags = append(r.Flags, "--kernel", kernel)
	b := r.NewBundle(harness.Shell("uname -r; cat; echo written >/root/file; exit 5"))
	res := r.RunWith(strings.NewReader("input\n"), "run", "--bundle", b.Dir, r.NewID())
	want := strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-") + "\ninput\n"
	if res.Status != 5 || res.Stdout != want {
		t.Errorf("got status %d, %q, %q, want 5, %q", res.Status, res.Stdout, res.Stderr, want)
	}
	if got, err := os.ReadFile(filepath.Join(b.Rootfs, "root/file")); err != nil || string(got) != "written\n" {
		t.Errorf("file on the host: got %q, %v", got, err)
	}
}
