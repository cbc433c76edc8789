package cgroup

import (
	"fmt"
	"os"
	"runtime"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sizeofInsn is the size of struct bpf_insn (linux/bpf.h).
const sizeofInsn = 8 // bytes

// progLoad lays out the start of union bpf_attr for BPF_PROG_LOAD.
type progLoad struct {
	_           structs.HostLayout
	progType    uint32
	insnCnt     uint32
	insns       unsafe.Pointer
	license     unsafe.Pointer
	logLevel    uint32
	logSize     uint32
	logBuf      unsafe.Pointer
	kernVersion uint32
	progFlags   uint32
	progName    [16]byte
	progIfindex uint32
	attachType  uint32 // that it is for
}

// progAttach lays out the start of union bpf_attr for BPF_PROG_ATTACH.
type progAttach struct {
	_           structs.HostLayout
	targetFD    uint32
	attachBpfFD uint32
	attachType  uint32
	attachFlags uint32
}

// AttachDevices makes a program of type BPF_PROG_TYPE_CGROUP_DEVICE decide which
// devices the cgroup's processes may make and open. prog is an array of
// struct bpf_insn.
func (g *Group) AttachDevices(prog []byte) error { return AttachDevices(g.dir, prog) }

// AttachDevices is the same for the cgroup whose directory is at path.
func AttachDevices(path string, prog []byte) error {
	if err := Attach(path, unix.BPF_PROG_TYPE_CGROUP_DEVICE, unix.BPF_CGROUP_DEVICE, prog); err != nil {
		return fmt.Errorf("device filter: %w", err)
	}
	return nil
}

// Attach has a program of a type (BPF_PROG_TYPE_*) run for the cgroup whose directory is
// at path, and for those below it, beside others that are attached there (BPF_CGROUP_*).
func Attach(path string, progType, attachType uint32, prog []byte) error {
	if len(prog) == 0 || len(prog)%sizeofInsn != 0 {
		return fmt.Errorf("BPF program of %d bytes", len(prog))
	}
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(dir)
	fd, err := loadProg(progType, attachType, prog)
	if err != nil {
		return fmt.Errorf("load a BPF program: %w", err)
	}
	defer unix.Close(fd)
	attr := progAttach{
		targetFD: uint32(dir), attachBpfFD: uint32(fd),
		attachType: attachType, attachFlags: unix.BPF_F_ALLOW_MULTI,
	}
	if _, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH,
		uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)); errno != 0 {
		return fmt.Errorf("attach a BPF program: %w", errno)
	}
	return nil
}

// loadTries bounds the attempts to load a program: the verifier gives up with
// EAGAIN when a signal is pending, as Go's own for preemption may be.
const loadTries = 5

func loadProg(progType, attachType uint32, prog []byte) (int, error) {
	// The kernel wants to see a license; the programs call no helper that
	// would need a particular one.
	license := []byte("Apache\x00")
	attr := progLoad{
		progType: progType, insnCnt: uint32(len(prog) / sizeofInsn),
		insns: unsafe.Pointer(&prog[0]), license: unsafe.Pointer(&license[0]), attachType: attachType,
	}
	var fd uintptr
	errno := unix.EAGAIN
	for range loadTries {
		if fd, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD,
			uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)); errno != unix.EAGAIN {
			break
		}
	}
	runtime.KeepAlive(prog)
	runtime.KeepAlive(license)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
