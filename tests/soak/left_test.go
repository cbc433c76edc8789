package soak

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"runv/tests/harness"
)

// left is what runs may leave behind that the harness does not look at: it looks
// at processes, mounts, control groups, and files in /run, /dev/shm, the state
// directory and the temporary one.
type left map[string]bool

// snapshot lists what is there now: network interfaces (taps among them), Unix
// sockets with a path in the test's directory, and the descriptors of this
// process, which is the parent of all runs.
func snapshot(t *testing.T, r *harness.Runtime) left {
	t.Helper()
	l := left{}
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

// grace is how long what is ending may still be there.
const grace = 5 * time.Second

// check reports what is there now and was not before.
func (l left) check(t *testing.T, r *harness.Runtime) {
	t.Helper()
	var names []string
	end := time.Now().Add(grace)
	for {
		names = names[:0]
		for name := range snapshot(t, r) {
			if !l[name] {
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			return
		}
		if time.Now().After(end) {
			break
		}
		time.Sleep(20 * time.Millisecond) // nothing tells about all of these
	}
	for _, name := range names {
		t.Errorf("left behind: %s", name)
	}
}
