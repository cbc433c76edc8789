package monitor

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/seccomp"
)

// denied are the system calls that the monitor needs no more once its VM is
// locked up, and that would be of use to a guest which took it over: to start
// programs, to look into other processes, to change mounts and namespaces, and
// the parts of the kernel that are known for their bugs.
var denied = []string{
	"execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd",
	"mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
	"setns", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register",
	"keyctl", "add_key", "request_key", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load",
	"reboot", "swapon", "swapoff", "sethostname", "setdomainname", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex",
	"iopl", "ioperm", "acct", "quotactl", "syslog", "personality", "seccomp", "modify_ldt", "vhangup", "lookup_dcookie",
}

// filterProfile answers denied with EPERM, but clone3, which C libraries try
// first, with ENOSYS. A clone that does not make a thread, and a socket that is
// neither local nor asks the kernel about the network, nor could be used to ask a
// name server of the container's network, are denied too.
func filterProfile() *specs.LinuxSeccomp {
	eperm, enosys := uint(unix.EPERM), uint(unix.ENOSYS)
	rules := []specs.LinuxSyscall{
		{Names: denied, Action: specs.ActErrno, ErrnoRet: &eperm},
		{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &enosys},
		{Names: []string{"clone"}, Action: specs.ActErrno, ErrnoRet: &eperm, Args: []specs.LinuxSeccompArg{
			{Index: 0, Value: unix.CLONE_THREAD, ValueTwo: 0, Op: specs.OpMaskedEqual},
		}},
		// The file server gives a thread a working directory of its own.
		{Names: []string{"unshare"}, Action: specs.ActErrno, ErrnoRet: &eperm, Args: []specs.LinuxSeccompArg{
			{Index: 0, Value: unix.CLONE_FS, Op: specs.OpNotEqual},
		}},
		{Names: []string{"socket"}, Action: specs.ActErrno, ErrnoRet: &eperm, Args: remoteFamilies()},
	}
	return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64}, Syscalls: rules}
}

// remoteFamilies matches, any one of them, the address families other than
// AF_UNIX, AF_INET and AF_NETLINK.
func remoteFamilies() []specs.LinuxSeccompArg {
	args := []specs.LinuxSeccompArg{{Index: 0, Value: unix.AF_NETLINK, Op: specs.OpGreaterThan}}
	for f := uint64(unix.AF_INET + 1); f < unix.AF_NETLINK; f++ {
		args = append(args, specs.LinuxSeccompArg{Index: 0, Value: f, Op: specs.OpEqualTo})
	}
	return args
}

// sockFprog lays out struct sock_fprog of linux/filter.h.
type sockFprog struct {
	length uint16
	_      [6]byte
	filter unsafe.Pointer
}

// installFilter puts the seccomp filter on all threads, for good. It needs
// no_new_privs.
func installFilter() error {
	f, err := seccomp.Compile(filterProfile())
	if err != nil {
		return fmt.Errorf("filter of the monitor: %w", err)
	}
	prog := sockFprog{length: uint16(len(f.Program) / unix.SizeofSockFilter), filter: unsafe.Pointer(&f.Program[0])}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(f.Program)
	if errno != 0 {
		return fmt.Errorf("filter of the monitor: %w", os.NewSyscallError("seccomp", errno))
	}
	if r != 0 {
		return fmt.Errorf("filter of the monitor: thread %d does not take it", r)
	}
	return nil
}
