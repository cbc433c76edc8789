package orphans

import (
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// waitAll waits until a child of the calling process has ended.
func waitAll(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
}

func TestReapLeavesTheOneThatIsWaitedFor(t *testing.T) {
	ours := exec.Command("sh", "-c", "exit 3")
	if err := ours.Start(); err != nil {
		t.Fatal(err)
	}
	waitAll(t, ours.Process.Pid)
	Reap(ours.Process.Pid)
	if err := ours.Wait(); err == nil || ours.ProcessState.ExitCode() != 3 {
		t.Errorf("Wait: got %v, want exit status 3", err)
	}

	orphan := exec.Command("true")
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	waitAll(t, orphan.Process.Pid)
	Reap(0)
	if err := unix.Waitid(unix.P_PID, orphan.Process.Pid, nil, unix.WEXITED|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("after Reap: got %v, want ECHILD", err)
	}
}
