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

// TestGuestFilesOnTheHost: what the guest writes is there at once, as it wrote it.
func TestGuestFilesOnTheHost(t *testing.T) {
	c := sleeper(t, harness.Args("sleep", "100000"), allFileCapabilities)
	defer c.End()
	c.Output(`cd /tmp
		echo text >file; chmod 4751 file; chown 1234:5678 file; chmod 4751 file
		mkdir -m 1731 dir; ln -s file link; ln file hard; mkfifo -m 600 fifo; mknod dev c 1 3
		touch -d '2001-02-03 04:05:06' old; dd if=/dev/zero of=sparse bs=1 count=0 seek=1073741824; : >exact; chmod 0 exact`)
	for _, tt := range []struct {
		name string
		mode uint32
		uid  uint32
		gid  uint32
		size int64
	}{
		{"file", unix.S_IFREG | 0o4751, 1234, 5678, 5},
		{"hard", unix.S_IFREG | 0o4751, 1234, 5678, 5},
		{"dir", unix.S_IFDIR | 0o1731, 0, 0, -1},
		{"link", unix.S_IFLNK | 0o777, 0, 0, 4},
		{"fifo", unix.S_IFIFO | 0o600, 0, 0, 0},
		{"dev", unix.S_IFCHR | 0o644, 0, 0, 0},
		{"sparse", unix.S_IFREG | 0o644, 0, 0, 1 << 30},
		{"exact", unix.S_IFREG, 0, 0, 0},
	} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(c.Bundle.Rootfs, "tmp", tt.name), &st); err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if st.Mode != tt.mode || st.Uid != tt.uid || st.Gid != tt.gid || tt.size >= 0 && st.Size != tt.size {
			t.Errorf("%s: got mode %#o, owner %d:%d, size %d, want %#o, %d:%d, %d", tt.name, st.Mode, st.Uid, st.Gid, st.Size, tt.mode, tt.uid, tt.gid, tt.size)
		}
	}
	var old unix.Stat_t
	if err := unix.Stat(c.Bundle.Rootfs+"/tmp/old", &old); err != nil || time.Unix(old.Mtim.Unix()).UTC().Format(time.DateTime) != "2001-02-03 04:05:06" {
		t.Errorf("times of a file: %v, %v", old.Mtim, err)
	}
	if got, err := os.ReadFile(c.Bundle.Rootfs + "/tmp/file"); err != nil || string(got) != "text\n" {
		t.Errorf("content: %q, %v", got, err)
	}
}

// TestHostChangesInTheGuest: what changes on the host shows within a second. The
// limit is four times that, as an exec on a busy host takes some of it.
func TestHostChangesInTheGuest(t *testing.T) {
	c := sleeper(t)
	defer c.End()
	path := filepath.Join(c.Bundle.Rootfs, "tmp", "f")
	for _, tt := range []struct {
		name   string
		change func() error
		script string
		want   string
	}{
		{"new file", func() error { return os.WriteFile(path, []byte("one"), 0o644) }, "cat /tmp/f", "one"},
		{"rewritten", func() error { return os.WriteFile(path, []byte("longer"), 0o644) }, "cat /tmp/f", "longer"},
		{"same length", func() error { return os.WriteFile(path, []byte("LONGER"), 0o644) }, "cat /tmp/f", "LONGER"},
		{"truncated", func() error { return os.Truncate(path, 2) }, "cat /tmp/f; stat -c %s /tmp/f", "LO2"},
		{"mode", func() error { return os.Chmod(path, 0o600) }, "stat -c %a /tmp/f", "600"},
		{"replaced", func() error {
			if err := os.WriteFile(path+"2", []byte("other"), 0o644); err != nil {
				return err
			}
			return os.Rename(path+"2", path)
		}, "cat /tmp/f", "other"},
		{"in a directory", func() error {
			return os.WriteFile(filepath.Join(filepath.Dir(path), "g"), nil, 0o644)
		}, "ls /tmp", "f\ng"},
		{"removed", func() error { return os.Remove(path) }, "cat /tmp/f 2>&1; ls /tmp", "cat: can't open '/tmp/f': No such file or directory\ng"},
		{"there again", func() error { return os.Mkdir(path, 0o755) }, "stat -c %F /tmp/f", "directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.Runtime.In(t)
			if err := tt.change(); err != nil {
				t.Fatal(err)
			}
			changed := time.Now()
			var got string
			for got = c.Exec(tt.script).Stdout; strings.TrimSuffix(got, "\n") != tt.want; got = c.Exec(tt.script).Stdout {
				if time.Since(changed) > 4*time.Second {
					t.Fatalf("after %v: got %q, want %q", time.Since(changed), got, tt.want)
				}
			}
		})
	}
}

