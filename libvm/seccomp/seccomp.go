// Package seccomp compiles the linux.seccomp object of a bundle into the
// classic BPF program that the agent installs in the guest.
//
// It says what runc with libseccomp says (runtime-spec v1.3 config-linux.md
// "Seccomp"; libseccomp 2.5 is the reference for what the text leaves open):
//
//   - A rule without args beats every rule with args for the same system call,
//     and the first such rule beats later ones. Rules with args are tried in
//     the order of the profile, and all args of a rule must match. If two args
//     of a rule look at the same index, each arg is a rule of its own.
//   - A rule whose action is the default action says nothing.
//   - Names that no architecture of the profile has are ignored.
//   - A system call of an architecture that is not listed kills the thread;
//     the native one is always listed.
//   - A system call with a number above every number that the profile knows
//     gets ENOSYS where the default action would fail it otherwise, so that a
//     libc's fallback for old kernels works.
package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Filter is a compiled profile.
type Filter struct {
	// Program is an array of struct sock_filter in the byte order of x86-64.
	Program []byte
	// Flags are the flags argument of seccomp(2), SECCOMP_FILTER_FLAG_*.
	Flags uint32
}

// Empty says that there is nothing to install.
func (f Filter) Empty() bool { return len(f.Program) == 0 }

// Notifies says whether a profile has calls answered by a supervisor.
func Notifies(p *specs.LinuxSeccomp) bool {
	return p != nil && slices.ContainsFunc(p.Syscalls, func(s specs.LinuxSyscall) bool { return s.Action == specs.ActNotify })
}

// checkNotify refuses what runc refuses.
func checkNotify(p *specs.LinuxSeccomp) error {
	if p.DefaultAction == specs.ActNotify {
		return errors.New("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default action")
	}
	for i, s := range p.Syscalls {
		if s.Action == specs.ActNotify && slices.Contains(s.Names, "write") {
			return fmt.Errorf("linux.seccomp.syscalls[%d]: SCMP_ACT_NOTIFY cannot be used for the write syscall", i)
		}
	}
	if Notifies(p) && p.ListenerPath == "" {
		return errors.New("seccomp listenerPath is not set")
	}
	return nil
}

// Compile compiles a profile. A nil profile, and one without a default action
// and rules, gives an empty Filter. What is wrong in a profile is an error that
// names it.
func Compile(p *specs.LinuxSeccomp) (Filter, error) {
	if p == nil || (p.DefaultAction == "" && len(p.Syscalls) == 0) {
		return Filter{}, nil
	}
	if err := checkNotify(p); err != nil {
		return Filter{}, err
	}
	flags, err := flagBits(p.Flags)
	if err != nil {
		return Filter{}, err
	}
	if Notifies(p) {
		flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	} else {
		flags &^= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV // the kernel takes it with a listener only
	}
	prof, err := parse(p)
	if err != nil {
		return Filter{}, err
	}
	insns, err := assemble(prof)
	if err != nil {
		return Filter{}, err
	}
	return Filter{Program: encode(insns), Flags: flags}, nil
}

// encode lays the instructions out as struct sock_filter of <linux/filter.h>.
func encode(insns []unix.SockFilter) []byte {
	out := make([]byte, 0, len(insns)*8)
	for _, in := range insns {
		out = binary.LittleEndian.AppendUint16(out, in.Code)
		out = append(out, in.Jt, in.Jf)
		out = binary.LittleEndian.AppendUint32(out, in.K)
	}
	return out
}

// profile is a checked profile: actions are SECCOMP_RET_* values.
type profile struct {
	def    uint32
	enosys bool // give ENOSYS above the last known system call
	abis   []*abi
	rules  []rule
	names  []string // all that the profile mentions, also where rules has none
}

// rule applies action to a system call if all args match.
type rule struct {
	name   string
	action uint32
	args   []arg
}

// arg is one condition on a system call's argument, 0 to 5.
type arg struct {
	index uint
	op    specs.LinuxSeccompOperator
	value uint64 // for MASKED_EQ: the mask
	two   uint64 // for MASKED_EQ: what must remain
}

// parse checks a profile and resolves all but the system calls' numbers.
func parse(p *specs.LinuxSeccomp) (*profile, error) {
	def, err := actionValue(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, fmt.Errorf("linux.seccomp.defaultAction: %w", err)
	}
	abis, err := resolveArchs(p.Architectures)
	if err != nil {
		return nil, err
	}
	out := &profile{def: def, enosys: wantsENOSYS(def), abis: abis}
	for i, s := range p.Syscalls {
		rules, err := parseRule(s)
		if err != nil {
			return nil, fmt.Errorf("linux.seccomp.syscalls[%d]: %w", i, err)
		}
		out.names = append(out.names, s.Names...)
		for _, r := range rules {
			if r.action != def {
				out.rules = append(out.rules, r)
			}
		}
	}
	return out, nil
}

// parseRule turns an entry of the profile into one rule for each name, or for
// each name and arg if two args share an index.
func parseRule(s specs.LinuxSyscall) ([]rule, error) {
	action, err := actionValue(s.Action, s.ErrnoRet)
	if err != nil {
		return nil, err
	}
	if len(s.Names) == 0 {
		return nil, fmt.Errorf("names is empty")
	}
	var args []arg
	var seen [maxArgs]int
	shared := false
	for j, a := range s.Args {
		if a.Index >= maxArgs {
			return nil, fmt.Errorf("args[%d]: index %d, want 0 to %d", j, a.Index, maxArgs-1)
		}
		if !knownOperator(a.Op) {
			return nil, fmt.Errorf("args[%d]: unknown operator %q", j, a.Op)
		}
		seen[a.Index]++
		shared = shared || seen[a.Index] > 1
		args = append(args, arg{index: a.Index, op: a.Op, value: a.Value, two: a.ValueTwo})
	}
	var out []rule
	for _, name := range s.Names {
		if name == "" {
			return nil, fmt.Errorf("names: empty string is not a valid syscall")
		}
		if !shared {
			out = append(out, rule{name: name, action: action, args: args})
			continue
		}
		for _, a := range args {
			out = append(out, rule{name: name, action: action, args: []arg{a}})
		}
	}
	return out, nil
}

// wantsENOSYS says whether unknown system calls are to get ENOSYS rather than
// the default action: not where that lets them through (or asks a tracer), and
// not where it is ENOSYS anyway.
func wantsENOSYS(def uint32) bool {
	switch def & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_TRACE:
		return false
	}
	return def != retENOSYS
}
