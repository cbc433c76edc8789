package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

// loop makes a loop device over a new file of some MiB, with an ext4 file system
// if label is not empty, and returns its path and its number.
func loop(t *testing.T, dir, label string, mib int64, flags ...string) (path string, major, minor int64) {
	t.Helper()
	img := filepath.Join(dir, fmt.Sprintf("img%d", len(flags))+label)
	f, err := os.Create(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // its size is set
	if err := f.Truncate(mib << 20); err != nil {
		t.Fatal(err)
	}
	if label != "" {
		if out, err := exec.Command("mkfs.ext4", "-q", "-L", label, img).CombinedOutput(); err != nil {
			t.Skipf("mkfs.ext4: %v, %s (try: apt-get install e2fsprogs)", err, out)
		}
	}
	out, err := exec.Command("losetup", append(flags, "--find", "--show", img)...).Output()
	if err != nil {
		t.Skipf("losetup: %v (needs a kernel with loop devices)", err)
	}
	path = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", path).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v, %s", err, out)
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return path, int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
}

func blockDevice(path string, major, minor int64, access string) harness.Change {
	return func(s *specs.Spec) {
		s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: path, Type: "b", Major: major, Minor: minor, GID: ptr(uint32(6))})
		if access != "" {
			s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: &major, Minor: &minor, Access: access})
		}
	}
}

// TestBlockDevice: a block device of the host is one in the guest, with what is on
// it, and what the guest writes is on the host's.
func TestBlockDevice(t *testing.T) {
	r := newRuntime(t)
	path, major, minor := loop(t, r.Dir, "", 16)
	content := bytes.Repeat([]byte("0123456789abcde\n"), 16<<20/16)
	if err := os.WriteFile(path, content, 0); err != nil {
		t.Fatal(err)
	}
	b := r.NewBundle(harness.Shell(`stat -c '%F %a %u:%g' /dev/data; blockdev --getsize64 /dev/data; md5sum </dev/data
		printf 'from the guest' | dd of=/dev/data bs=1 seek=5000 conv=notrunc 2>/dev/null; dd if=/dev/zero of=/dev/data bs=1M seek=8 count=4 conv=notrunc,fsync 2>/dev/null
		md5sum </dev/data; (: </dev/none) 2>&1`),
		blockDevice("/dev/data", major, minor, "rw"), blockDevice("/dev/none", 7, 99999, "rw"))
	got := r.Run("run", "--bundle", b.Dir, r.NewID())
	before := md5(t, content)
	copy(content[5000:], "from the guest")
	clear(content[8<<20 : 12<<20])
	want := fmt.Sprintf("block special file 666 0:6\n%d\n%s  -\n%s  -\nsh: can't open /dev/none: No such device or address\n", len(content), before, md5(t, content))
	if strings.ReplaceAll(got.Stdout, "'", "") != strings.ReplaceAll(want, "'", "") {
		t.Errorf("got %q, %q, want %q", got.Stdout, got.Stderr, want)
	}
	if on, err := os.ReadFile(path); err != nil || !bytes.Equal(on, content) {
		t.Errorf("on the host is not what the guest wrote: %v", err)
	}
}

func md5(t *testing.T, b []byte) string {
	t.Helper()
	cmd := exec.Command("md5sum")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	sum, _, _ := strings.Cut(string(out), " ")
	return sum
}

