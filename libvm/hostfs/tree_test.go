package hostfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestServedDevicesDoNotOpen(t *testing.T) {
	dir := child(t)
	if dir == "" {
		return
	}
	rootfs, data := filepath.Join(dir, "rootfs"), filepath.Join(dir, "data")
	write(t, rootfs+"/file", "")
	write(t, data+"/file", "")
	spec := &specs.Spec{Mounts: []specs.Mount{{Destination: "/data", Type: "bind", Source: data, Options: []string{"rbind"}}}}
	v, err := Prepare(dir, rootfs, spec)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, tree := range v.Trees {
		// As a guest's mknod does it, of what is /dev/zero.
		if err := unix.Mknodat(int(tree.Root.Fd()), "zero", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d/zero", tree.Root.Fd()))
		if !errors.Is(err, unix.EACCES) {
			t.Errorf("tree %d: open of a device: got %v, want EACCES", tree.Mount, err)
			f.Close()
		}
	}
}
