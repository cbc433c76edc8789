package harness

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// StatusOf is a process's exit status, 128+n if signal n ended it.
func StatusOf(p *os.ProcessState) int {
	return statusOf(unix.WaitStatus(p.Sys().(syscall.WaitStatus)))
}

func statusOf(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// Reap waits for a process that was orphaned to this one, as an engine's shim
// does, and returns its exit status, 128+n if signal n ended it.
func Reap(t testing.TB, pid int) int {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("pidfd of %d: %v", pid, err)
	}
	defer unix.Close(fd) //nolint:errcheck // only polled
	if !pollIn(fd, Limit) {
		t.Fatalf("process %d did not end within %v", pid, Limit)
	}
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatalf("wait4(%d), as a subreaper: %v", pid, err)
		}
		return statusOf(ws)
	}
}

// pollIn waits until fd is readable.
func pollIn(fd int, limit time.Duration) bool {
	end := time.Now().Add(limit)
	for {
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err == nil && n > 0 {
			return true
		}
		if err != nil && err != unix.EINTR {
			return false
		}
	}
}

// Within waits until a condition holds. It asks again every few milliseconds,
// since most of what tests wait for can only be asked for.
func Within(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	end := time.Now().Add(limit)
	for !holds() {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// CPUTime is what a process and those below it have used, to the 10 ms of
// /proc/pid/stat.
func CPUTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	ticks := 0
	for _, p := range append(Descendants(pid), Proc{PID: pid}) {
		data, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/stat")
		if err != nil {
			continue // it has ended
		}
		// The name may have spaces. utime is field 14, the state behind it 3.
		f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		for _, field := range f[14-3 : 16-3] {
			n, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// Sockets counts the sockets that a process has open.
func Sockets(t testing.TB, pid int) int {
	t.Helper()
	links, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}
