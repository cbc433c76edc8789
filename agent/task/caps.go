package task

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"structs"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// capNames are the names of linux/capability.h in the order of their numbers.
var capNames = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
	"SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
	"IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
	"SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
	"LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
	"WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// LastCap returns the highest capability number of this kernel.
func LastCap() (uint, error) {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 6)
	if err != nil {
		return 0, fmt.Errorf("cap_last_cap: %w", err)
	}
	return uint(n), nil
}

// capMask returns the bits of the named capabilities. Unknown names are left
// out, as runc does: the host has warned of them.
func capMask(names []string, last uint) uint64 {
	var m uint64
	for _, name := range names {
		i := slices.Index(capNames[:], strings.TrimPrefix(strings.ToUpper(name), "CAP_"))
		if i >= 0 && uint(i) <= last {
			m |= 1 << i
		}
	}
	return m
}

// HasCap says whether a set names a capability.
func HasCap(set []string, name string) bool {
	return capMask(set, 63)&capMask([]string{name}, 63) != 0
}

// capHeader lays out struct __user_cap_header_struct, capData two of
// struct __user_cap_data_struct (linux/capability.h).
type capHeader struct {
	_       structs.HostLayout
	version uint32
	pid     int32
}

type capData struct {
	_                                    structs.HostLayout
	effective0, permitted0, inheritable0 uint32
	effective1, permitted1, inheritable1 uint32
}

// boundingOps drop from the bounding set what is not in it. They need
// CAP_SETPCAP, so they come before the user changes.
func boundingOps(c *specs.LinuxCapabilities, last uint) Script {
	keep := capMask(c.Bounding, last)
	var s Script
	for i := uint(0); i <= last; i++ {
		if keep&(1<<i) == 0 {
			s = append(s, Call("drop capability "+strconv.Itoa(int(i))+" from the bounding set",
				unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(i)))
		}
	}
	return s
}

// capOps set the other four sets, after the user has changed.
func capOps(c *specs.LinuxCapabilities, last uint) Script {
	eff, prm, inh := capMask(c.Effective, last), capMask(c.Permitted, last), capMask(c.Inheritable, last)
	hdr := &capHeader{version: unix.LINUX_CAPABILITY_VERSION_3}
	data := &capData{
		effective0: uint32(eff), permitted0: uint32(prm), inheritable0: uint32(inh),
		effective1: uint32(eff >> 32), permitted1: uint32(prm >> 32), inheritable1: uint32(inh >> 32),
	}
	s := Script{
		Call("unable to apply caps", unix.SYS_CAPSET).pointer(0, unsafe.Pointer(hdr)).pointer(1, unsafe.Pointer(data)),
		Call("clear ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0),
	}
	amb := capMask(c.Ambient, last)
	for i := uint(0); i <= last; i++ {
		if amb&(1<<i) != 0 {
			// One that is not permitted or not inheritable cannot be raised;
			// runc warns and goes on.
			s = append(s, Call("raise ambient capability", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT,
				unix.PR_CAP_AMBIENT_RAISE, uintptr(i), 0, 0).Allow(unix.EPERM))
		}
	}
	return s
}
