package seccomp

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// installVar in the environment makes the test binary install a filter on
// itself and say what the kernel does with calls.
const installVar = "RUNV_SECCOMP_TEST_INSTALL"

func TestMain(m *testing.M) {
	if os.Getenv(installVar) != "" {
		if err := installAndTry(); err != nil {
			os.Stdout.WriteString(err.Error())
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// installAndTry runs under Docker's profile with one call more denied.
func installAndTry() error {
	runtime.LockOSThread()
	p := dockerLike()
	p.Syscalls = append([]specs.LinuxSyscall{{
		Names: []string{"getpriority"}, Action: specs.ActErrno, ErrnoRet: ptr(uint(unix.EXDEV)),
		Args: []specs.LinuxSeccompArg{{Index: 1, Op: specs.OpEqualTo, Value: 4242}},
	}}, p.Syscalls...)
	for i, n := range p.Syscalls[1].Names {
		if n == "getpriority" {
			p.Syscalls[1].Names[i] = "nosuchcall2"
		}
	}
	f, err := Compile(p)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	prog := unix.SockFprog{Len: uint16(len(f.Program) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&f.Program[0]))}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(f.Flags), uintptr(unsafe.Pointer(&prog))); e != 0 {
		return os.NewSyscallError("seccomp", e)
	}
	if err := unix.Unshare(unix.CLONE_NEWUTS); err != unix.EPERM {
		return errors.New("unshare was not refused with EPERM")
	}
	if _, err := unix.Getpriority(unix.PRIO_PROCESS, 4242); err != unix.EXDEV {
		return errors.New("getpriority(4242) was not refused with EXDEV")
	}
	if _, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err != unix.EPERM {
		return errors.New("getpriority(0) did not get the default action")
	}
	if _, _, e := unix.Syscall(5000, 0, 0, 0); e != unix.ENOSYS {
		return errors.New("an unknown call did not get ENOSYS")
	}
	os.Stdout.WriteString("done " + os.Args[0])
	return nil
}

func TestKernelInstalls(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), installVar+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v: %s", err, out)
	}
	if !strings.HasPrefix(string(out), "done") {
		t.Errorf("child said %q", out)
	}
}
