// Package posix runs go-fuse's test suite of POSIX semantics inside a container,
// on its root file system and on a bind mount: what a workload sees of virtio-fs
// through the guest's kernel.
package posix

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/tests/harness"
)

// mayPass is skipped by the suite itself where the host's file system cannot
// hold a large attribute (ext4: one block for all of a file's).
const mayPass = "XAttrLarge"

// envDir is set in the guest: the directory to test.
const envDir = "RUNV_POSIX_DIR"

// exceptions are the tests of the suite that do not apply, with the reason.
var exceptions = map[string]string{
	"FcntlFlockLocksFile": "the suite marks it as broken and does not run it itself",
	"OpenSymlinkRace":     "the race is in the kernel's path walk; the suite does not run it itself",
}

var setup *harness.Setup

func TestMain(m *testing.M) {
	if os.Getenv(envDir) != "" {
		os.Exit(m.Run())
	}
	os.Exit(harness.Main(m, "../../scripts/rootfs.sh", func(s *harness.Setup) { setup = s }))
}

// TestSuite is what runs in the guest.
func TestSuite(t *testing.T) {
	dir := os.Getenv(envDir)
	if dir == "" {
		t.Skip("runs in the guest only, through TestGuest")
	}
	for name, fn := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if why := exceptions[name]; why != "" {
				t.Skip(why)
			}
			sub, err := os.MkdirTemp(dir, name)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(sub) }) //nolint:errcheck // the container goes anyway
			fn(t, sub)
		})
	}
}

func TestGuest(t *testing.T) {
	r := harness.New(t, setup)
	bind := filepath.Join(r.Dir, "bind")
	if err := os.Mkdir(bind, 0o777); err != nil {
		t.Fatal(err)
	}
	b := r.NewBundle(func(s *specs.Spec) {
		s.Process.Args = []string{"/posix.test", "-test.v", "-test.run", "^TestSuite$"}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/bind", Type: "bind", Source: bind, Options: []string{"rbind"}})
	}, everyCapability)
	build(t, filepath.Join(b.Rootfs, "posix.test"))
	for _, dir := range []string{"/root", "/bind"} {
		t.Run(strings.TrimPrefix(dir, "/"), func(t *testing.T) {
			b.Change(t, func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, envDir+"="+dir) })
			res := r.Run("run", "--bundle", b.Dir, r.NewID())
			if res.Status != 0 {
				t.Errorf("the suite exited %d:\n%s%s", res.Status, res.Stdout, res.Stderr)
			}
			check(t, res.Stdout)
		})
	}
}

// check looks at each test of the suite by name: none may have gone missing.
func check(t *testing.T, out string) {
	t.Helper()
	var passed, skipped int
	for name := range posixtest.All {
		result := regexp.MustCompile(`(?m)^\s+--- (\w+): TestSuite/` + name + ` `).FindStringSubmatch(out)
		switch {
		case result == nil:
			t.Errorf("%s did not run", name)
		case result[1] == "PASS":
			passed++
		case result[1] == "SKIP" && (exceptions[name] != "" || name == mayPass):
			skipped++
		default:
			t.Errorf("%s: %s", name, result[1])
		}
	}
	t.Logf("%d passed, %d excepted", passed, skipped)
}

// build compiles this very test, static, for the guest.
func build(t *testing.T, path string) {
	t.Helper()
	cmd := exec.Command("go", "test", "-c", "-o", path, ".")
	cmd.Env = append(slices.Clone(os.Environ()), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the suite: %v\n%s", err, out)
	}
}

// everyCapability gives the process what the suite needs as root: to change
// owners, to make nodes, to be refused nothing.
func everyCapability(s *specs.Spec) {
	all := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
		"CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE",
	}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
}
