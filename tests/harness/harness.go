// Package harness drives a built runv as an engine would: it makes bundles, runs
// commands, is the subreaper to which containers are orphaned, and checks that
// nothing is left behind.
//
// The tests run in a mount namespace of their own, with an empty /run and
// /dev/shm: what runv leaves there is then runv's for certain, and mounts that
// leak out of a container are seen whoever else uses the machine.
package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// envInside marks the test process that is in the namespace.
const envInside = "RUNV_TEST_INSIDE"

// Setup is what all tests of a process share.
type Setup struct {
	Runv   string // absolute path of the program under test
	Kernel string // absolute path of the guest's kernel
	Dir    string // temporary, for everything that the tests make
	Rootfs string // a busybox rootfs to copy
	Skip   string // why no test can run; empty if they can
}

// Main runs the tests in their namespace and returns the exit status. use gets
// the setup before the first test.
func Main(m *testing.M, script string, use func(*Setup)) int {
	if reason := unfit(); reason != "" {
		use(&Setup{Skip: reason})
		return m.Run()
	}
	if os.Getenv(envInside) == "" {
		return inside()
	}
	s, err := prepare(script)
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err) //nolint:errcheck // nobody else to tell
		return 1
	}
	defer os.RemoveAll(s.Dir) //nolint:errcheck // temporary
	use(s)
	return m.Run()
}

// unfit says why no container can be run here.
func unfit() string {
	switch {
	case os.Geteuid() != 0:
		return "containers need root (try: sudo make test)"
	case os.Getenv("RUNV_TEST_KERNEL") == "":
		return "RUNV_TEST_KERNEL is not set (try: make test-integration)"
	}
	return ""
}

// inside runs this program again in a mount namespace of its own.
func inside() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), envInside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	// A test that panics or times out leaves its containers to us.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "harness:", os.NewSyscallError("prctl", err)) //nolint:errcheck // nobody else to tell
		return 1
	}
	err := cmd.Run()
	killAll()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, "harness:", err) //nolint:errcheck // nobody else to tell
		return 1
	}
	if status := cmd.ProcessState.ExitCode(); status >= 0 {
		return status
	}
	return 1
}

// killAll ends every process below this one.
func killAll() {
	for all := Descendants(os.Getpid()); len(all) > 0; all = Descendants(os.Getpid()) {
		for _, p := range all {
			_ = unix.Kill(p.PID, unix.SIGKILL) // it may have ended
		}
		_, _ = unix.Wait4(-1, nil, 0, nil)
	}
}

// prepare makes the namespace ours, and the process a subreaper.
func prepare(script string) (*Setup, error) {
	s := &Setup{Runv: os.Getenv("RUNV"), Kernel: os.Getenv("RUNV_TEST_KERNEL")}
	if s.Runv == "" {
		s.Runv = filepath.Join("..", "..", "runv")
	}
	for _, p := range []*string{&s.Runv, &s.Kernel} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(abs); err != nil {
			return nil, fmt.Errorf("%w (try: make runv kernel)", err)
		}
		*p = abs
	}
	// What would change the behaviour under test.
	for _, name := range []string{"RUNV_KERNEL", "RUNV_QEMU", "XDG_RUNTIME_DIR"} {
		if err := os.Unsetenv(name); err != nil {
			return nil, err
		}
	}
	// As systemd has it on a host: mounts propagate, and so would a leak.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return nil, os.NewSyscallError("mount", err)
	}
	for _, dir := range []string{"/run", "/dev/shm"} {
		if err := unix.Mount("harness", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return nil, fmt.Errorf("tmpfs on %s: %w", dir, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, os.NewSyscallError("prctl", err)
	}
	var err error
	if s.Dir, err = os.MkdirTemp("", "runv-test-"); err != nil {
		return nil, err
	}
	s.Rootfs = filepath.Join(s.Dir, "rootfs")
	if out, err := exec.Command(script, s.Rootfs).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", script, err, out)
	}
	return s, nil
}
