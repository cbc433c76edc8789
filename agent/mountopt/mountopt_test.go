package mountopt

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	tests := []struct {
		in   string
		want Options
	}{
		{"", Options{}},
		{"nosuid noexec nodev ro", Options{Flags: unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV | unix.MS_RDONLY}},
		{"ro rw nosuid suid", Options{Cleared: unix.MS_RDONLY | unix.MS_NOSUID}},
		{"rw ro", Options{Flags: unix.MS_RDONLY}},
		{"idmap", Options{IDMap: true}},
		{"bind ridmap", Options{Flags: unix.MS_BIND, IDMap: true, RecIDMap: true}},
		{"rbind rprivate", Options{Flags: unix.MS_BIND | unix.MS_REC, Propagation: []uintptr{unix.MS_PRIVATE | unix.MS_REC}}},
		{"bind slave shared", Options{Flags: unix.MS_BIND, Propagation: []uintptr{unix.MS_SLAVE, unix.MS_SHARED}}},
		{"mode=755 size=65536k strictatime", Options{Flags: unix.MS_STRICTATIME, Data: "mode=755,size=65536k"}},
		{"tmpcopyup uid=5", Options{CopyUp: true, Data: "uid=5"}},
		{"rro rnosuid", Options{Rec: &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}}},
		{"rro rrw", Options{Rec: &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}}},
		{"rnoatime", Options{Rec: &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOATIME, Attr_clr: unix.MOUNT_ATTR__ATIME}}},
		{"rnoatime rrelatime", Options{Rec: &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR__ATIME}}},
		{"rstrictatime ratime", Options{Rec: &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR__ATIME}}},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got := Parse(strings.Fields(tt.in))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("ro,mode=755,rbind,rnoatime,tmpcopyup")
	f.Fuzz(func(t *testing.T, s string) {
		o := Parse(strings.Split(s, ","))
		if o.Rec != nil && o.Rec.Attr_set&o.Rec.Attr_clr&^unix.MOUNT_ATTR__ATIME != 0 {
			t.Errorf("%q sets and clears %#x", s, o.Rec.Attr_set&o.Rec.Attr_clr)
		}
		for d := range strings.SplitSeq(o.Data, ",") {
			if o.Data != "" && (&Options{}).add(d) {
				t.Errorf("%q is left to the file system", d)
			}
		}
	})
}

func TestNames(t *testing.T) {
	names := Names()
	if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("not sorted, or one twice: %q", names)
	}
	for _, n := range names {
		if o := Parse([]string{n}); o.Data != "" {
			t.Errorf("%s is left to the file system", n)
		}
	}
}

func TestError(t *testing.T) {
	err := Error("tmpfs", "/mnt", unix.MS_NODEV|unix.MS_RDONLY|1<<29, "size=x", unix.EINVAL)
	if got, want := err.Error(), "mount src=tmpfs, dst=/mnt, flags=MS_RDONLY|MS_NODEV|0x20000000, data=size=x: invalid argument"; got != want || !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := Error("", "/", 0, "", unix.EPERM).Error(), "mount dst=/: operation not permitted"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := Error("", "/", 0, "", nil); err != nil {
		t.Error(err)
	}
}
