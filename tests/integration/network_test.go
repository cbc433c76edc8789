package integration

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

// netns makes a network namespace with a veth pair that is down. It returns its
// path, and a way to run ip(8) in it.
func netns(t *testing.T) (path string, ip func(args ...string)) {
	t.Helper()
	holder := exec.Command("sleep", "infinity")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		holder.Process.Kill() //nolint:errcheck // Wait tells
		holder.Wait()         //nolint:errcheck // it was killed
	})
	path = fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid)
	ip = func(args ...string) {
		t.Helper()
		cmd := exec.Command("nsenter", append([]string{"--net=" + path, "ip"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
	return path, ip
}

func TestNetworkNamespace(t *testing.T) {
	path, ip := netns(t) // before the runtime, whose check for leaks is to know it
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("ls", "/sys/class/net"), func(s *specs.Spec) {
		for i := range s.Linux.Namespaces {
			if s.Linux.Namespaces[i].Type == specs.NetworkNamespace {
				s.Linux.Namespaces[i].Path = path
			}
		}
	})
	// What is down cannot be meant for the container.
	if got, want := r.Must("run", "--bundle", b.Dir, r.NewID()), "lo\n"; got != want {
		t.Errorf("interfaces of the guest: got %q, want %q", got, want)
	}
	c := r.Create(b)
	ip("link", "set", "eth0", "up")
	for _, args := range [][]string{{"start", c.ID}, {"run", "--bundle", b.Dir, r.NewID()}} {
		res := r.Run(args...)
		if res.Status != 1 || !strings.Contains(res.Stderr, "interfaces (eth0)") {
			t.Errorf("%s with an interface up: got status %d, %q, want an error that names it", args[0], res.Status, res.Stderr)
		}
	}
	r.Must("delete", "--force", c.ID)
	c.Wait()
}
