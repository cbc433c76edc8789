package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/api"
	"runv/agent/wire"
	"runv/libvm/devfilter"
	"runv/libvm/seccomp"
)

// Pages written through a shared mapping are on the host when Wait returns.
func (m *machine) testMmap(t *testing.T) {
	build := exec.Command("go", "build", "-o", filepath.Join(m.rootfs, "bin/mmap"), "./testdata/mmap")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	_, errs, w := m.run(t, "mmap", testSpec("mmap", "/tmp/mapped"), nil)
	b, err := os.ReadFile(filepath.Join(m.rootfs, "tmp/mapped"))
	if err != nil || string(b) != "by mmap\n" {
		t.Errorf("%q %v; %q %v", b, err, errs, w)
	}
}

func (m *machine) testDeviceFilter(t *testing.T) {
	s := testSpec("sh", "-c", "echo x > /dev/null && echo ok; head -c 1 /dev/kmsg 2>&1")
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11}}
	s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
	filter, err := devfilter.Compile(s.Linux)
	if err != nil || len(filter) == 0 {
		t.Fatal(len(filter), err)
	}
	out, errs, _ := m.run(t, "dev", s, func(r *api.CreateContainerRequest) { r.DeviceFilter = filter })
	if want := "ok\nhead: /dev/kmsg: Operation not permitted\n"; out != want {
		t.Errorf("%q %q, want %q", out, errs, want)
	}
}

func (m *machine) testSeccomp(t *testing.T) {
	f, err := seccomp.Compile(&specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, nnp := range []bool{false, true} {
		s := testSpec("sh", "-c", "mkdir /tmp/forbidden 2>&1; grep Seccomp: /proc/self/status | cut -f2")
		s.Process.NoNewPrivileges = nnp
		out, errs, _ := m.run(t, "sec", s, func(r *api.CreateContainerRequest) {
			r.Seccomp, r.SeccompFlags = f.Program, f.Flags
		})
		if want := "mkdir: can't create directory '/tmp/forbidden': Operation not permitted\n2\n"; out != want {
			t.Errorf("no_new_privs %v: %q %q, want %q", nnp, out, errs, want)
		}
	}
}

func (m *machine) testUserNamespace(t *testing.T) {
	if err := unix.Chown(m.rootfs, 100000, 100000); err != nil {
		t.Fatal(err)
	}
	defer unix.Chown(m.rootfs, 0, 0) //nolint:errcheck // it goes anyway
	s := testSpec("sh", "-c", "id -u; cat /proc/self/uid_map | tr -s ' '; echo x > /tmp/user; echo y > /dev/null; ls /sys | grep -c kernel; cat /proc/self/cgroup")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	out, errs, _ := m.run(t, "user", s, nil)
	if want := "0\n 0 100000 65536\n1\n0::/\n"; out != want || errs != "" {
		t.Errorf("%q %q, want %q", out, errs, want)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(m.rootfs, "tmp/user"), &st); err != nil || st.Uid != 100000 {
		t.Errorf("owner %d, %v", st.Uid, err)
	}
}

func (m *machine) testTerminal(t *testing.T) {
	s := testSpec("sh", "-c", "stty size; read x; echo got $x; stty size; exit 5")
	s.Process.Terminal = true
	b := wire.MarshalSpec(s, nil)
	tty := m.g.NewStream()
	if _, err := m.a.CreateContainer(t.Context(), &api.CreateContainerRequest{
		Id: "tty", Spec: b, Stdio: &api.Stdio{Stdin: tty.Token}, Trees: []*api.Tree{{Mount: -1, Path: "k/rootfs"}}, Rows: 24, Cols: 80,
	}); err != nil {
		t.Fatal(err)
	}
	c := conn(t, tty)
	if _, err := m.a.StartContainer(t.Context(), &api.StartContainerRequest{Id: "tty"}); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, len("24 80\n"))
	if _, err := io.ReadFull(c, first); err != nil || string(first) != "24 80\n" {
		t.Errorf("%q %v", first, err)
	}
	if _, err := m.a.Resize(t.Context(), &api.ResizeRequest{Id: "tty", Rows: 5, Cols: 6}); err != nil {
		t.Error(err)
	}
	if _, err := c.Write([]byte("word\n")); err != nil {
		t.Error(err)
	}
	rest := <-text(c)
	if want := "word\ngot word\n5 6\n"; rest != want {
		t.Errorf("%q, want %q", rest, want)
	}
	w, err := m.a.Wait(t.Context(), &api.WaitRequest{Id: "tty"})
	if err != nil || w.Status != 5 || w.StdoutBytes != uint64(len(first)+len(rest)) {
		t.Errorf("%v %v", w, err)
	}
	if _, err := m.a.DeleteContainer(t.Context(), &api.DeleteContainerRequest{Id: "tty"}); err != nil {
		t.Error(err)
	}
}

// Nothing is left in the guest when all containers are deleted.
func (m *machine) testLeft(t *testing.T) {
	s := testSpec("sh", "-c", "mount -t cgroup2 cgroup2 /sys/fs/cgroup && ls -d /sys/fs/cgroup/*/; mount | grep -c .")
	s.Linux.Namespaces = s.Linux.Namespaces[:len(s.Linux.Namespaces)-1] // the guest's cgroups
	s.Mounts = s.Mounts[:len(s.Mounts)-1]                               // of which the config's mount shows a part
	s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_SYS_ADMIN")
	s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = s.Process.Capabilities.Bounding, s.Process.Capabilities.Bounding
	s.Linux.CgroupsPath = "/only"
	out, errs, _ := m.run(t, "left", s, nil)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 2 || lines[0] != "/sys/fs/cgroup/only/" {
		t.Errorf("cgroups %q %q, want only that of the container that looks", lines, errs)
	}
}

// A container in the guest's own pid namespace can reach PID 1, and leave
// processes behind: neither matters.
func (m *machine) testGuestPids(t *testing.T) {
	s := testSpec("sh", "-c", "kill -TERM 1; kill -INT 1; sleep 1000 & echo $(($$ > 1))")
	s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	s.Hostname = ""
	out, errs, w := m.run(t, "pids", s, nil)
	if out != "1\n" || errs != "" || w.Status != 0 {
		t.Errorf("%q %q %v", out, errs, w)
	}
}
