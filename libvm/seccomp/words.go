package seccomp

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxArgs is the number of arguments that a system call has.
const maxArgs = 6

// retENOSYS makes a system call fail as one that the kernel does not have.
const retENOSYS = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)

// flagTSync is not in runtime-spec's list but in profiles. The agent installs
// the filter in a process of one thread, so that it changes nothing.
const flagTSync specs.LinuxSeccompFlag = "SECCOMP_FILTER_FLAG_TSYNC"

// Actions lists the actions that Compile knows, sorted.
func Actions() []string {
	return []string{
		string(specs.ActAllow), string(specs.ActErrno), string(specs.ActKill),
		string(specs.ActKillProcess), string(specs.ActKillThread), string(specs.ActLog),
		string(specs.ActNotify), string(specs.ActTrace), string(specs.ActTrap),
	}
}

// Operators lists the operators that Compile knows, sorted.
func Operators() []string {
	return []string{
		string(specs.OpEqualTo), string(specs.OpGreaterEqual), string(specs.OpGreaterThan),
		string(specs.OpLessEqual), string(specs.OpLessThan), string(specs.OpMaskedEqual),
		string(specs.OpNotEqual),
	}
}

// Archs lists the architectures that a guest can run, sorted.
func Archs() []string {
	return []string{string(specs.ArchX32), string(specs.ArchX86), string(specs.ArchX86_64)}
}

// KnownFlags lists the flags that Compile knows, sorted. All are supported.
func KnownFlags() []string {
	return []string{string(specs.LinuxSeccompFlagLog), string(specs.LinuxSeccompFlagSpecAllow), string(flagTSync), string(specs.LinuxSeccompFlagWaitKillableRecv)}
}

func knownOperator(op specs.LinuxSeccompOperator) bool {
	return slices.Contains(Operators(), string(op))
}

// flagBits gives the flags argument of seccomp(2). A profile that says nothing
// of flags (not even an empty list) gets SPEC_ALLOW, as under runc.
func flagBits(flags []specs.LinuxSeccompFlag) (uint32, error) {
	if flags == nil {
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil
	}
	var bits uint32
	for _, f := range flags {
		switch f {
		case flagTSync:
		case specs.LinuxSeccompFlagLog:
			bits |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			bits |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			bits |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		default:
			return 0, fmt.Errorf("linux.seccomp.flags: seccomp flag %s is not known to runv", f)
		}
	}
	return bits, nil
}

// actionValue gives the SECCOMP_RET_* value of an action. errnoRet is for
// ERRNO and TRACE only (EPERM if absent); with another action it is an error
// (runtime-spec v1.3 config-linux.md "Seccomp").
func actionValue(act specs.LinuxSeccompAction, errnoRet *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if errnoRet != nil {
		if *errnoRet > unix.SECCOMP_RET_DATA {
			return 0, fmt.Errorf("errnoRet %d is larger than %d", *errnoRet, unix.SECCOMP_RET_DATA)
		}
		data = uint32(*errnoRet)
	}
	switch act {
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | data, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | data, nil
	}
	v, err := plainAction(act)
	if err == nil && errnoRet != nil {
		err = fmt.Errorf("errnoRet has no meaning for action %s", act)
	}
	return v, err
}

// plainAction gives the value of an action that carries no data.
func plainAction(act specs.LinuxSeccompAction) (uint32, error) {
	switch act {
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF, nil
	}
	return 0, fmt.Errorf("unknown action %q", act)
}
