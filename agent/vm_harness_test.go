package main

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/agent/api"
	"runv/agent/wire"
	"runv/libvm/guest"
	"runv/libvm/qemu/qemutest"
	"runv/libvm/virtio/fs"
	"runv/libvm/virtio/fs/passthrough"
	"runv/libvm/virtio/vsock"
)

// patience bounds each wait; a guest is emulated, and the machine shared.
const patience = 60 * time.Second

// machine is a guest under QEMU with the agent as its init.
type machine struct {
	*qemutest.Machine
	g      *guest.Guest
	a      api.AgentService
	rootfs string // on the host
}

func boot(t *testing.T) *machine {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil || os.Getuid() != 0 {
		t.Skip("no busybox, or not root (try: apt-get install busybox-static, as root)")
	}
	m := &machine{Machine: qemutest.New(t, program(t)), rootfs: filepath.Join(t.TempDir(), "rootfs")}
	makeRootfs(t, m.rootfs, busybox)
	v := vsock.New(3)
	if m.g, err = guest.New(v); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.g.Close)
	m.Memory, m.Args, m.Append = 512, []string{"-cpu", "max"}, os.Getenv("RUNV_TEST_CMDLINE")
	m.Attach("vhost-user-vsock-device", v)
	m.Attach("vhost-user-fs-device,tag=runv,queue-size=512", shared(t, m.rootfs))
	m.Start(context.Background())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() {
		select {
		case <-m.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := m.g.Accept(ctx); err != nil {
		t.Fatal(err)
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
	if err := server.AddTree("k", "rootfs", root, passthrough.TreeOptions{}); err != nil {
		t.Fatal(err)
	}
	d, err := fs.New("runv", 1, server)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// program is the agent as it is embedded.
func program(t *testing.T) []byte {
	t.Helper()
	b := qemutest.Build(t, ".", "-trimpath", "-ldflags", "-s -w")
	if len(b) > 8<<20 {
		t.Errorf("the agent has %d bytes, more than 8 MiB", len(b))
	}
	return b
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
	b := wire.MarshalSpec(s, nil)
	streams, tokens := m.stdio()
	r := &api.CreateContainerRequest{
		Id: id, Spec: b, Stdio: tokens, Trees: []*api.Tree{{Mount: -1, Path: "k/rootfs"}},
	}
	if change != nil {
		change(r)
	}
	_, err := m.a.CreateContainer(t.Context(), r)
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
