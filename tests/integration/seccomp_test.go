package integration

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

// TestSeccompActions: what each action does to a system call, seen from inside.
func TestSeccompActions(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle()
	const sigsys = "Bad system call\n159\n"
	for _, tt := range []struct {
		action specs.LinuxSeccompAction
		errno  *uint
		want   string // of mkdir and its status
	}{
		{specs.ActErrno, nil, "mkdir: can't create directory '/new': Operation not permitted\n1\n"},
		{specs.ActErrno, ptr(uint(unix.EXDEV)), "mkdir: can't create directory '/new': Invalid cross-device link\n1\n"},
		{specs.ActTrace, nil, "mkdir: can't create directory '/new': Function not implemented\n1\n"}, // nobody traces
		{specs.ActTrap, nil, sigsys},
		{specs.ActKill, nil, sigsys},
		{specs.ActKillThread, nil, sigsys},
		{specs.ActKillProcess, nil, sigsys},
		{specs.ActLog, nil, "0\n"},
		{specs.ActAllow, nil, "0\n"},
	} {
		t.Run(string(tt.action), func(t *testing.T) {
			r.In(t)
			b.Change(t, harness.Shell("exec 2>&1; (mkdir /new); echo $?; rmdir /new 2>/dev/null; uname >/dev/null; echo $?"), func(s *specs.Spec) {
				s.Process.NoNewPrivileges = tt.action == specs.ActTrap // at both places where it is installed
				s.Linux.Seccomp = &specs.LinuxSeccomp{
					DefaultAction: specs.ActLog, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86},
					Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow},
					Syscalls: []specs.LinuxSyscall{
						{Names: []string{"mkdir"}, Action: tt.action, ErrnoRet: tt.errno},
						// A condition: no other mode than this is asked for.
						{Names: []string{"mkdirat"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 2, Value: 0o777, Op: specs.OpEqualTo}}},
					},
				}
			})
			if got := r.Run("run", "--bundle", b.Dir, r.NewID()); got.Stdout != tt.want+"0\n" {
				t.Errorf("got %+v, want %q", got, tt.want+"0\n")
			}
		})
	}
}

// TestSeccompByDefault: a call that the profile does not know fails with its default,
// one that is newer than all that it knows with ENOSYS.
func TestSeccompByDefault(t *testing.T) {
	r := newRuntime(t)
	b := withProbe(t, r.NewBundle(harness.Args("syscalls")), "syscalls")
	allowed := []string{
		"read", "write", "close", "mmap", "munmap", "mprotect", "brk", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "clone",
		"gettid", "futex", "exit", "exit_group", "execve", "arch_prctl", "sched_getaffinity", "openat", "fcntl", "epoll_create1", "epoll_ctl", "epoll_pwait",
		"eventfd2", "nanosleep", "madvise", "tgkill", "getpid", "prlimit64", "setrlimit", "getrlimit", "set_robust_list", "rseq", "clock_gettime", "readlinkat",
		"fstat", "uname", "sched_yield", "pipe2", "prctl", "set_tid_address", "setgroups", "setresuid", "setresgid", "capset", "capget", "chdir", "fchdir",
		"newfstatat", "getcwd", "faccessat2", "statx", "close_range", "sendto", "recvmsg", "sendmsg", "poll", "ppoll", "kill", "wait4", "umask", "faccessat",
	}
	b.Change(t, func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActErrno, DefaultErrnoRet: ptr(uint(unix.EDOM)), Architectures: []specs.Arch{specs.ArchX86_64},
			Syscalls: []specs.LinuxSyscall{{Names: allowed, Action: specs.ActAllow}},
		}
	})
	if got := r.Run("run", "--bundle", b.Dir, r.NewID()); got.Stdout != "mount: numerical argument out of domain\n5000: function not implemented\n" {
		t.Errorf("got %+v", got)
	}
}
