// Package conformance runs the validation programs of runtime-tools, which ask
// a runtime for what runtime-spec promises, and compares what they say with
// expected.toml. scripts/conformance.sh builds the programs and calls it.
package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

const (
	// envPrograms is the directory of the built programs, with what they want
	// beside them: runtimetest and a rootfs.
	envPrograms = "RUNV_CONFORMANCE_PROGRAMS"
	// envRuntime is whom to ask: runv (the default), runc or crun, of which the
	// outcome alone is compared.
	envRuntime = "RUNV_CONFORMANCE_RUNTIME"

	expectedFile = "expected.toml"
)

// beside are the files among the programs that are no programs.
var beside = []string{"runtimetest", "rootfs-amd64.tar.gz"}

var setup *harness.Setup

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m, "../../scripts/rootfs.sh", func(s *harness.Setup) { setup = s }))
}

// TestExpectedFile holds the file against its own rules.
func TestExpectedFile(t *testing.T) {
	if _, err := readExpected(expectedFile); err != nil {
		t.Error(err)
	}
}

func TestValidation(t *testing.T) {
	dir := os.Getenv(envPrograms)
	if dir == "" {
		t.Skip("the programs are not built (try: make conformance)")
	}
	expected, err := readExpected(expectedFile)
	if err != nil {
		t.Fatal(err)
	}
	names := programs(t, dir)
	for name := range expected {
		if !slices.Contains(names, name) {
			t.Errorf("%s: %s is no program", expectedFile, name)
		}
	}
	if os.Getenv(envRuntime) == "crun" {
		_ = unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH) // the harness's namespace is ours
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			want, ok := expected[name]
			if !ok {
				t.Fatalf("%s says nothing of it", expectedFile)
			}
			validate(t, filepath.Join(dir, name), want)
		})
	}
}

// programs lists those in the directory.
func programs(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if !slices.Contains(beside, e.Name()) {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		t.Fatalf("no program in %s", dir)
	}
	return names
}

// validate runs one program and judges what it said.
func validate(t *testing.T, program string, want expectation) {
	r := harness.New(t, setup)
	// Some make 32 containers, one after the other.
	defer func(d time.Duration) { harness.Limit = d }(harness.Limit)
	harness.Limit *= 8
	// A user namespace's root has to find the bundle.
	for _, dir := range []string{setup.Dir, r.Dir, filepath.Join(r.Dir, "tmp")} {
		if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // it is to be found
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program)
	cmd.Dir = filepath.Dir(program) // where it looks for what is beside it
	cmd.Env = append(os.Environ(), append(r.Env, "RUNTIME="+wrapper(t, r))...)
	res := r.Finish(cmd)
	collect(t, r)
	got := parse(res.Stdout)
	t.Logf("%s in %v: %d assertions hold, not %q", got.outcome(res.Status), res.Took.Round(1e7), got.passed, got.failed)
	var diff string
	switch os.Getenv(envRuntime) {
	case "runc":
		diff = outcomeDiffers(got.outcome(res.Status), want.Runc)
	case "crun":
		diff = outcomeDiffers(got.outcome(res.Status), want.Crun)
	default:
		diff = want.differs(got, res.Status)
	}
	if diff != "" {
		t.Errorf("%s\n%s%s", diff, res.Stdout, res.Stderr)
	}
}

func outcomeDiffers(got, want string) string {
	if got == want {
		return ""
	}
	return fmt.Sprintf("outcome: got %s, want %s", got, want)
}

// asRuntime are the programs that a wrapper becomes. crun 1.8.1 does not know
// the version of the specification that the programs write, nor (TestValidation)
// hybrid control groups.
var asRuntime = map[string]string{
	// linux_ns_itype asks for the host's network, and looks at /proc/<pid>/ns alone.
	"":     `export RUNV_HOST_NETWORK=none; exec "$RUNV" --root "$ROOT" "$@"`,
	"runc": `exec runc --root "$ROOT" "$@"`,
	"crun": `previous=
for a in "$@"; do
	[ "$previous" != --bundle ] || sed -i 's/"ociVersion": *"1[^"]*"/"ociVersion":"1.0.2"/' "$a/config.json"
	previous=$a
done
exec crun --cgroup-manager=cgroupfs --root "$ROOT" "$@"`,
}

// wrapper makes the program that is RUNTIME: a path, without arguments.
func wrapper(t *testing.T, r *harness.Runtime) string {
	t.Helper()
	name := os.Getenv(envRuntime)
	if name == "runv" {
		name = ""
	}
	script, ok := asRuntime[name]
	if !ok {
		t.Fatalf("%s=%q is no runtime that is known here", envRuntime, name)
	}
	path := filepath.Join(r.Dir, "runtime")
	text := fmt.Sprintf("#!/bin/bash\nexport RUNV=%s ROOT=%s\n%s\n", r.Setup.Runv, r.Root, script)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	return path
}

// collect does for the program what an engine does, and it does not: it deletes
// the containers that are left, reaps their processes, and removes the bundles.
func collect(t *testing.T, r *harness.Runtime) {
	t.Helper()
	entries, _ := os.ReadDir(r.Root) // it may have made no container
	for _, e := range entries {
		cmd := exec.Command(filepath.Join(r.Dir, "runtime"), "delete", "--force", e.Name())
		cmd.Env = append(os.Environ(), r.Env...)
		if res := r.Finish(cmd); res.Status != 0 {
			t.Errorf("delete --force %s: status %d: %s", e.Name(), res.Status, res.Stderr)
		}
	}
	harness.ReapAll()
	// A container without a mount namespace mounts in the caller's: as asked, but
	// nobody shall delete /sys by way of its bundle.
	for _, m := range mountsBelow(t, r.Dir) {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			t.Fatalf("unmount %s: %v", m, err)
		}
	}
	bundles, err := filepath.Glob(filepath.Join(r.Dir, "tmp", "ocitest*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bundles {
		if err := os.RemoveAll(b); err != nil {
			t.Errorf("the bundle is in use: %v", err)
		}
	}
}

// mountsBelow lists the mount points below a directory, the last one first.
func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, m := range mounts {
		paths = append(paths, m.Mountpoint)
	}
	slices.Reverse(paths)
	return paths
}