// TestBlockDeviceAccess: what the rules and the device say holds in the guest and
// on the host.
func TestBlockDeviceAccess(t *testing.T) {
	r := newRuntime(t)
	const script = `exec 2>&1; (head -c 4 /dev/data >/dev/null) && echo read; (echo x >/dev/data) && sync && echo written; cat /sys/block/vda/ro`
	for _, tt := range []struct {
		name, access string
		flags        []string
		want         string
	}{
		{"reading and writing", "rw", nil, "read\nwritten\n0\n"},
		{"reading", "r", nil, "read\nsh: can't create /dev/data: Operation not permitted\n1\n"},
		{"writing", "w", nil, "head: /dev/data: Operation not permitted\nwritten\n0\n"},
		{"nothing", "", nil, "head: /dev/data: Operation not permitted\nsh: can't create /dev/data: Operation not permitted\ncat: can't open '/sys/block/vda/ro': No such file or directory\n"},
		{"a read-only device", "rw", []string{"--read-only"}, "read\nsh: write error: Operation not permitted\n1\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.In(t)
			dir := t.TempDir()
			path, major, minor := loop(t, dir, "", 1, tt.flags...)
			b := r.NewBundle(harness.Shell(script), blockDevice("/dev/data", major, minor, tt.access))
			if got := r.Run("run", "--bundle", b.Dir, r.NewID()); got.Stdout != tt.want {
				t.Errorf("got %q, %q, want %q", got.Stdout, got.Stderr, tt.want)
			}
			on, err := os.ReadFile(path)
			if err != nil || (on[0] == 'x') != strings.Contains(tt.want, "written") {
				t.Errorf("on the host: %q, %v", on[:2], err)
			}
		})
	}
}

// TestBlockDeviceMount: a file system on a disk can be mounted by the container,
// by the config, and its node can be bound.
func TestBlockDeviceMount(t *testing.T) {
	r := newRuntime(t)
	path, major, minor := loop(t, r.Dir, "disk", 16)
	access := blockDevice("/dev/data", major, minor, "rwm")
	b := r.NewBundle(harness.Shell(`mkdir /m; mount -t ext4 /dev/bound /m && echo inside >/m/file && umount /m && echo done; dd if=/dev/data bs=1 skip=1144 count=4 2>/dev/null`),
		withMounts(bind(path, "/dev/bound", "bind")), access)
	if got := r.Run("run", "--bundle", b.Dir, r.NewID()); got.Stdout != "done\ndisk" {
		t.Errorf("mounted by the container: %q, %q", got.Stdout, got.Stderr)
	}
	b = r.NewBundle(harness.Shell(flags+`flags /m; cat /m/file; echo more >>/m/file; sync`),
		withMounts(specs.Mount{Destination: "/m", Type: "ext4", Source: path, Options: []string{"noatime"}}), access)
	if got := r.Run("run", "--bundle", b.Dir, r.NewID()); got.Stdout != "/m rw,noatime virtiofs runv\ninside\n" {
		t.Errorf("mounted by the config: %q, %q", got.Stdout, got.Stderr)
	}
	b = r.NewBundle(harness.Shell(`mkdir /m; mount -t ext4 -o ro /dev/data /m && cat /m/file`), withMounts(), access)
	if got := r.Run("run", "--bundle", b.Dir, r.NewID()); got.Stdout != "inside\nmore\n" {
		t.Errorf("what was written: %q, %q", got.Stdout, got.Stderr)
	}
}

// TestManyBlockDevices: as many as a machine takes are passed on, the others are
// nodes, and told of.
func TestManyBlockDevices(t *testing.T) {
	r := newRuntime(t)
	const n = 6
	var changes []harness.Change
	for i := range n {
		dir := filepath.Join(r.Dir, itoa(i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		path, major, minor := loop(t, dir, "", 1)
		if err := os.WriteFile(path, []byte(itoa(i)), 0); err != nil {
			t.Fatal(err)
		}
		changes = append(changes, blockDevice("/dev/disk"+itoa(i), major, minor, "r"))
	}
	b := r.NewBundle(append(changes, harness.Shell(`for i in 0 1 2 3 4 5; do head -c 1 /dev/disk$i 2>&1; done`))...)
	log := filepath.Join(r.Dir, "log")
	r.Flags = []string{"--log", log}
	got := r.Run("run", "--bundle", b.Dir, r.NewID())
	if want := "0123head: /dev/disk4: No such device or address\nhead: /dev/disk5: No such device or address\n"; got.Stdout != want {
		t.Errorf("got %q, %q, want %q", got.Stdout, got.Stderr, want)
	}
	if text, err := os.ReadFile(log); err != nil || strings.Count(string(text), "a block device is not passed to the guest") != 2 {
		t.Errorf("log: %q, %v", text, err)
	}
}
