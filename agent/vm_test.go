package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/api"
	"runv/agent/wire"
	"runv/libvm/guest"
)

func TestGuest(t *testing.T) {
	m := boot(t)
	ready := time.Now()
	wall := time.Now()
	c, err := m.a.Configure(t.Context(), &api.ConfigureRequest{
		UnixNanos: wall.UnixNano(), Entropy: make([]byte, 32), StreamPort: guest.StreamPort, Hostname: "host",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("kernel %s; the agent's first instruction %d ms after the kernel's; Configure took %v",
		c.KernelRelease, c.BootNanos/1e6, time.Since(ready))

	start := time.Now()
	out, errs, w := m.run(t, "first", testSpec("sh", "-c", "echo out; echo err >&2; exit 7"), nil)
	t.Logf("create to delete took %v", time.Since(start))
	if out != "out\n" || errs != "err\n" || w.Status != 7 {
		t.Errorf("%q %q %v", out, errs, w)
	}
	t.Run("cgroup", m.testCgroup)
	t.Run("oom", m.testOOM)
	t.Run("clock", m.testClock)
	t.Run("files", m.testFiles)
	t.Run("exec", m.testExec)
	t.Run("missing", m.testMissing)
	t.Run("many", m.testMany)
	t.Run("bulk", m.testBulk)
	t.Run("mmap", m.testMmap)
	t.Run("device filter", m.testDeviceFilter)
	t.Run("seccomp", m.testSeccomp)
	t.Run("user namespace", m.testUserNamespace)
	t.Run("terminal", m.testTerminal)
	t.Run("guest's pids", m.testGuestPids)
	t.Run("left", m.testLeft)

	s, err := m.a.Stats(t.Context(), &api.StatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("agent RSS %d KiB; guest uses %d KiB", s.AgentRss>>10, (s.MemTotal-s.MemAvailable)>>10)
	if s.AgentRss > 12<<20 {
		t.Errorf("the agent's RSS is %d bytes, more than 12 MiB", s.AgentRss)
	}
	// The host goes: the guest must end by itself.
	m.g.Close()
	select {
	case <-m.Done():
	case <-time.After(patience):
		t.Error("the guest outlives its host")
	}
}

func (m *machine) testCgroup(t *testing.T) {
	s := testSpec("sh", "-c", "cd /sys/fs/cgroup; cat memory.max cpu.max cpu.weight pids.max memory.swap.max 2>/dev/null | tr '\\n' ' '; cat /proc/self/cgroup; mkdir x 2>&1; mount | grep -c cgroup2")
	mem, quota, period, shares, pids := int64(64<<20), int64(50000), uint64(100000), uint64(1024), int64(99)
	s.Linux.Resources = &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &mem, Swap: &mem},
		CPU:    &specs.LinuxCPU{Quota: &quota, Period: &period, Shares: &shares},
		Pids:   &specs.LinuxPids{Limit: &pids},
	}
	s.Linux.CgroupsPath = "system.slice:runv:box"
	out, errs, _ := m.run(t, "cg", s, nil)
	f := strings.SplitN(out, "0::", 2)
	if !strings.HasPrefix(f[0], "67108864 50000 100000 100 99 ") || len(f) < 2 ||
		f[1] != "/\nmkdir: can't create directory 'x': Read-only file system\n1\n" {
		t.Errorf("%q %q", out, errs)
	}
}

func (m *machine) testOOM(t *testing.T) {
	s := testSpec("sh", "-c", "x=$(yes 0123456789abcdef | head -c 100000000); echo ${#x}")
	mem := int64(16 << 20)
	s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &mem, Swap: &mem}}
	if out, errs, w := m.run(t, "oom", s, nil); !w.OomKilled || w.Status != 137 {
		t.Errorf("%q %q %v", out, errs, w)
	}
}

func (m *machine) testClock(t *testing.T) {
	s := testSpec("busybox", "date", "+%s")
	s.Process.Args[0] = "/bin/busybox"
	out, _, _ := m.run(t, "clock", s, nil)
	var sec int64
	if _, err := fmt.Sscan(out, &sec); err != nil || time.Since(time.Unix(sec, 0)).Abs() > 20*time.Second {
		t.Errorf("the guest's clock says %q", out)
	}
}

