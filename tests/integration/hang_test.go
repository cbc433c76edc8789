package integration

import (
	"os"
	"path/filepath"
	"strings"
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

// monopolize keeps the guest's only processor for itself: nothing else runs there
// any more, the agent least of all.
var monopolize = [...]byte{
	0xb8, 0x90, 0x00, 0x00, 0x00, //       mov eax, 144 // sched_setscheduler(2)
	0x31, 0xff, //                         xor edi, edi // itself
	0xbe, 0x01, 0x00, 0x00, 0x00, //       mov esi, 1   // SCHED_FIFO
	0x48, 0x8d, 0x15, 0x0d, 0x00, 0x00, 0x00, // lea rdx, [rip+13]
	0x0f, 0x05, //                         syscall
	0x85, 0xc0, //                         test eax, eax
	0x74, 0xfe, //                         jz $
	0xb8, 0x3c, 0x00, 0x00, 0x00, //       mov eax, 60  // exit(2)
	0x0f, 0x05, //                         syscall
	0x63, 0x00, 0x00, 0x00, //             priority 99
}

// spin runs it, without the limit that the kernel has for such.
const spin = "echo -1 >/proc/sys/kernel/sched_rt_runtime_us && echo ready && exec /monopolize"

// A workload that has the kernel print without an end.
const flood = "mknod /dev/kmsg c 1 11 && echo ready && while :; do echo '<0>flood flood flood flood' >/dev/kmsg; done"

// TestBusyGuest: what keeps a guest busy does not keep it alive.
func TestBusyGuest(t *testing.T) {
	powerful := func(s *specs.Spec) {
		caps := []string{"CAP_SYS_NICE", "CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_SYSLOG"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
	}
	for _, tt := range []struct{ name, script, end string }{
		{"spins, kill", spin, "kill"},
		{"spins, delete", spin, "delete"},
		{"floods its console, kill", flood, "kill"},
		{"floods its console, delete", flood, "delete"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRuntime(t)
			out := newOutput(t)
			log := filepath.Join(r.Dir, "log")
			r.Flags = []string{"--log", log}
			b := r.NewBundle(harness.Shell(tt.script), writableProc, powerful)
			if err := os.WriteFile(filepath.Join(b.Rootfs, "monopolize"), harness.Program(monopolize[:]), 0o755); err != nil {
				t.Fatal(err)
			}
			c := r.Create(b, nil, out.w).Start()
			out.expect("ready\n")
			time.Sleep(100 * time.Millisecond)
			begin := time.Now()
			if tt.end == "kill" {
				r.Must("kill", c.ID, "KILL")
			} else {
				r.Must("delete", "--force", c.ID)
			}
			if got := c.Wait(); got != 137 {
				t.Errorf("status: got %d, want 137", got)
			}
			took := time.Since(begin)
			t.Logf("it took %v", took)
			// A second, or what an emulated guest may need.
			if took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			if tt.end == "kill" {
				c.Delete()
			}
			text, err := os.ReadFile(log)
			if spins := tt.script == spin; err != nil || strings.Contains(string(text), "did not deliver a SIGKILL") != spins {
				t.Errorf("log: %q, %v", text, err)
			}
		})
	}
}
