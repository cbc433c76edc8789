package fs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"runv/libvm/qemu/qemutest"
)

// machine is a guest that looks for its tree in dir, or the test is skipped.
func machine(t *testing.T, dir string) *qemutest.Machine {
	t.Helper()
	m := qemutest.New(t, qemutest.Build(t, "./testdata/guest"))
	m.Append = "dir=" + dir
	return m
}

// device is QEMU's.
const device = "vhost-user-fs-device,tag=runv,queue-size=1024"

// run runs the guest to its end and returns what it printed.
func run(ctx context.Context, t *testing.T, m *qemutest.Machine) string {
	t.Helper()
	out := m.Run(ctx)
	if !strings.Contains(out, "guest: done") {
		t.Error("the guest did not get to its end")
	}
	return out
}

// steps returns how long the guest says that each step took.
func steps(out string) (list string) {
	for _, m := range regexp.MustCompile(`guest: step (\w+) (\d+) us`).FindAllStringSubmatch(out, -1) {
		list += fmt.Sprintf("%s %s us\n", m[1], m[2])
	}
	return list
}

// TestQEMU has a real guest use the device.
func TestQEMU(t *testing.T) {
	m := machine(t, "/mnt/t/tree")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, dir := newShared(t)
	d, err := New("runv", 1, s)
	if err != nil {
		t.Fatal(err)
	}
	m.Attach(device, d)
	var before, after syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &before) //nolint:errcheck // only shown
	out := run(ctx, t, m)
	syscall.Getrusage(syscall.RUSAGE_SELF, &after) //nolint:errcheck // only shown
	t.Logf("runv, %v user, %v system:\n%s", time.Duration(after.Utime.Nano()-before.Utime.Nano()),
		time.Duration(after.Stime.Nano()-before.Stime.Nano()), steps(out))
	if !regexp.MustCompile(`guest: mountinfo .* /t/tree /tree `).MatchString(out) {
		t.Errorf("mountinfo does not show the tree's name:\n%s", out)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "check")); err != nil || string(b) != "m" {
		t.Errorf("what the guest wrote through a mapping is %q, %v", b, err)
	}
	fi, err := os.Stat(filepath.Join(dir, "check"))
	if err != nil {
		t.Fatal(err)
	}
	if st := fi.Sys().(*syscall.Stat_t); st.Uid != 12 || st.Gid != 34 || st.Mode != syscall.S_IFREG|0o640 {
		t.Errorf("check is %d:%d %#o", st.Uid, st.Gid, st.Mode)
	}
	if l, err := os.ReadDir(dir); err != nil || len(l) != 3 {
		t.Errorf("left are %v, %v", l, err)
	}
}

// TestVirtiofsd does the same with virtiofsd, to compare.
func TestVirtiofsd(t *testing.T) {
	const daemon = "/usr/lib/qemu/virtiofsd"
	if _, err := os.Stat(daemon); err != nil || os.Getenv("RUNV_TEST_COMPARE") == "" {
		t.Skip("not comparing (try: apt-get install qemu-system-common, and RUNV_TEST_COMPARE=1)")
	}
	m := machine(t, "/mnt")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := t.TempDir()
	socket := dir + "/socket"
	if err := os.Mkdir(dir+"/tree", 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, daemon, "--socket-path="+socket, "-o", "source="+dir+"/tree,sandbox=chroot,xattr,cache=auto,timeout=0.5")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("virtiofsd does not listen: %s", log.Bytes())
		}
		time.Sleep(time.Millisecond)
	}
	m.AttachSocket(device, "path="+socket)
	out := run(ctx, t, m)
	cancel()
	cmd.Wait() //nolint:errcheck // it was killed
	t.Logf("virtiofsd, %v user, %v system:\n%s", cmd.ProcessState.UserTime(), cmd.ProcessState.SystemTime(), steps(out))
}
