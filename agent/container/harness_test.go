package container

import (
	"bytes"
	"context"
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

	"runv/agent/reap"
	"runv/agent/setup"
	"runv/agent/stream"
	"runv/agent/task"
	"runv/agent/wire"
)

// patience bounds each wait of a test.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	if os.Args[0] == setup.Argv0 {
		os.Exit(setup.Main())
	}
	os.Exit(m.Run())
}

// env is a Manager on this machine instead of in a guest, with the host's end of
// the streams.
type env struct {
	m *Manager

	mu    sync.Mutex
	conns map[string]chan net.Conn
}

// reaper is one for all tests: there is one set of children.
var reaper = sync.OnceValue(func() *reap.Table {
	t := reap.New()
	go t.Run(context.Background())
	return t
})

func newEnv(t *testing.T) *env {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs namespaces (try: run the tests as root)")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("no busybox (try: apt-get install busybox-static)")
	}
	last, err := task.LastCap()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o755) // a user namespace's root walks through it
	}
	e := &env{conns: make(map[string]chan net.Conn)}
	e.m = &Manager{
		Reaper: reaper(), Dial: e.dial, Exe: "/proc/self/exe",
		RunDir: dir, Base: filepath.Join(dir, "root"), Trees: filepath.Join(dir, "trees"),
		CgroupRoot: cgroup2(t), LastCap: last,
	}
	makeRootfs(t, filepath.Join(e.m.Trees, "k", "rootfs"), busybox)
	if err := os.Mkdir(e.m.Base, 0o755); err != nil {
		t.Fatal(err)
	}
	return e
}

func cgroup2(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir
		}
	}
	t.Skip("no cgroup v2 hierarchy (try: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified)")
	return ""
}

func makeRootfs(t *testing.T, root, busybox string) {
	t.Helper()
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "root"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"bin/busybox": string(b), "etc/passwd": "root:x:0:0::/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n",
		"bin/notexec": "#!/bin/sh\n", "bin/badformat": "hello\n",
	}
	for name, content := range files {
		mode := os.FileMode(0o755)
		if name == "etc/passwd" || name == "bin/notexec" {
			mode = 0o644
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range strings.Fields("sh cat echo id ls mount sleep stat stty hostname kill env pwd head yes dd grep touch ps tty cut true ulimit sync nohup setsid rm mkdir readlink test printf wc tr") {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", a)); err != nil {
			t.Fatal(err)
		}
	}
}

func (e *env) token(name string) []byte {
	b := make([]byte, stream.TokenSize)
	copy(b, name)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conns[string(b)] = make(chan net.Conn, 1)
	return b
}

func (e *env) dial() (stream.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	conn := func(fd int) (*net.UnixConn, error) {
		f := os.NewFile(uintptr(fd), "stream")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			return nil, err
		}
		return c.(*net.UnixConn), nil
	}
	a, err := conn(fds[0])
	b, err2 := conn(fds[1])
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	go func() {
		var token [stream.TokenSize]byte
		if _, err := io.ReadFull(b, token[:]); err != nil {
			b.Close()
			return
		}
		e.mu.Lock()
		c := e.conns[string(token[:])]
		e.mu.Unlock()
		if c == nil {
			b.Close()
			return
		}
		c <- b
	}()
	return a, nil
}

// host returns the host's end of a stream.
func (e *env) host(t *testing.T, token []byte) *net.UnixConn {
	t.Helper()
	e.mu.Lock()
	c := e.conns[string(token)]
	e.mu.Unlock()
	select {
	case conn := <-c:
		_ = conn.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { conn.Close() })
		return conn.(*net.UnixConn)
	case <-time.After(patience):
		t.Fatal("the agent did not dial")
		return nil
	}
}

// job is a container under test, with its streams read.
type job struct {
	e      *env
	c      *Container
	stdin  *net.UnixConn
	stdout *net.UnixConn
	stderr *net.UnixConn
}

func baseSpec(args ...string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE"}
	return &specs.Spec{
		Root: &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin", "TERM=xterm"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Hostname: "box",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace},
			{Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.CgroupNamespace},
		}},
	}
}

// create makes a container called after the test.
func (e *env) create(t *testing.T, s *specs.Spec, trees ...Tree) (*job, error) {
	t.Helper()
	return e.createWith(t, s, nil, trees...)
}

// createWith is create with descriptors behind stdio.
func (e *env) createWith(t *testing.T, s *specs.Spec, extra []File, trees ...Tree) (*job, error) {
	t.Helper()
	b := wire.MarshalSpec(s, nil)
	id := fmt.Sprintf("runv-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	io := Stdio{Stdin: e.token("in" + id[len(id)-8:]), Extra: extra}
	if !s.Process.Terminal {
		io.Stdout, io.Stderr = e.token("out"+id[len(id)-8:]), e.token("err"+id[len(id)-8:])
	}
	c, err := e.m.Create(&CreateRequest{
		ID: id, Spec: b, Stdio: io, Trees: append(trees, Tree{Mount: -1, Path: "k/rootfs"}),
	})
	if err != nil {
		for _, token := range [][]byte{io.Stdin, io.Stdout, io.Stderr} {
			if len(token) > 0 {
				e.host(t, token).Close()
			}
		}
		return nil, err
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := e.m.Delete(ctx, id); err != nil && !errors.Is(err, ErrNotExist) {
			t.Errorf("delete: %v", err)
		}
	})
	j := &job{e: e, c: c, stdin: e.host(t, io.Stdin)}
	if !s.Process.Terminal {
		j.stdout, j.stderr = e.host(t, io.Stdout), e.host(t, io.Stderr)
	}
	return j, nil
}

func (j *job) wait(t *testing.T, execID string) Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	e, err := j.c.Wait(ctx, execID)
	if err != nil {
		t.Fatalf("wait %q: %v", execID, err)
	}
	return e
}

// run creates and starts a container and returns its output.
func (e *env) run(t *testing.T, s *specs.Spec, trees ...Tree) (stdout, stderr string, x Exit) {
	t.Helper()
	j, err := e.create(t, s, trees...)
	if err != nil {
		t.Fatal(err)
	}
	return j.finish(t)
}

func (j *job) finish(t *testing.T) (string, string, Exit) {
	t.Helper()
	if err := j.c.Start(); err != nil {
		t.Fatal(err)
	}
	_ = j.stdin.CloseWrite()
	out, errs := readAll(j.stdout), readAll(j.stderr)
	stdout, stderr := <-out, <-errs
	return stdout, stderr, j.wait(t, "")
}

func readAll(r io.Reader) <-chan string {
	c := make(chan string, 1)
	go func() {
		var b bytes.Buffer
		_, _ = io.Copy(&b, r)
		c <- b.String()
	}()
	return c
}

// inheritedIgnores is the mask of signals that this process was started with as
// ignored, and does not handle: what it starts has the same. There are none in
// a guest, but GNU make starts its children with some of the C library's.
func inheritedIgnores(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "\nSigIgn:\t")
	if !ok || len(rest) < 16 {
		t.Fatalf("no SigIgn in %q", b)
	}
	return rest[:16]
}
