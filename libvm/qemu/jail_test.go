package qemu

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/vm"
)

// statusField returns a field of /proc/<pid>/status.
func statusField(t *testing.T, pid int, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	t.Fatalf("no %s in the status of %d", name, pid)
	return ""
}

// jailed starts a program in the jail that says "up" when it runs.
func jailed(t *testing.T) *machine {
	t.Helper()
	// Our descriptors in /proc are closed to a process that lacks our capabilities.
	path, never := filepath.Join(t.TempDir(), "up"), filepath.Join(t.TempDir(), "never")
	for _, p := range []string{path, never} {
		if err := unix.Mkfifo(p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	up, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	// It executes nothing more: there is nothing in its root.
	v, err := fake(t, "exec 3<>"+never+"; echo up > "+path+"; read x <&3").Start(context.Background(), config(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	up.SetReadDeadline(time.Now().Add(patience)) //nolint:errcheck // the read tells
	if line, err := bufio.NewReader(up).ReadString('\n'); line != "up\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	return v.(*machine)
}

func TestJailHasNoPrivileges(t *testing.T) {
	before := statusField(t, os.Getpid(), "CapBnd")
	m := jailed(t)
	pid := m.cmd.Process.Pid
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if got := statusField(t, pid, set); strings.Trim(got, "0") != "" {
			t.Errorf("%s: got %s, want none", set, got)
		}
	}
	if got := statusField(t, pid, "NoNewPrivs"); got != "1" {
		t.Errorf("NoNewPrivs: got %s", got)
	}
	for _, ns := range []string{"mnt", "ipc", "uts"} {
		ours, _ := os.Readlink("/proc/self/ns/" + ns) // an error shows below
		if theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns)); err != nil || theirs == ours {
			t.Errorf("%s namespace: got %q, %v, want another than ours", ns, theirs, err)
		}
	}
	if after := statusField(t, os.Getpid(), "CapBnd"); after != before {
		t.Errorf("our own bounding set: got %s, want %s as before", after, before)
	}
}

func TestConfineLeavesAnEmptyRoot(t *testing.T) {
	m := jailed(t)
	host, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.Confiner(m).Confine(); err != nil {
		t.Fatal(err)
	}
	proc := fmt.Sprintf("/proc/%d", m.cmd.Process.Pid)
	for _, dir := range []string{"root", "cwd", "root/..", "cwd/../.."} {
		if names, err := os.ReadDir(proc + "/" + dir + "/"); err != nil || len(names) > 0 {
			t.Errorf("%s: got %v, %v, want nothing", dir, names, err)
		}
	}
	b, err := os.ReadFile(proc + "/mountinfo")
	if err != nil || strings.Count(string(b), "\n") != 1 {
		t.Errorf("mounts: got %q, %v, want one", b, err)
	}
	if err := os.WriteFile(proc+"/root/file", nil, 0o600); err == nil {
		t.Error("the root can be written to")
	}
	// And nobody else has lost anything.
	if now, err := os.Readlink("/proc/self/ns/mnt"); err != nil || now != host {
		t.Errorf("our mount namespace: got %s, %v, want %s", now, err, host)
	}
	if now, err := os.ReadFile("/proc/self/mountinfo"); err != nil || string(now) != string(mounts) {
		t.Errorf("our mounts: got %s, %v, want %s", now, err, mounts)
	}
	var limit unix.Rlimit
	if err := unix.Prlimit(m.cmd.Process.Pid, unix.RLIMIT_CORE, nil, &limit); err != nil || limit.Max != 0 {
		t.Errorf("core dumps: got %d bytes, %v, want none", limit.Max, err)
	}
}

func TestConfineOfAnEndedQEMU(t *testing.T) {
	m := jailed(t)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Confine(); err == nil {
		t.Error("got no error")
	}
}

func TestRealQEMUHasItsSandbox(t *testing.T) {
	if _, err := exec.LookPath(DefaultBinary); err != nil {
		t.Skip("no QEMU (try: apt-get install qemu-system-x86)")
	}
	out, err := exec.Command(DefaultBinary, "-sandbox", sandbox, "-version").CombinedOutput()
	if err != nil {
		t.Errorf("got %v: %s", err, out)
	}
}
