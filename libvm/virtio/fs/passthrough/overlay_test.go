package passthrough

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"
)

// overlay mounts an overlay, which is what engines give as a root filesystem,
// and returns its lower directory and where it is seen through the server.
func overlay(t *testing.T) (lower, seen string) {
	t.Helper()
	tmp := t.TempDir()
	for _, d := range []string{"", "/lower", "/upper", "/work", "/tree"} {
		if err := os.MkdirAll(tmp+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(tmp+"/lower/file", []byte("lower"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, Options{PathFDs: minPathFDs})
	opts := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", tmp, tmp, tmp)
	if err := unix.Mount("overlay", tmp+"/tree", "overlay", 0, opts); err != nil {
		t.Skipf("mount overlay: %v (try: modprobe overlay, and a TMPDIR on ext4)", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(tmp+"/tree", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	share(t, s, tmp+"/tree", false)
	return tmp + "/lower", filepath.Join(mount(t, s), "t", "tree")
}

// TestCopyUp uses a file, and what was opened before, after the overlay has
// copied it up, while nearly no descriptor is kept.
func TestCopyUp(t *testing.T) {
	lower, seen := overlay(t)
	before, err := os.Open(seen + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	f, err := os.OpenFile(seen+"/file", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("upper!"); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * minPathFDs {
		p := fmt.Sprintf("%s/%d", seen, i)
		if err := os.Mkdir(p, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if fi, err := f.Stat(); err != nil || fi.Size() != 6 {
		t.Errorf("fstat: %v, %v", fi, err)
	}
	if _, err := before.Stat(); err != nil {
		t.Errorf("fstat of what was opened before: %v", err)
	}
	if err := f.Chmod(0o600); err != nil {
		t.Errorf("fchmod: %v", err)
	}
	if got := read(t, seen+"/file"); got != "upper!" {
		t.Errorf("read %q", got)
	}
	if got := read(t, lower+"/file"); got != "lower" {
		t.Errorf("the lower file has %q", got)
	}
}

func TestPosixOverlay(t *testing.T) {
	for name, fn := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if why := posixExceptions[name]; why != "" {
				t.Skip(why)
			}
			_, seen := overlay(t)
			if err := os.Remove(seen + "/file"); err != nil {
				t.Fatal(err)
			}
			fn(t, seen)
		})
	}
}
