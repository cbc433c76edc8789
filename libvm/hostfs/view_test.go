package hostfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// inNamespace names the directory in which a re-exec'd child, in namespaces of
// its own, works; the parent removes it.
const inNamespace = "RUNV_HOSTFS_TEST_DIR"

// child runs the calling test once more in new mount and pid namespaces, of
// which it may make what it likes. In that run it returns a directory, else "".
func child(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv(inNamespace); dir != "" {
		if err := Separate(); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	if os.Getuid() != 0 {
		t.Skip("needs root to make namespaces (try: sudo make test)")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in its namespace: %v\n%s", err, out)
	}
	return ""
}

// write makes a file with its directories.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readIn(t *testing.T, root *os.File, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/%s", root.Fd(), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPrepareAndPivot(t *testing.T) {
	dir := child(t)
	if dir == "" {
		return
	}
	rootfs, data, file := filepath.Join(dir, "rootfs"), filepath.Join(dir, "data"), filepath.Join(dir, "hosts")
	write(t, rootfs+"/etc/passwd", "root")
	write(t, data+"/x", "shared")
	write(t, file, "127.0.0.1")
	write(t, filepath.Join(dir, "secret"), "of the host")
	// An image's dangling link, as resolv.conf often is, and one that climbs.
	if err := os.Symlink("../run/resolv.conf", rootfs+"/etc/resolv.conf"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../../../..", rootfs+"/up"); err != nil {
		t.Fatal(err)
	}
	spec := &specs.Spec{Root: &specs.Root{}, Mounts: []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts"},
		{Destination: "/up/data", Type: "bind", Source: data, Options: []string{"rbind", "ro"}},
		{Destination: "/etc/resolv.conf", Type: "bind", Source: "hosts", Options: []string{"bind"}},
	}}
	v, err := Prepare(dir, rootfs, spec)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()

	if got, want := len(v.Trees), 3; got != want {
		t.Fatalf("trees: got %d, want %d", got, want)
	}
	if got, want := v.Trees[0].Name, "rootfs"; got != want {
		t.Errorf("name of the rootfs: got %q, want %q", got, want)
	}
	if got, want := readIn(t, v.Trees[1].Root, "x"), "shared"; got != want {
		t.Errorf("served bind: got %q, want %q", got, want)
	}
	if err := unix.Mkdirat(int(v.Trees[1].Root.Fd()), "no", 0o755); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a served read-only bind: got %v, want EROFS", err)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/self/fd/%d/data/x", v.Trees[0].Root.Fd())); err == nil {
		t.Error("the served rootfs shows what is mounted over it")
	}
	checkMountPoints(t, rootfs, v)

	if err := v.Pivot(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/etc/passwd": "root", "/data/x": "shared", "/run/resolv.conf": "127.0.0.1"} {
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%s in the view: got %q, %v, want %q", path, b, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "secret")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the host's files after the pivot: got %v, want not to exist", err)
	}
	if self, err := os.Readlink("/proc/self"); err != nil || self != "1" {
		t.Errorf("/proc/self of the view: got %q, %v, want that of our own pid namespace", self, err)
	}
}

// checkMountPoints looks at what preparing the view has left in the rootfs.
func checkMountPoints(t *testing.T, rootfs string, v *View) {
	t.Helper()
	served := fmt.Sprintf("/proc/self/fd/%d/", v.Trees[0].Root.Fd())
	for _, made := range []string{"proc", "dev", "data", "run/resolv.conf"} {
		if _, err := os.Lstat(served + made); err != nil {
			t.Errorf("mount point: %v", err)
		}
	}
	if _, err := os.Lstat(served + "dev/pts"); err == nil {
		t.Errorf("a mount point inside of a tmpfs was made in the rootfs %s", rootfs)
	}
}

func TestPrepareReadOnlyRootfs(t *testing.T) {
	dir := child(t)
	if dir == "" {
		return
	}
	rootfs := filepath.Join(dir, "rootfs")
	write(t, rootfs+"/a", "a")
	spec := &specs.Spec{Root: &specs.Root{Readonly: true}, Mounts: []specs.Mount{{Destination: "/tmp/deep", Type: "tmpfs"}}}
	v, err := Prepare(dir, rootfs, spec)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := unix.Mkdirat(int(v.Trees[0].Root.Fd()), "no", 0o755); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to the served rootfs: got %v, want EROFS", err)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/self/fd/%d/tmp/deep", v.Trees[0].Root.Fd())); err != nil {
		t.Errorf("mount point made before it became read-only: %v", err)
	}
}

func TestPrepareErrors(t *testing.T) {
	dir := child(t)
	if dir == "" {
		return
	}
	rootfs := filepath.Join(dir, "rootfs")
	write(t, rootfs+"/file", "")
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		mount specs.Mount
		want  string
	}{
		{"missing source", specs.Mount{Destination: "/x", Type: "bind", Source: "/no/such"}, "no such file or directory"},
		{"fifo source", specs.Mount{Destination: "/x", Type: "bind", Source: dir + "/fifo", Options: []string{"bind"}}, "only directories, regular files, sockets and devices"},
		{"namespace source", specs.Mount{Destination: "/x", Type: "bind", Source: "/proc/self/ns/uts", Options: []string{"bind"}}, "a namespace of the host cannot be shared"},
		{"file system that is not there", specs.Mount{Destination: "/x", Type: "nosuchfs", Source: "y", Options: []string{"ro", "a=b"}}, "mount src=y, dst=/x, flags=MS_RDONLY, data=a=b: no such device"},
		{"file in the way", specs.Mount{Destination: "/file/x", Type: "tmpfs"}, "not a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Prepare(dir, rootfs, &specs.Spec{Mounts: []specs.Mount{tt.mount}})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), `error mounting "`+tt.mount.Source+`" to rootfs at "`+tt.mount.Destination+`"`) {
				t.Errorf("got %v, want an error with %q that names the mount", err, tt.want)
			}
		})
	}
}

// TestAttachedPaths: under a profile of AppArmor the files that are served have the
// container's paths.
func TestAttachedPaths(t *testing.T) {
	dir := child(t)
	if dir == "" {
		return
	}
	rootfs, data := filepath.Join(dir, "rootfs"), filepath.Join(dir, "data")
	write(t, rootfs+"/etc/passwd", "root")
	write(t, data+"/sub/x", "shared")
	spec := &specs.Spec{
		Process: &specs.Process{ApparmorProfile: "some"}, Root: &specs.Root{Path: rootfs},
		Mounts: []specs.Mount{{Destination: "/mnt/data", Type: "bind", Source: data, Options: []string{"bind"}}},
	}
	v, err := Prepare(dir, rootfs, spec)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := v.Pivot(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fchdir(int(v.Trees[1].Root.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chdir("sub"); err != nil {
		t.Fatal(err)
	}
	var b [4096]byte
	n, err := unix.Getcwd(b[:])
	if err != nil || string(b[:n-1]) != "/mnt/data/sub" {
		t.Errorf("path of what is served: %q, %v", b[:n], err)
	}
	// What is served of the root lies under the view, whose mounts it must not have.
	if err := unix.Fchdir(int(v.Trees[0].Root.Fd())); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir("mnt/data"); err != nil || len(entries) != 0 {
		t.Errorf("the view's mount in the served root: %v, %v", entries, err)
	}
}
