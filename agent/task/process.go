package task

import (
	"fmt"
	"structs"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Settings are what a process is given besides its streams: the process part of
// a config.json, its seccomp filter and its personality.
type Settings struct {
	Process *specs.Process
	// Seccomp is a classic BPF program, an array of struct sock_filter; empty:
	// none. Its flags are those of seccomp(2).
	Seccomp      []byte
	SeccompFlags uint32
	// Hold is a descriptor from which the process reads a byte when it has installed
	// a filter that has a listener: until then the agent takes that.
	Hold uintptr
	// Personality is the domain of personality(2); -1: as it is.
	Personality int
	// KeyringName is the session keyring to join; empty: the agent's own.
	KeyringName string
	// LastCap is the highest capability of the kernel.
	LastCap uint
}

// Session makes the process a session leader, on the terminal that is its
// descriptor 0 if it has one.
func Session(terminal bool) Script {
	s := Script{Call("setsid", unix.SYS_SETSID)}
	if terminal {
		s = append(s, Call("set controlling terminal", unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0))
	}
	return s
}

// Keyring joins the session keyring of a container, as runc does, so that its
// processes do not share the agent's. Kernels without keyrings are fine.
func (t *Settings) Keyring() (Script, error) {
	if t.KeyringName == "" {
		return nil, nil
	}
	name, err := cstring(t.KeyringName)
	if err != nil {
		return nil, err
	}
	return Script{Call("join session keyring", unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0).
		pointer(1, unsafe.Pointer(name)).Allow(unix.ENOSYS, unix.EPERM)}, nil
}

// Privileges gives up what the process must not have, in the order of runc:
// no_new_privs, the seccomp filter if that is absent (installing it is a
// privilege then), the working directory as root, the bounding set, the ids,
// the working directory again if root could not enter it, the other sets. If
// entered the process is in its working directory already.
func (t *Settings) Privileges(entered bool) (Script, error) {
	p := t.Process
	umask := uint32(0o022)
	if p.User.Umask != nil {
		umask = *p.User.Umask
	}
	s := Script{Call("umask", unix.SYS_UMASK, uintptr(umask))}
	if t.Personality >= 0 {
		s = append(s, Call("personality", unix.SYS_PERSONALITY, uintptr(t.Personality)))
	}
	if p.NoNewPrivileges {
		s = append(s, Call("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	} else {
		s = append(s, t.seccomp()...)
	}
	cwd, err := cstring(p.Cwd)
	if err != nil {
		return nil, err
	}
	enter := p.Cwd != "" && !entered
	chdir := Call(fmt.Sprintf("chdir to cwd (%q) set in config.json failed", p.Cwd), unix.SYS_CHDIR).
		pointer(0, unsafe.Pointer(cwd))
	if enter {
		first := chdir.Allow(unix.EACCES, unix.EPERM)
		first.first = true
		s = append(s, first)
	}
	caps := p.Capabilities
	if caps == nil {
		caps = &specs.LinuxCapabilities{}
	}
	s = append(s, boundingOps(caps, t.LastCap)...)
	s = append(s, Call("keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0))
	s = append(s, userOps(p.User)...)
	if enter {
		chdir.retry = true
		s = append(s, chdir)
	}
	s = append(s, Call("clear keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 0, 0, 0, 0))
	return append(s, capOps(caps, t.LastCap)...), nil
}

func userOps(u specs.User) Script {
	groups := Call("setgroups", unix.SYS_SETGROUPS, uintptr(len(u.AdditionalGids)), 0)
	if n := len(u.AdditionalGids); n > 0 {
		list := append([]uint32(nil), u.AdditionalGids...)
		groups = groups.pointer(1, unsafe.Pointer(&list[0]))
	}
	gid, uid := uintptr(u.GID), uintptr(u.UID)
	return Script{
		groups,
		Call(fmt.Sprintf("setgid %d", gid), unix.SYS_SETRESGID, gid, gid, gid),
		Call(fmt.Sprintf("setuid %d", uid), unix.SYS_SETRESUID, uid, uid, uid),
	}
}

// sockFprog lays out struct sock_fprog (linux/filter.h).
type sockFprog struct {
	_      structs.HostLayout
	len    uint16 // instructions
	_      [6]byte
	filter unsafe.Pointer
}

// sizeofFilter is the size of struct sock_filter.
const sizeofFilter = 8 // bytes

func (t *Settings) seccomp() Script {
	n := len(t.Seccomp) / sizeofFilter
	if n == 0 {
		return nil
	}
	// Aligned as the kernel's copy wants nothing, but a Go slice of bytes has
	// no owner that the script could keep; a copy has.
	prog := append([]byte(nil), t.Seccomp...)
	fp := &sockFprog{len: uint16(n), filter: unsafe.Pointer(&prog[0])}
	script := Script{Call("install the seccomp filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		uintptr(t.SeccompFlags)).pointer(2, unsafe.Pointer(fp))}
	if t.SeccompFlags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
		hold := Call("wait for the seccomp listener to be taken", unix.SYS_READ, t.Hold, 0, 1).pointer(1, unsafe.Pointer(new(byte)))
		hold.min = 1
		script = append(script, hold)
	}
	return script
}

// Exec is the end of a script: the seccomp filter, as late as can be if the
// process has no_new_privs, and the executable.
func (t *Settings) Exec(path string, env []string) (Script, error) {
	var s Script
	if t.Process.NoNewPrivileges {
		s = t.seccomp()
	}
	file, err := cstring(path)
	if err != nil {
		return nil, err
	}
	argv, err := cstrings(t.Process.Args)
	if err != nil {
		return nil, err
	}
	envp, err := cstrings(env)
	if err != nil {
		return nil, err
	}
	exec := Call("exec "+path, unix.SYS_EXECVE).pointer(0, unsafe.Pointer(file))
	exec = exec.pointer(1, unsafe.Pointer(&argv[0]))
	exec.args[2] = uintptr(unsafe.Pointer(&envp[0]))
	exec.keep[0] = unsafe.Pointer(&execMemory{file, argv, envp})
	return append(s, exec), nil
}

// execMemory keeps the arguments of execve reachable.
type execMemory struct {
	file *byte
	argv []*byte
	envp []*byte
}

func cstring(s string) (*byte, error) {
	p, err := unix.BytePtrFromString(s)
	if err != nil {
		return nil, fmt.Errorf("%q has a NUL byte", s)
	}
	return p, nil
}

// cstrings makes the NULL-terminated array that execve wants.
func cstrings(list []string) ([]*byte, error) {
	out := make([]*byte, len(list)+1)
	for i, s := range list {
		p, err := cstring(s)
		if err != nil {
			return nil, err
		}
		out[i] = p
	}
	return out, nil
}