// TestSymlinkRace: a guest that replaces a directory by a symbolic link while
// the host resolves names in it reaches nothing outside of the root.
func TestSymlinkRace(t *testing.T) {
	r := newRuntime(t)
	secret := filepath.Join(r.Dir, "outside")
	if err := os.MkdirAll(secret+"/d", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret+"/d/f", []byte("SECRET"), 0o644); err != nil {
		t.Fatal(err)
	}
	b := r.NewBundle(harness.Args("sleep", "1000"))
	c := r.Create(b).Start()
	defer c.End()
	// The link has the host's name of the secret, and a way up as far as it goes.
	got := c.Output(`mkdir -p /tmp/r/d && cd /tmp/r && echo inside >d/f
		ln -s ` + secret + `/d abs; ln -s ../../../../../../../../../../..` + secret + `/d up
		(i=0; while [ $i -lt 150 ]; do mv d x; mv abs d; mv d abs; mv up d; mv d up; mv x d; i=$((i+1)); done; touch done) &
		n=0; while [ ! -e done ]; do
			cat d/f; echo from guest >d/new; mkdir d/sub; rm -f d/new; rmdir d/sub; n=$((n+1))
		done 2>/dev/null | sort | uniq -c | grep -v inside
		wait; cat d/f`)
	if strings.Contains(got, "SECRET") || !strings.HasSuffix(got, "inside") {
		t.Errorf("got %q", got)
	}
	left, err := os.ReadDir(secret + "/d")
	if err != nil || len(left) != 1 {
		t.Errorf("outside: %v, %v", left, err)
	}
	// On the host's side: a shared directory replaced under the server.
	c.Output("mkdir -p /tmp/h/d; echo inside >/tmp/h/d/f; cat /tmp/h/d/f")
	d := filepath.Join(b.Rootfs, "tmp/h/d")
	if err := os.Rename(d, d+"-away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret+"/d", d); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		if got := c.Exec("cat /tmp/h/d/f; echo x >/tmp/h/d/new"); strings.Contains(got.Stdout, "SECRET") {
			t.Fatalf("the guest read %q", got.Stdout)
		}
	}
	if left, err := os.ReadDir(secret + "/d"); err != nil || len(left) != 1 {
		t.Errorf("outside: %v, %v", left, err)
	}
}

// TestManyFiles: a tree larger than any cache or table of open files.
func TestManyFiles(t *testing.T) {
	c := sleeper(t)
	defer c.End()
	const dirs, files = 40, 100
	for i := range dirs {
		dir := filepath.Join(c.Bundle.Rootfs, "many", string(rune('a'+i%26))+strings.Repeat("x", i/26))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for j := range files {
			if err := os.WriteFile(filepath.Join(dir, strings.Repeat("n", j+1)), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := c.Output("find /many -type f | wc -l"); got != "4000" {
		t.Errorf("files seen: %s, want 4000", got)
	}
	fds, err := os.ReadDir("/proc/" + itoa(c.PID) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d descriptors in the monitor for %d inodes", len(fds), dirs*files)
	c.Output("rm -r /many")
	if _, err := os.Stat(filepath.Join(c.Bundle.Rootfs, "many")); err == nil {
		t.Error("it was not removed on the host")
	}
}

// allFileCapabilities are those that chown, mknod and foreign modes need.
func allFileCapabilities(s *specs.Spec) {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_MKNOD", "CAP_KILL"}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
}
