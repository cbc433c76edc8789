package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/libvm/apparmor"
	"runv/tests/harness"
)

// The profiles of scripts/test-lsm.profiles.
const (
	vmProfile = "runv-test"
	noProfile = "runv-nothing"
)

func newAppArmor(t *testing.T) *harness.Runtime {
	t.Helper()
	loaded, err := os.ReadFile("/sys/kernel/security/apparmor/profiles")
	if !apparmor.Enabled() || err != nil || !strings.Contains(string(loaded), vmProfile+" (") {
		withoutModule(t, "apparmor", "the host has no AppArmor, or not the profiles of the tests")
	}
	return newRuntime(t)
}

// withoutModule skips a test of a security module, but not where it has to be.
func withoutModule(t *testing.T, module, what string) {
	t.Helper()
	if os.Getenv("RUNV_TEST_LSM") == module {
		t.Fatal(what)
	}
	t.Skipf("%s (try: make test-%s)", what, module)
}

func under(profile string) harness.Change {
	return func(s *specs.Spec) { s.Process.ApparmorProfile = profile }
}

// profilesOf returns the profiles of all threads of a process of the host, with how
// many have each.
func profilesOf(t *testing.T, pid int) map[string]int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/attr/apparmor/current", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("threads of %d: %v, %v", pid, files, err)
	}
	found := map[string]int{}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil { // or it has ended
			found[strings.TrimSpace(string(b))]++
		}
	}
	return found
}

// TestAppArmor: every thread of what a container is on the host has its profile,
// and that holds for what the guest does to files, by the container's paths.
func TestAppArmor(t *testing.T) {
	r := newAppArmor(t)
	dir := filepath.Join(r.Dir, "o")
	makeTree(t, dir, map[string]string{"lower/f": "below", "upper/x": "", "work/x": "", "own/secret": "s", "own/proc/f": "", "data/secret": "open"})
	if err := os.Remove(dir + "/work/x"); err != nil {
		t.Fatal(err)
	}
	mounts := withMounts(
		specs.Mount{
			Destination: "/m", Type: "overlay", Source: "overlay",
			Options: []string{"lowerdir=" + dir + "/lower", "upperdir=" + dir + "/upper", "workdir=" + dir + "/work"},
		},
		specs.Mount{Destination: "/own", Type: "bind", Source: dir + "/own", Options: []string{"bind"}},
		specs.Mount{Destination: "/data", Type: "bind", Source: dir + "/data", Options: []string{"bind"}},
	)
	for _, name := range []string{"one process", "stand-in"} {
		t.Run(name, func(t *testing.T) {
			r.In(t)
			changes := []harness.Change{harness.Args("sleep", "1000"), under(vmProfile), mounts}
			if name == "stand-in" {
				changes = append(changes, mapped)
			}
			b := r.NewBundle(changes...)
			makeTree(t, b.Dir+"/rootfs", map[string]string{"secret": "s", "open": "o"})
			c := r.Create(b).Start()
			defer c.End()
			processes := harness.Descendants(os.Getpid())
			if len(processes) == 0 {
				t.Fatal("no process of the container")
			}
			for _, p := range processes {
				if got := profilesOf(t, p.PID); len(got) != 1 || got[vmProfile+" (enforce)"] == 0 {
					t.Errorf("profiles of the threads of %s: got %v", p, got)
				}
			}
			if name == "stand-in" {
				monitor := monitorOf(t, c)
				t.Cleanup(func() { harness.Reap(t, monitor) })
				return // its user owns none of the files
			}
			if got := c.Exec("cat /open /data/secret /m/f && echo new >/own/proc/f && echo new >/m/n && mkdir /made && ln /open /made/l && mv /made/l /own2"); got.Status != 0 || got.Stdout != "oopenbelow" {
				t.Errorf("what the profile allows: got %+v", got)
			}
			for _, file := range []string{"/secret", "/own/secret"} {
				if got := c.Exec("cat " + file); got.Status == 0 || !strings.Contains(got.Stderr, "Permission denied") {
					t.Errorf("%s, which the profile forbids: got %+v", file, got)
				}
			}
			if got := r.Run("exec", "--apparmor", vmProfile, c.ID, "echo", "in"); got.Status != 0 || got.Stdout != "in\n" {
				t.Errorf("exec under the container's: got %+v", got)
			}
			refused(t, r, "is not the container's", 255, "exec", "--apparmor", noProfile, c.ID, "true")
			r.Must("pause", c.ID)
			r.Must("resume", c.ID)
		})
	}
}

// TestAppArmorRefuses: a profile that is not loaded, and one under which there can
// be no VM, are one error, and unconfined is none at all.
func TestAppArmorRefuses(t *testing.T) {
	r := newAppArmor(t)
	b := r.NewBundle(harness.Args("echo", "in"), under("no-such-profile"))
	refused(t, r, "unable to apply apparmor profile: apparmor failed to apply profile: write /proc/thread-self/attr/apparmor/exec: no such file or directory", 1,
		"run", "--bundle", b.Dir, r.NewID())
	b.Change(t, under(noProfile))
	words := noProfile + " forbids what a VM needs" // our own VMM
	if os.Getenv("RUNV_BACKEND") == "qemu" {
		words = "the AppArmor profile " + noProfile + " may forbid what a VM needs"
	}
	refused(t, r, words, 1, "run", "--bundle", b.Dir, r.NewID())
	b.Change(t, under("unconfined"))
	if got := r.Run("run", "--bundle", b.Dir, r.NewID()); got.Status != 0 || got.Stdout != "in\n" {
		t.Errorf("unconfined: got %+v", got)
	}
}