func (m *machine) testFiles(t *testing.T) {
	s := testSpec("sh", "-c", "echo content > /tmp/file; mkdir /tmp/dir")
	s.Process.User = specs.User{UID: 1000, GID: 1001}
	if err := os.Chmod(filepath.Join(m.rootfs, "tmp"), 0o1777); err != nil || unix.Chmod(filepath.Join(m.rootfs, "tmp"), 0o1777) != nil {
		t.Fatal(err)
	}
	_, errs, w := m.run(t, "files", s, nil)
	var st unix.Stat_t
	err := unix.Stat(filepath.Join(m.rootfs, "tmp/file"), &st)
	b, _ := os.ReadFile(filepath.Join(m.rootfs, "tmp/file"))
	if err != nil || string(b) != "content\n" || st.Uid != 1000 || st.Gid != 1001 {
		t.Errorf("%q, owner %d:%d, %v; %q %v", b, st.Uid, st.Gid, err, errs, w)
	}
}

func (m *machine) testExec(t *testing.T) {
	streams, err := m.create(t, "ex", testSpec("sleep", "1000"), nil)
	if err != nil {
		t.Fatal(err)
	}
	conn(t, streams.in).Close()
	if _, err := m.a.StartContainer(t.Context(), &api.StartContainerRequest{Id: "ex"}); err != nil {
		t.Fatal(err)
	}
	var took []time.Duration
	exec := func(id string, args ...string) (string, uint32) {
		p := wire.MarshalProcess(&specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}})
		s, tokens := m.stdio()
		start := time.Now()
		if _, err := m.a.Exec(t.Context(), &api.ExecRequest{Id: "ex", ExecId: id, Process: p, Stdio: tokens}); err != nil {
			t.Errorf("exec: %v", err)
			return "", 0
		}
		conn(t, s.in).Close()
		out := <-text(conn(t, s.out))
		conn(t, s.err).Close()
		w, err := m.a.Wait(t.Context(), &api.WaitRequest{Id: "ex", ExecId: id})
		if err != nil {
			t.Error(err)
			return "", 0
		}
		took = append(took, time.Since(start))
		return out, w.Status
	}
	for i := range 5 {
		if out, status := exec(fmt.Sprint(i), "sh", "-c", "cat /proc/self/cgroup; hostname; exit 9"); out != "0::/\nbox\n" || status != 9 {
			t.Errorf("%q %d", out, status)
		}
	}
	t.Logf("execs of sh took %v", took)
	l, err := m.a.Processes(t.Context(), &api.ProcessesRequest{Id: "ex"})
	if err != nil || len(l.Processes) != 1 || l.Processes[0].ContainerPid != 1 {
		t.Errorf("%v %v", l, err)
	}
	if _, err := m.a.Signal(t.Context(), &api.SignalRequest{Id: "ex", Signal: 9}); err != nil {
		t.Error(err)
	}
	if w, err := m.a.Wait(t.Context(), &api.WaitRequest{Id: "ex"}); err != nil || w.Status != 137 {
		t.Errorf("%v %v", w, err)
	}
	if _, err := m.a.DeleteContainer(t.Context(), &api.DeleteContainerRequest{Id: "ex"}); err != nil {
		t.Error(err)
	}
}

func (m *machine) testMissing(t *testing.T) {
	_, err := m.create(t, "missing", testSpec("nosuch"), nil)
	want := `unable to start container process: exec: "nosuch": executable file not found in $PATH`
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	// The id is free again.
	if out, _, _ := m.run(t, "missing", testSpec("echo", "x"), nil); out != "x\n" {
		t.Errorf("%q", out)
	}
}

func (m *machine) testMany(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			id := fmt.Sprint("many", i)
			for range 4 {
				if out, _, w := m.run(t, id, testSpec("sh", "-c", "echo tail; exit 3"), nil); out != "tail\n" || w.Status != 3 {
					t.Errorf("%s: %q %v", id, out, w)
				}
			}
		})
	}
	wg.Wait()
}

// testBulk has a slow reader; the agent must not keep what is not taken.
func (m *machine) testBulk(t *testing.T) {
	const size = 32 << 20
	streams, err := m.create(t, "bulk", testSpec("dd", "if=/dev/zero", "bs=65536", "count=512"), nil)
	if err != nil {
		t.Fatal(err)
	}
	conn(t, streams.in).Close()
	out := conn(t, streams.out)
	start := time.Now()
	if _, err := m.a.StartContainer(t.Context(), &api.StartContainerRequest{Id: "bulk"}); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, out)
	if err != nil || n != size {
		t.Errorf("%d bytes of %d, %v", n, size, err)
	}
	t.Logf("%d MiB/s to the host", int(float64(n>>20)/time.Since(start).Seconds()))
	w, err := m.a.Wait(t.Context(), &api.WaitRequest{Id: "bulk"})
	if err != nil || w.Status != 0 || w.StdoutBytes != size {
		t.Errorf("%v %v", w, err)
	}
	if _, err := m.a.DeleteContainer(t.Context(), &api.DeleteContainerRequest{Id: "bulk"}); err != nil {
		t.Error(err)
	}
}
