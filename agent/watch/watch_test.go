package watch

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const info = "pos:\t0\nflags:\t00\nmnt_id:\t15\nino:\t1057\n" +
	"inotify wd:2 ino:1b sdev:14 mask:fce ignored_mask:0 fhandle-bytes:c fhandle-type:81 f_handle:010000002a00000000000000\n" +
	"inotify wd:1 ino:1a sdev:14 mask:fce ignored_mask:0 fhandle-bytes:c fhandle-type:81 f_handle:000000001100000000000000\n" +
	"inotify wd:3 ino:1a sdev:15 mask:fce ignored_mask:0 fhandle-bytes:c fhandle-type:81 f_handle:000000001200000000000000\n" +
	"inotify wd:4 ino:1a sdev:14 mask:fce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:0000000013000000\n" +
	"inotify wd:5 ino:1a sdev:14 mask:fce ignored_mask:0\n"

func TestParse(t *testing.T) {
	got := map[uint64]bool{}
	parse([]byte(info), 0x14, got)
	if diff := cmp.Diff(map[uint64]bool{1<<32 | 42: true, 17: true}, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(info))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := map[uint64]bool{}
		parse(b, 0x14, got)
		if len(got) > maxNodes {
			t.Errorf("%d nodes", len(got))
		}
	})
}
