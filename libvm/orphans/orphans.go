// Package orphans reaps the processes that a process got without having started
// them: as a subreaper, or as the first process of a pid namespace.
package orphans

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reap reaps every child that has ended, up to one whose pid is except (0 for
// none), which is left to whoever waits for it. Call it on SIGCHLD.
func Reap(except int) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		pid := siginfoPID(&info)
		if err != nil || pid == 0 || pid == except {
			return
		}
		if _, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err != nil {
			return
		}
	}
}

// siginfoPID is si_pid of a SIGCHLD's siginfo_t: on x86-64, after three ints and
// four bytes of padding. The package does not name the union's members.
func siginfoPID(info *unix.Siginfo) int {
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), 16)))
}
