package monitor

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"runv/libvm/thread"
)

// envFiltered marks the child that puts the filter on itself.
const envFiltered = "RUNV_MONITOR_FILTERED"

// TestFilter runs in a child, as the filter cannot be taken off.
func TestFilter(t *testing.T) {
	if os.Getenv(envFiltered) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run", "^TestFilter$", "-test.v")
		cmd.Env = append(os.Environ(), envFiltered+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestFilter") {
			t.Fatalf("filtered: %v\n%s", err, out)
		}
		return
	}
	// On all threads, whichever the test runs on.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := installFilter(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		call func() error
		want error // nil: works
	}{
		{"execve", func() error { return exec.Command("/bin/true").Run() }, unix.EPERM},
		{"mount", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }, unix.EPERM},
		{"unshare", func() error { return unix.Unshare(unix.CLONE_NEWUTS) }, unix.EPERM},
		{"unshare of a directory", func() error { return thread.Own(func() error { return unix.Unshare(unix.CLONE_FS) }) }, nil},
		{"unshare of both", func() error { return unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS) }, unix.EPERM},
		{"socket to ask a name server", func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); return err }, nil},
		{"socket of IPv6", func() error { _, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0); return err }, unix.EPERM},
		{"packet socket", func() error { _, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); return err }, unix.EPERM},
		{"vsock", func() error { _, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0); return err }, unix.EPERM},
		{"local socket", func() error { _, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err }, nil},
		{"interfaces", func() error { _, err := net.Interfaces(); return err }, nil},
		{"threads", startThreads, nil},
		{"files", func() error { _, err := os.ReadFile("/proc/self/status"); return err }, nil},
	} {
		if err := tt.call(); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// startThreads makes the runtime start threads: each reader blocks one.
func startThreads() error {
	for range 4 {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		fd := r.Fd() // blocking from here on
		done := make(chan error, 1)
		go func() {
			_, err := unix.Read(int(fd), make([]byte, 1))
			done <- err
		}()
		defer func() { <-done; r.Close() }() //nolint:errcheck // what it read does not matter
		defer w.Close()
	}
	return nil
}
