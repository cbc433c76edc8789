package integration

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

func mapping(container, host, size uint32) specs.LinuxIDMapping {
	return specs.LinuxIDMapping{ContainerID: container, HostID: host, Size: size}
}

// userNamespace gives a container one, with its own gids.
func userNamespace(uids, gids []specs.LinuxIDMapping) harness.Change {
	return func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings, s.Linux.GIDMappings = uids, gids
	}
}

// chownTree gives all of a tree to one owner, as engines do it to a rootfs.
func chownTree(t *testing.T, dir string, uid, gid int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func owner(t *testing.T, path string) [2]uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Error(err)
	}
	return [2]uint32{st.Uid, st.Gid}
}

// TestUserNamespace: what a user namespace looks like from inside, and whose the
// files are outside.
func TestUserNamespace(t *testing.T) {
	uids := []specs.LinuxIDMapping{mapping(0, 100000, 1000), mapping(1000, 5000, 1)}
	gids := []specs.LinuxIDMapping{mapping(0, 200000, 2000)}
	r := newRuntime(t)
	data := filepath.Join(r.Dir, "data")
	makeTree(t, data, map[string]string{"mapped": "", "foreign": ""})
	if err := os.Chown(data+"/mapped", 100007, 200008); err != nil {
		t.Fatal(err)
	}
	b := r.NewBundle(harness.Args("sleep", "1000"), userNamespace(uids, gids), func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, bind(data, "/data", "rbind"), tmpfs("/scratch", "mode=755"), bind("/dev/zero", "/zero", "bind"))
		s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, UID: ptr(uint32(3)), GID: ptr(uint32(4)), FileMode: ptr(fs.FileMode(0o640))})
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/cg", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid"}})
		grant(s, "CAP_SYS_ADMIN", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE", "CAP_NET_ADMIN")
	})
	chownTree(t, b.Rootfs, 100000, 200000)
	c := r.Create(b).Start()
	monitor := monitorOf(t, c) // its pid is that of a stand-in, in the user namespace
	defer func() {
		c.End()
		harness.Reap(t, monitor)
	}()
	for _, tt := range []struct{ script, want string }{
		{"id -u; id -g; awk '{print $1, $2, $3}' /proc/self/uid_map /proc/self/gid_map; cat /proc/self/setgroups", "0\n0\n0 100000 1000\n1000 5000 1\n0 200000 2000\nallow"},
		{"stat -c '%n %u:%g' / /bin /proc /sys /scratch /dev /dev/shm /proc/self/fd", "/ 0:0\n/bin 0:0\n/proc 65534:65534\n/sys 65534:65534\n/scratch 0:0\n/dev 0:0\n/dev/shm 0:0\n/proc/self/fd 0:0"},
		{"stat -c '%n %u:%g' /data/mapped /data/foreign", "/data/mapped 7:8\n/data/foreign 65534:65534"},
		{"cd /tmp; echo x >mine; touch user; chown 1000:9 user; mkdir d; stat -c '%u:%g' mine user", "0:0\n1000:9"},
		{"touch /scratch/f && stat -c %u:%g /scratch/f", "0:0"},
		{"for d in null zero full random urandom tty fuse; do stat -c '%n %t:%T %u:%g %a' /dev/$d; done", "/dev/null 1:3 0:0 666\n/dev/zero 1:5 0:0 666\n/dev/full 1:7 0:0 666\n/dev/random 1:8 0:0 666\n/dev/urandom 1:9 0:0 666\n/dev/tty 5:0 0:0 666\n/dev/fuse a:e5 3:4 640"},
		{"echo x >/dev/null && head -c 3 /dev/zero | wc -c; head -c 2 /zero | wc -c", "3\n2"},
		{"chown 5000 /tmp/mine; echo $?; mknod /tmp/n c 1 3; echo $?", "chown: /tmp/mine: Invalid argument\n1\nmknod: /tmp/n: Operation not permitted\n1"},
		{"mount -t tmpfs in /mnt && stat -c %u /mnt && umount /mnt; hostname inner; hostname", "0\ninner"},
		{"ls /cg/cgroup.procs; ls /sys/class/net", "/cg/cgroup.procs\nlo"},
	} {
		t.Run(tt.script, func(t *testing.T) {
			r.In(t)
			if got := strings.TrimSuffix(c.Exec("exec 2>&1; mkdir -p /mnt; "+tt.script).Stdout, "\n"); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if got := owner(t, "/dev/null"); got[0] >= 100000 {
		t.Errorf("the host's /dev/null was given to %d", got)
	}
	for name, want := range map[string][2]uint32{"mine": {100000, 200000}, "user": {5000, 200009}, "d": {100000, 200000}} {
		if got := owner(t, b.Rootfs+"/tmp/"+name); got != want {
			t.Errorf("%s on the host: owner %d, want %d", name, got, want)
		}
	}
}

// TestUserNamespaceSameAsRunc compares what runc's user namespace shows. Left out
// is the owner of /dev/mqueue, a directory for everybody: it is who made the IPC
// namespace, half of him mapped with runc and nothing with us.
func TestUserNamespaceSameAsRunc(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Shell(`exec 2>&1; id; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; cd /tmp; touch f; mkdir d
		stat -c '%n %u:%g %a' f d / /bin /dev /dev/pts /dev/shm; chown 70000 f; mount -t tmpfs x /tmp; grep -E '^(Cap|Uid|Gid|Groups)' /proc/self/status
		for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$d; done`),
		userNamespace([]specs.LinuxIDMapping{mapping(0, 100000, 65536)}, []specs.LinuxIDMapping{mapping(0, 100000, 65536)}),
		func(s *specs.Spec) { s.Process.Rlimits = nil })
	chownTree(t, b.Dir, 100000, 100000)
	for _, dir := range []string{r.Dir, filepath.Dir(r.Dir)} { // runc's init walks them as the mapped root
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	theirs, err := exec.Command("runc", "--root", filepath.Join(r.Dir, "runc"), "run", "--bundle", b.Dir, r.NewID()).CombinedOutput()
	if err != nil && strings.Contains(string(theirs), "runc run failed") {
		t.Skipf("runc does not run this here: %v, %s", err, theirs)
	}
	if err := os.RemoveAll(b.Rootfs + "/tmp/d"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(theirs), "\n"), strings.Split(r.Run("run", "--bundle", b.Dir, r.NewID()).Stdout, "\n")); diff != "" {
		t.Errorf("-runc +runv:\n%s", diff)
	}
}

// TestIDMappedMounts: owners in both directions, with mappings of the mount and
// with those of the container's user namespace.
func TestIDMappedMounts(t *testing.T) {
	r := newRuntime(t)
	own := specs.Mount{
		Type: "bind", Options: []string{"bind"},
		UIDMappings: []specs.LinuxIDMapping{mapping(500, 0, 10), mapping(0, 2000, 100)},
		GIDMappings: []specs.LinuxIDMapping{mapping(600, 0, 10)},
	}
	sameMap := []specs.LinuxIDMapping{mapping(0, 100000, 65536)}
	for _, tt := range []struct {
		name    string
		mount   specs.Mount
		changes []harness.Change
		want    string
		made    [2]uint32
	}{
		{"mappings of the mount", own, nil, "0:0 d\n65534:65534 foreign\n0:0 new\n2007:65534 seven\ntouch: /m/foreign/x: Permission denied\n", [2]uint32{500, 600}},
		{"idmap in a user namespace", bind("", "", "rbind", "idmap"), []harness.Change{userNamespace(sameMap, sameMap)},
			"500:600 d\n65534:65534 foreign\n0:0 new\n7:7 seven\ntouch: /m/foreign/x: Permission denied\n", [2]uint32{0, 0}},
		{"ridmap in a user namespace", bind("", "", "rbind", "ridmap"), []harness.Change{userNamespace(sameMap, sameMap)},
			"500:600 d\n65534:65534 foreign\n0:0 new\n7:7 seven\ntouch: /m/foreign/x: Permission denied\n", [2]uint32{0, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.In(t)
			data := filepath.Join(r.Dir, strings.ReplaceAll(tt.name, " ", "-"))
			makeTree(t, data, map[string]string{"d/x": "", "seven": "", "foreign/y": ""})
			for name, id := range map[string][2]int{"": {500, 600}, "d": {500, 600}, "seven": {7, 7}, "foreign": {90000, 90000}} {
				if err := os.Chown(filepath.Join(data, name), id[0], id[1]); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(data, 0o777); err != nil {
				t.Fatal(err)
			}
			m := tt.mount
			m.Source, m.Destination = data, "/m"
			b := r.NewBundle(append(tt.changes, harness.Shell("exec 2>&1; cd /m; touch new; stat -c '%u:%g %n' d foreign new seven; touch /m/foreign/x"), func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, m)
				grant(s, "CAP_DAC_OVERRIDE")
			})...)
			if len(tt.changes) > 0 {
				chownTree(t, b.Rootfs, 100000, 100000)
			}
			got := r.Run("run", "--bundle", b.Dir, r.NewID())
			if got.Stdout != tt.want {
				t.Errorf("got %q, %q, want %q", got.Stdout, got.Stderr, tt.want)
			}
			if got := owner(t, data+"/new"); got != tt.made {
				t.Errorf("made in the guest: owner %d on the host, want %d", got, tt.made)
			}
		})
	}
}
