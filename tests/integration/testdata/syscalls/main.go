// Syscalls says what a system call that a profile does not name gets, and one that is
// newer than any.
package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func main() {
	_, _, e := unix.RawSyscall(unix.SYS_MOUNT, 0, 0, 0)
	fmt.Println("mount:", e)
	_, _, e = unix.RawSyscall(5000, 0, 0, 0)
	fmt.Println("5000:", e)
}
