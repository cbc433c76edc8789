package seccomp

import (
	"fmt"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// x32Bit marks the system calls of the x32 ABI: __X32_SYSCALL_BIT of
// <asm/unistd.h>. They come with the audit architecture of x86-64.
const x32Bit = 1 << 30

// abi is one system call table that a guest's kernel may serve.
type abi struct {
	name    specs.Arch
	audit   uint32 // AUDIT_ARCH_* of <linux/audit.h>
	mask    uint32 // or'ed into every number
	numbers map[string]int
	wide    bool // arguments have 64 bits; else only the low 32 are compared
}

// call is a place where a rule applies in an ABI.
type call struct {
	number uint32
	mux    *arg // the argument that selects it if the number is shared
}

func abiX86_64() *abi {
	return &abi{name: specs.ArchX86_64, audit: uint32(arch.X86_64.ID), numbers: arch.X86_64.SyscallNames, wide: true}
}

// abiX32 does not take the library's table by name: some calls have a number
// that is for x86-64 only beside their own, which is 512 or above, and there it
// is chance which of the two a name has.
func abiX32() *abi {
	numbers := make(map[string]int, len(arch.X32.SyscallNumbers))
	for n, name := range arch.X32.SyscallNumbers {
		numbers[name] = max(n, numbers[name])
	}
	return &abi{name: specs.ArchX32, audit: uint32(arch.X32.ID), mask: x32Bit, numbers: numbers}
}

func abiX86() *abi {
	return &abi{name: specs.ArchX86, audit: uint32(arch.I386.ID), numbers: arch.I386.SyscallNames}
}

// resolveArchs gives the ABIs of a profile, x86-64 first. Architectures that
// an x86-64 guest never has are dropped: a program of theirs cannot run.
func resolveArchs(names []specs.Arch) ([]*abi, error) {
	out := []*abi{abiX86_64()}
	for i, n := range names {
		if slices.Index(names, n) != i {
			continue
		}
		switch n {
		case specs.ArchX86_64:
		case specs.ArchX86:
			out = append(out, abiX86())
		case specs.ArchX32:
			out = append(out, abiX32())
		default:
			if !foreignArch(n) {
				return nil, fmt.Errorf("linux.seccomp.architectures[%d]: unknown architecture %q", i, n)
			}
		}
	}
	return out, nil
}

func foreignArch(n specs.Arch) bool {
	switch n {
	case specs.ArchARM, specs.ArchAARCH64,
		specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32,
		specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
		specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X,
		specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64,
		specs.ArchM68K, specs.ArchSH, specs.ArchSHEB:
		return true
	}
	return false
}

// calls gives the places where the system call of that name is found: none, a
// number, or on 32-bit x86 a number and a selector of socketcall(2) or ipc(2).
func (a *abi) calls(name string) []call {
	var out []call
	if n, ok := a.numbers[name]; ok {
		out = append(out, call{number: uint32(n) | a.mask})
	}
	if a.name != specs.ArchX86 {
		return out
	}
	if v := socketCall(name); v != 0 {
		out = append(out, a.selected("socketcall", v))
	}
	if v := ipcCall(name); v != 0 {
		out = append(out, a.selected("ipc", v))
	}
	return out
}

// selected is the multiplexed system call's first argument being v.
func (a *abi) selected(mux string, v uint64) call {
	return call{number: uint32(a.numbers[mux]), mux: &arg{index: 0, op: specs.OpEqualTo, value: v}}
}

// last is the largest number that any of the names has, or false if none has one.
func (a *abi) last(names []string) (uint32, bool) {
	var last uint32
	found := false
	for _, name := range names {
		if n, ok := a.numbers[name]; ok {
			found = true
			last = max(last, uint32(n)|a.mask)
		}
	}
	return last, found
}

// socketCall gives the SYS_* number of <linux/net.h>, 0 if there is none.
func socketCall(name string) uint64 {
	return uint64(1 + slices.Index([]string{
		"socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername",
		"socketpair", "send", "recv", "sendto", "recvfrom", "shutdown", "setsockopt",
		"getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg",
	}, name))
}

// ipcCall gives the number of <linux/ipc.h>, 0 if there is none.
func ipcCall(name string) uint64 {
	switch name {
	case "semop":
		return 1
	case "semget":
		return 2
	case "semctl":
		return 3
	case "semtimedop":
		return 4
	case "msgsnd":
		return 11
	case "msgrcv":
		return 12
	case "msgget":
		return 13
	case "msgctl":
		return 14
	case "shmat":
		return 21
	case "shmdt":
		return 22
	case "shmget":
		return 23
	case "shmctl":
		return 24
	}
	return 0
}
