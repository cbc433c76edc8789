package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// callFlag makes the probe the child that makes a call.
const callFlag = "--call"

// inChild makes a call in a process of its own, which a filter may kill, and says
// what came of it.
func inChild(name string) string {
	cmd := exec.Command("/proc/self/exe", callFlag, name)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		ws := exit.Sys().(syscall.WaitStatus)
		if ws.Signaled() {
			return "killed by " + ws.Signal().String()
		}
		return fmt.Sprintf("status %d", ws.ExitStatus())
	}
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

// path0 is an argument that is a path.
func path0(p string) uintptr {
	b, err := unix.BytePtrFromString(p)
	if err != nil {
		return 0
	}
	return uintptr(unsafe.Pointer(b)) // lives as long as the process: it is all that the heap has
}

// calls are those that filters and capabilities decide on.
var calls = map[string]func() (uintptr, uintptr, syscall.Errno){
	"mkdir": func() (uintptr, uintptr, syscall.Errno) {
		return unix.Syscall(unix.SYS_MKDIR, path0("/tmp/made"), 0o755, 0)
	},
	"getcwd":      func() (uintptr, uintptr, syscall.Errno) { return sized(unix.SYS_GETCWD) },
	"getppid":     func() (uintptr, uintptr, syscall.Errno) { return unix.Syscall(unix.SYS_GETPPID, 0, 0, 0) },
	"personality": func() (uintptr, uintptr, syscall.Errno) { return unix.Syscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0) },
	"personality8": func() (uintptr, uintptr, syscall.Errno) {
		return unix.Syscall(unix.SYS_PERSONALITY, 8, 0, 0)
	},
	"sethostname": func() (uintptr, uintptr, syscall.Errno) {
		return unix.Syscall(unix.SYS_SETHOSTNAME, path0("x"), 1, 0)
	},
	"mount": func() (uintptr, uintptr, syscall.Errno) {
		return unix.Syscall6(unix.SYS_MOUNT, path0("none"), path0("/tmp"), path0("tmpfs"), 0, 0, 0)
	},
	"mknod": func() (uintptr, uintptr, syscall.Errno) {
		return unix.Syscall(unix.SYS_MKNOD, path0("/tmp/node"), unix.S_IFCHR|0o600, uintptr(unix.Mkdev(1, 3)))
	},
	"mknodfifo": func() (uintptr, uintptr, syscall.Errno) {
		return unix.Syscall(unix.SYS_MKNOD, path0("/tmp/fifo"), unix.S_IFIFO|0o600, 0)
	},
	"chroot":  func() (uintptr, uintptr, syscall.Errno) { return unix.Syscall(unix.SYS_CHROOT, path0("/"), 0, 0) },
	"chown":   func() (uintptr, uintptr, syscall.Errno) { return unix.Syscall(unix.SYS_CHOWN, path0("/tmp"), 1, 1) },
	"setuid":  func() (uintptr, uintptr, syscall.Errno) { return unix.RawSyscall(unix.SYS_SETUID, 1, 0, 0) },
	"setgid":  func() (uintptr, uintptr, syscall.Errno) { return unix.RawSyscall(unix.SYS_SETGID, 1, 0, 0) },
	"keyctl":  func() (uintptr, uintptr, syscall.Errno) { return unix.Syscall(unix.SYS_KEYCTL, 0, ^uintptr(2), 0) },
	"settime": func() (uintptr, uintptr, syscall.Errno) { return unix.Syscall(unix.SYS_SETTIMEOFDAY, 0, 0, 0) },
	"unshare": func() (uintptr, uintptr, syscall.Errno) {
		return unix.RawSyscall(unix.SYS_UNSHARE, unix.CLONE_NEWUTS, 0, 0)
	},
	"socket": func() (uintptr, uintptr, syscall.Errno) {
		return unix.Syscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0)
	},
	"rawsock": func() (uintptr, uintptr, syscall.Errno) {
		return unix.Syscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	},
	"nice": func() (uintptr, uintptr, syscall.Errno) {
		return unix.Syscall(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, ^uintptr(4))
	},
	"unknown": func() (uintptr, uintptr, syscall.Errno) { return unix.Syscall(999, 0, 0, 0) },
	"opennull": func() (uintptr, uintptr, syscall.Errno) {
		return unix.Syscall(unix.SYS_OPEN, path0("/dev/null"), unix.O_RDWR, 0)
	},
}

func sized(nr uintptr) (uintptr, uintptr, syscall.Errno) {
	buf := make([]byte, 4096)
	_, _, e := unix.Syscall(nr, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0)
	return 0, 0, e
}

// call makes one call and prints its error, not its result, which is a number of
// the kernel's.
func call(name string) int {
	c, ok := calls[name]
	if !ok {
		fmt.Println("unknown call", name)
		return 0
	}
	_, _, e := c()
	if e != 0 {
		fmt.Println(e.Error())
	} else {
		fmt.Println("done")
	}
	_ = os.Stdout.Sync() // a pipe has nothing to sync
	return 0
}
