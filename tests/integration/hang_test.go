package integration

import (
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

// TestGuestHangs: a guest that does nothing any more can still be ended.
func TestGuestHangs(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string // before the id
	}{
		{"kill", []string{"kill"}},
		{"delete", []string{"delete", "--force"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRuntime(t)
			c := r.Create(r.NewBundle(harness.Args("sleep", "1000"))).Start()
			if err := unix.Kill(hypervisor(t, c), unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			args := append(tt.args, c.ID)
			if tt.name == "kill" {
				args = append(args, "KILL")
			}
			r.Must(args...)
			if got := c.Wait(); got != 137 {
				t.Errorf("status: got %d, want 137", got)
			}
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
			if tt.name == "kill" {
				c.Delete()
			}
		})
	}
}

// TestSeccomp: the filter holds for the workload and for what is exec'd.
func TestSeccomp(t *testing.T) {
	c := sleeper(t, func(s *specs.Spec) {
		s.Process.NoNewPrivileges = false
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Architectures: []specs.Arch{specs.ArchX86_64},
			Syscalls: []specs.LinuxSyscall{
				{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: ptr(uint(unix.ENOTTY))},
				{Names: []string{"sync"}, Action: specs.ActKillProcess},
				// Older than the call, as some profiles are; without no_new_privs the
				// filter is on before the process is ready.
				{Names: []string{"close_range"}, Action: specs.ActErrno},
				{Names: []string{"kill"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 1, Value: 12, Op: specs.OpEqualTo}}},
			},
		}
	})
	defer c.End()
	want := "2\nmkdir: can't create directory '/tmp/d': Inappropriate ioctl for device\nBad system call\n159\nsh: can't kill pid 1: Operation not permitted\n0"
	if got := c.Output(field("Seccomp") + "; exec 2>&1; mkdir /tmp/d; sh -c sync; echo $?; kill -12 1; kill -0 1; echo $?"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestPidsLimit: the limits of the config are enforced.
func TestPidsLimit(t *testing.T) {
	c := sleeper(t, func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(8))}}
	})
	defer c.End()
	if got := c.Exec("for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo made"); got.Status == 0 {
		t.Errorf("got %+v, want a failed fork", got)
	}
}

// TestCheck: it says what works on this host.
func TestCheck(t *testing.T) {
	r := newRuntime(t)
	got := r.Run("check")
	if got.Status != 0 || got.Stdout == "" || got.Stderr != "" {
		t.Errorf("got %+v", got)
	}
	t.Log(got.Stdout)
}
