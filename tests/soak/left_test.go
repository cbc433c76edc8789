package soak

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"runv/tests/harness"
)

// snapshot lists what runs may leave behind that the harness does not look at: it
// looks at processes, mounts, control groups, and files in /run, /dev/shm, the
// state directory and the temporary one. This is network interfaces (taps among
// them), Unix sockets with a path in the test's directory, and the descriptors of
// this process, which is the parent of all runs.
func snapshot(t *testing.T, r *harness.Runtime) harness.Things {
	t.Helper()
	l := harness.Things{}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range links {
		l["network interface "+i.Name] = true
	}
	sockets, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(sockets)) {
		// Num: RefCount Protocol Flags Type St Inode Path
		if f := strings.Fields(line); len(f) > 7 && strings.Contains(line, r.Dir) {
			l["unix socket "+f[7]] = true
		}
	}
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, err := os.Readlink(fd)
		if err != nil || strings.HasPrefix(to, "anon_inode:") || strings.HasPrefix(to, "/proc/") {
			continue // the listing's own, or the Go runtime's
		}
		l["descriptor "+filepath.Base(fd)+" "+to] = true
	}
	return l
}
