package monitor

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// probeCPU is the CPU time that starved uses: more than a scheduler gives at
// once to what has slept before.
const probeCPU = 50 * time.Millisecond

// starved says whether a process like this one, with its priority and in its
// cgroup, gets less than a quarter of a CPU when it asks for all of it. A guest
// that uses none may then be one that is given none.
func starved() bool {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin, used := time.Now(), threadTime()
	for threadTime()-used < probeCPU {
		if time.Since(begin) > 4*probeCPU {
			return true
		}
	}
	return false
}

// threadTime is the CPU time of the calling thread.
func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0 // it has no way to fail; starved would say yes
	}
	return time.Duration(ts.Nano())
}
