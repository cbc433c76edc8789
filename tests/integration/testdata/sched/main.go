// Command sched prints how it is scheduled, as the kernel tells it.
package main

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

func main() {
	runtime.LockOSThread() // the main thread: the one that exec'd
	a, err := unix.SchedGetAttr(unix.Getpid(), 0)
	if err != nil {
		fmt.Println("sched_getattr:", err)
		os.Exit(1)
	}
	fmt.Printf("policy %d flags %#x nice %d priority %d deadline %d/%d/%d\n",
		a.Policy, a.Flags, a.Nice, a.Priority, a.Runtime, a.Deadline, a.Period)
}
