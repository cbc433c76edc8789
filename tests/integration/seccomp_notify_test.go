package integration

import (
	"encoding/binary"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

// The ioctls of a seccomp listener and the sizes of their structs (linux/seccomp.h).
const (
	notifRecv = 0xc0502100
	notifSend = 0xc0182101
	notifSize = 80
	respSize  = 24
)

// supervisor answers notified calls as verdict says, and returns what it was told of
// the processes.
func supervisor(t *testing.T, path string, verdict func(nr uint32, args [6]uint64) (value int64, errno int32, flags uint32)) <-chan specs.ContainerProcessState {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) //nolint:errcheck // the test's end
	states := make(chan specs.ContainerProcessState, 16)
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			buf, oob := make([]byte, 1<<16), make([]byte, 64)
			n, o, _, _, err := c.ReadMsgUnix(buf, oob)
			c.Close() //nolint:errcheck // read
			if err != nil {
				t.Error(err)
				continue
			}
			var s specs.ContainerProcessState
			if err := json.Unmarshal(buf[:n], &s); err != nil {
				t.Error(err)
			}
			msgs, _ := unix.ParseSocketControlMessage(oob[:o])
			if len(msgs) != 1 {
				t.Errorf("%d control messages", len(msgs))
				continue
			}
			fds, _ := unix.ParseUnixRights(&msgs[0])
			states <- s
			go supervise(fds[0], verdict)
		}
	}()
	return states
}

func supervise(fd int, verdict func(uint32, [6]uint64) (int64, int32, uint32)) {
	defer unix.Close(fd)
	for {
		var notif [notifSize / 8]uint64
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifRecv, uintptr(unsafe.Pointer(&notif))); e != 0 {
			return
		}
		var args [6]uint64
		copy(args[:], notif[4:])
		value, errno, flags := verdict(uint32(notif[2]), args)
		var resp [respSize]byte
		binary.NativeEndian.PutUint64(resp[0:], notif[0])
		binary.NativeEndian.PutUint64(resp[8:], uint64(value))
		binary.NativeEndian.PutUint32(resp[16:], uint32(errno))
		binary.NativeEndian.PutUint32(resp[20:], flags)
		unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifSend, uintptr(unsafe.Pointer(&resp))) //nolint:errcheck // the call may be gone
	}
}

// TestSeccompNotify: a supervisor on the host answers system calls of the guest.
func TestSeccompNotify(t *testing.T) {
	r := newRuntime(t)
	path := filepath.Join(r.Dir, "supervisor")
	states := supervisor(t, path, func(nr uint32, args [6]uint64) (int64, int32, uint32) {
		switch {
		case nr == unix.SYS_RMDIR:
			return 0, -int32(unix.EXDEV), 0
		case nr == unix.SYS_SYMLINK:
			return 0, 0, 0 // it is said to be done
		case nr == unix.SYS_MKDIR && args[1] != 0o777:
			t.Errorf("mkdir with arguments %x", args)
		case nr == unix.SYS_GETPPID:
			return 4711, 0, 0
		}
		return 0, 0, unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	})
	for _, tt := range []struct {
		name string
		nnp  bool
	}{{"before the privileges go", false}, {"right before the exec", true}} {
		t.Run(tt.name, func(t *testing.T) {
			r.In(t)
			b := r.NewBundle(harness.Shell("rmdir /bin; ln -s x /b; mkdir /c; ls -d /b /c; echo $PPID; sleep 1000"), func(s *specs.Spec) {
				s.Process.NoNewPrivileges = tt.nnp
				s.Linux.Seccomp = &specs.LinuxSeccomp{
					DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64},
					ListenerPath: path, ListenerMetadata: "some words",
					Flags:    []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv},
					Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "rmdir", "symlink", "getppid", "setresuid", "execve"}, Action: specs.ActNotify}},
				}
			})
			out, err := os.Create(filepath.Join(b.Dir, "out"))
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close() //nolint:errcheck // read by its name
			c := r.Create(b, nil, out, out).Start()
			defer c.End()
			const want = "rmdir: '/bin': Invalid cross-device link\nls: /b: No such file or directory\n/c\n4711\n"
			harness.Within(t, harness.Limit, "the workload's output", func() bool {
				got, _ := os.ReadFile(out.Name())
				return strings.HasSuffix(string(got), "\n4711\n")
			})
			if got, _ := os.ReadFile(out.Name()); string(got) != want {
				t.Errorf("got %q, want %q", got, want)
			}
			s := <-states
			if s.Metadata != "some words" || s.Pid != c.PID || s.State.ID != c.ID || s.State.Bundle != b.Dir || len(s.Fds) != 1 || s.Fds[0] != specs.SeccompFdName {
				t.Errorf("the supervisor was told %+v", s)
			}
			if got := c.Output("ln -s x /d; ls -d /d 2>&1; echo $PPID; mkdir /e && ls -d /e"); got != "ls: /d: No such file or directory\n4711\n/e" {
				t.Errorf("exec: got %q", got)
			}
			if s := <-states; s.State.Status != specs.StateRunning {
				t.Errorf("the supervisor was told %+v of an exec", s)
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		r.In(t)
		b := r.NewBundle(harness.Args("true"), func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow, ListenerPath: path + ".not",
				Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}},
			}
		})
		got := r.Run("run", "--bundle", b.Dir, r.NewID())
		if got.Status != 1 || !strings.Contains(got.Stderr, "failed to connect with seccomp agent specified in the seccomp profile") {
			t.Errorf("got %+v", got)
		}
	})
}
