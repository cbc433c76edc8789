package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/api"
	"runv/libvm/guest"
	"runv/libvm/initramfs"
	"runv/libvm/vhostuser"
	"runv/libvm/virtio/fs"
	"runv/libvm/virtio/fs/passthrough"
	"runv/libvm/virtio/vsock"
)

// patience bounds each wait; a guest is emulated, and the machine shared.
const patience = 60 * time.Second

// machine is a guest under QEMU with the agent as its init.
type machine struct {
	g      *guest.Guest
	a      api.AgentService
	rootfs string // on the host
	ended  chan struct{}
	out    *console
}

// console keeps what the guest prints.
type console struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(b)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}

func boot(t *testing.T) *machine {
	t.Helper()
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("no qemu-system-x86_64 (try: apt-get install qemu-system-x86)")
	}
	kernel := os.Getenv("RUNV_TEST_KERNEL")
	if kernel == "" {
		t.Skip("no guest kernel (try: make kernel, and RUNV_TEST_KERNEL=FILE)")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil || os.Getuid() != 0 {
		t.Skip("no busybox, or not root (try: apt-get install busybox-static, as root)")
	}
	m := &machine{rootfs: filepath.Join(t.TempDir(), "rootfs"), ended: make(chan struct{}), out: &console{}}
	makeRootfs(t, m.rootfs, busybox)
	v := vsock.New(3)
	if m.g, err = guest.New(v); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.g.Close)
	m.start(t, qemu, kernel, v, shared(t, m.rootfs))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() {
		select {
		case <-m.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := m.g.Accept(ctx); err != nil {
		t.Fatalf("%v\n%s", err, m.out)
	}
	m.a = m.g.Agent()
	return m
}

func shared(t *testing.T, rootfs string) *fs.Device {
	t.Helper()
	server, err := passthrough.NewServer(passthrough.Options{})
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(rootfs)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := server.AddTree("k", "rootfs", root, false); err != nil {
		t.Fatal(err)
	}
	d, err := fs.New("runv", 1, server)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (m *machine) start(t *testing.T, qemu, kernel string, v *vsock.Device, f *fs.Device) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, qemu, "-M", "microvm,accel=tcg,acpi=off,memory-backend=mem",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-m", "512M", "-smp", "1", "-cpu", "max",
		"-object", "memory-backend-memfd,id=mem,size=512M,share=on",
		"-global", "virtio-mmio.force-legacy=false",
		"-chardev", "socket,id=c0,fd=3", "-device", "vhost-user-vsock-device,chardev=c0",
		"-chardev", "socket,id=c1,fd=4", "-device", "vhost-user-fs-device,chardev=c1,tag=runv,queue-size=512",
		"-kernel", kernel, "-initrd", initrd(t), "-serial", "stdio",
		"-append", "console=ttyS0 reboot=t panic=-1 quiet "+os.Getenv("RUNV_TEST_CMDLINE"))
	cmd.Stdout, cmd.Stderr = m.out, m.out
	var served sync.WaitGroup
	for i := range 2 {
		conn, frontend, err := vhostuser.Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer frontend.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, frontend)
		served.Go(func() {
			var err error
			if i == 0 {
				err = vhostuser.Serve(ctx, conn, v)
			} else {
				err = vhostuser.Serve(ctx, conn, f)
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("vhost-user: %v", err)
			}
		})
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait()
		close(m.ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-m.ended
		served.Wait()
		if t.Failed() {
			t.Logf("console:\n%s", m.out)
		}
	})
}

func initrd(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "agent")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	agent, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	if len(agent) > 8<<20 {
		t.Errorf("the agent has %d bytes, more than 8 MiB", len(agent))
	}
	var image bytes.Buffer
	if err := initramfs.Write(&image, agent, nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "initrd")
	if err := os.WriteFile(path, image.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func makeRootfs(t *testing.T, root, busybox string) {
	t.Helper()
	for _, d := range []string{"bin", "etc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, a := range strings.Fields("sh cat echo id ls mount sleep stat stty hostname grep true cut tr dd wc mkdir head touch yes") {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", a)); err != nil {
			t.Fatal(err)
		}
	}
}

func testSpec(args ...string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_KILL", "CAP_MKNOD"}
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Hostname: "box",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace},
			{Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.CgroupNamespace},
		}},
	}
}

// ends are three streams, and what is to be read of two of them.
type ends struct{ in, out, err *guest.Stream }

func (m *machine) stdio() (*ends, *api.Stdio) {
	s := &ends{m.g.NewStream(), m.g.NewStream(), m.g.NewStream()}
	return s, &api.Stdio{Stdin: s.in.Token, Stdout: s.out.Token, Stderr: s.err.Token}
}

func conn(t *testing.T, s *guest.Stream) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := s.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// text reads an output stream, and closes it as the monitor does at its EOF.
func text(c net.Conn) <-chan string {
	out := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(c)
		c.Close()
		out <- string(b)
	}()
	return out
}

func (m *machine) create(t *testing.T, id string, s *specs.Spec, change func(*api.CreateContainerRequest)) (*ends, error) {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	streams, tokens := m.stdio()
	r := &api.CreateContainerRequest{
		Id: id, Spec: b, Stdio: tokens, Trees: []*api.Tree{{Mount: -1, Path: "k/rootfs"}},
	}
	if change != nil {
		change(r)
	}
	_, err = m.a.CreateContainer(t.Context(), r)
	return streams, err
}

// run runs a container to its end, and deletes it.
func (m *machine) run(t *testing.T, id string, s *specs.Spec, change func(*api.CreateContainerRequest)) (stdout, stderr string, w *api.WaitResponse) {
	t.Helper()
	streams, err := m.create(t, id, s, change)
	if err != nil {
		t.Fatal(err)
	}
	conn(t, streams.in).Close()
	out, errs := text(conn(t, streams.out)), text(conn(t, streams.err))
	if _, err := m.a.StartContainer(t.Context(), &api.StartContainerRequest{Id: id}); err != nil {
		t.Fatal(err)
	}
	w, err = m.a.Wait(t.Context(), &api.WaitRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr = <-out, <-errs
	if _, err := m.a.DeleteContainer(t.Context(), &api.DeleteContainerRequest{Id: id}); err != nil {
		t.Errorf("delete: %v", err)
	}
	return stdout, stderr, w
}

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
	case <-m.ended:
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
		p, err := json.Marshal(&specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}})
		if err != nil {
			t.Error(err)
		}
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
	streams, err := m.create(t, "bulk", testSpec("head", "-c", fmt.Sprint(size), "/dev/zero"), nil)
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
