package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/selinux/go-selinux"

	"runv/tests/harness"
)

// The labels of scripts/test-lsm.cil.
const (
	vmLabel    = "system_u:system_r:container_kvm_t:s0:c1,c2"
	filesLabel = "system_u:object_r:container_file_t:s0:c1,c2"
	hostOnly   = "system_u:object_r:host_only_t:s0"
)

func newSELinux(t *testing.T) *harness.Runtime {
	t.Helper()
	if !selinux.GetEnabled() {
		withoutModule(t, "selinux", "the host has no SELinux")
	}
	return newRuntime(t)
}

func labelled(label string) harness.Change {
	return func(s *specs.Spec) { s.Process.SelinuxLabel = label }
}

// labelOf reads the label of a process of the host.
func labelOf(t *testing.T, pid int) string {
	t.Helper()
	label, err := selinux.PidLabel(pid)
	if err != nil {
		t.Fatal(err)
	}
	return label
}

// TestSELinux: all that a container is on the host has its label, what the host
// mounts for it that of its files, and the host's policy holds for what its guest does.
func TestSELinux(t *testing.T) {
	r := newSELinux(t)
	dir := filepath.Join(r.Dir, "o")
	makeTree(t, dir, map[string]string{"lower/f": "below", "upper/x": "", "work/x": "", "own/f": "host's", "own/g": ""})
	if err := os.Remove(dir + "/work/x"); err != nil {
		t.Fatal(err)
	}
	if err := selinux.SetFileLabel(dir+"/own/f", hostOnly); err != nil {
		t.Fatal(err)
	}
	overlay := specs.Mount{
		Destination: "/m", Type: "overlay", Source: "overlay",
		Options: []string{"lowerdir=" + dir + "/lower", "upperdir=" + dir + "/upper", "workdir=" + dir + "/work"},
	}
	bind := specs.Mount{Destination: "/own", Type: "bind", Source: dir + "/own", Options: []string{"bind"}}
	for _, name := range []string{"one process", "stand-in"} {
		t.Run(name, func(t *testing.T) {
			r.In(t)
			changes := []harness.Change{
				harness.Args("sleep", "1000"), labelled(vmLabel), withMounts(overlay, bind),
				func(s *specs.Spec) { s.Linux.MountLabel = filesLabel },
			}
			if name == "stand-in" {
				changes = append(changes, mapped)
			}
			c := r.Create(r.NewBundle(changes...)).Start()
			defer c.End()
			processes := harness.Descendants(os.Getpid())
			if len(processes) == 0 {
				t.Fatal("no process of the container")
			}
			for _, p := range processes {
				if got := labelOf(t, p.PID); got != vmLabel {
					t.Errorf("label of %s: got %s", p, got)
				}
			}
			if name == "stand-in" {
				monitor := monitorOf(t, c)
				t.Cleanup(func() { harness.Reap(t, monitor) })
				return // its user owns none of the files
			}
			mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.PID))
			if err != nil || !strings.Contains(string(mounts), `context="`+filesLabel+`"`) && !strings.Contains(string(mounts), `context=`+filesLabel) {
				t.Errorf("no mount with the label of files: %s, %v", mounts, err)
			}
			if got := c.Exec("echo new >/m/n && echo new >/own/g && cat /own/f"); got.Status != 0 || got.Stdout != "host's" {
				t.Errorf("what the policy allows: got %+v", got)
			}
			if got := c.Exec("echo new >/own/f"); got.Status == 0 || !strings.Contains(got.Stderr, "Permission denied") {
				t.Errorf("a file that is the host's alone: got %+v", got)
			}
		})
	}
}

// TestSELinuxExec: the processes of a VM have one label.
func TestSELinuxExec(t *testing.T) {
	r := newSELinux(t)
	c := r.Create(r.NewBundle(harness.Args("sleep", "1000"), labelled(vmLabel))).Start()
	defer c.End()
	if got := r.Run("exec", "--process-label", vmLabel, c.ID, "echo", "in"); got.Status != 0 || got.Stdout != "in\n" {
		t.Errorf("the container's: got %+v", got)
	}
	refused(t, r, "is not the container's", 255,
		"exec", "--process-label", "system_u:system_r:container_kvm_t:s0:c1", c.ID, "true")
}

// TestSELinuxRefuses: a label that the policy does not know is an error by name.
func TestSELinuxRefuses(t *testing.T) {
	r := newSELinux(t)
	b := r.NewBundle(harness.Args("true"), labelled("system_u:system_r:no_such_t:s0"))
	refused(t, r, "process.selinuxLabel", 1, "run", "--bundle", b.Dir, r.NewID())
}
