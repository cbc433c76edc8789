package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"runv/agent/rpc"
)

// bootNanos returns the time since the kernel started.
func bootNanos() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}

// setClock sets the wall clock to ns since 1970.
func setClock(nanos int64) error {
	ts := unix.NsecToTimespec(nanos)
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}

// addEntropy mixes bytes of the host's generator into the guest's, and counts
// them as good: the host can see everything of the guest anyway.
func addEntropy(b []byte) error {
	f, err := os.OpenFile("/dev/random", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// struct rand_pool_info (linux/random.h): bits of entropy, bytes, data.
	info := make([]byte, 8, 8+len(b))
	binary.NativeEndian.PutUint32(info[0:], uint32(8*len(b)))
	binary.NativeEndian.PutUint32(info[4:], uint32(len(b)))
	info = append(info, b...)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info[0])))
	if errno != 0 {
		return os.NewSyscallError("ioctl RNDADDENTROPY", errno)
	}
	return nil
}

func kernelRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", os.NewSyscallError("uname", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

// stats reads what guest and agent use.
func stats() (*rpc.StatsResponse, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return nil, err
	}
	self, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	return &rpc.StatsResponse{
		MemTotal:     kilobytes(string(b), "MemTotal"),
		MemAvailable: kilobytes(string(b), "MemAvailable"),
		AgentRss:     kilobytes(string(self), "VmRSS"),
	}, nil
}

// kilobytes returns, in bytes, a field of a file with lines like "VmRSS: 12 kB".
func kilobytes(text, key string) uint64 {
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(line, ":")
		if k != key {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
		if err != nil {
			return 0
		}
		return n << 10
	}
	return 0
}
