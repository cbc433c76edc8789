package vsock

import (
	"errors"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestSocketWaitsForABusyHost(t *testing.T) {
	fd, err := socket()
	if errors.Is(err, unix.EAFNOSUPPORT) {
		t.Skip("this kernel has no vsock (try: modprobe vsock)")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var tv unix.Timeval
	size := uint32(unsafe.Sizeof(tv))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.AF_VSOCK, unix.SO_VM_SOCKETS_CONNECT_TIMEOUT,
		uintptr(unsafe.Pointer(&tv)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	if tv.Sec != connectTimeout || tv.Usec != 0 {
		t.Errorf("connect timeout: got %d s %d us, want %d s", tv.Sec, tv.Usec, connectTimeout)
	}
}
