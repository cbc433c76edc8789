package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/tests/harness"
)

// TestInotify: who watches a bind in the guest sees what is changed on the host, once,
// and what the guest changes, once.
func TestInotify(t *testing.T) {
	r := newRuntime(t)
	dir := filepath.Join(r.Dir, "watched")
	for _, d := range []string{dir, dir + "/sub"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("file", "old")
	write("alone", "old")
	b := withProbe(t, r.NewBundle(harness.Shell("inotify /w /w/sub /single >/log"), func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, bind(dir, "/w", "rbind"), bind(dir+"/alone", "/single", "bind", "ro"))
	}), "inotify")
	c := r.Create(b).Start()
	defer c.End()
	logged := func() []string {
		got, _ := os.ReadFile(filepath.Join(b.Rootfs, "log"))
		return strings.Split(strings.TrimSpace(string(got)), "\n")
	}
	harness.Within(t, harness.Limit, "the guest watches", func() bool { return slices.Contains(logged(), "watching") })
	// Until the host watches, too.
	harness.Within(t, harness.Limit, "a change is seen", func() bool {
		write("probe", "x")
		time.Sleep(100 * time.Millisecond)
		return slices.Contains(logged(), "/w close_write probe")
	})
	// settled are the events since the last call, when there are no more of them.
	seen := 0
	settled := func() []string {
		for n := -1; n != len(logged()); {
			n = len(logged())
			time.Sleep(harness.Scaled(time.Second))
		}
		all := logged()
		out := slices.Clone(all[seen:])
		seen = len(all)
		return out
	}
	settled()
	for _, tt := range []struct {
		name string
		do   func() error
		want []string
	}{
		{"edit", func() error { write("file", "longer than before"); return nil }, []string{"/w modify file", "/w close_write file"}},
		{"mode", func() error { return os.Chmod(filepath.Join(dir, "file"), 0o600) }, []string{"/w attrib file"}},
		{"new file", func() error { write("sub/new", "x"); return nil }, []string{"/w/sub create new", "/w/sub modify new", "/w/sub close_write new"}},
		{"new directory", func() error { return os.Mkdir(filepath.Join(dir, "dir"), 0o755) }, []string{"/w create+isdir dir"}},
		{"new link", func() error { return os.Symlink("file", filepath.Join(dir, "link")) }, []string{"/w create link"}},
		{"moved", func() error { return os.Rename(filepath.Join(dir, "sub/new"), filepath.Join(dir, "sub/newer")) }, []string{"/w/sub moved_from new", "/w/sub moved_to newer"}},
		{"moved to another", func() error { return os.Rename(filepath.Join(dir, "sub/newer"), filepath.Join(dir, "here")) }, []string{"/w/sub moved_from newer", "/w moved_to here"}},
		{"moved from outside", func() error {
			write("dir/outside", "x")
			return os.Rename(filepath.Join(dir, "dir/outside"), filepath.Join(dir, "inside"))
		}, []string{"/w moved_to inside"}},
		{"replaced", func() error {
			write("dir/tmp", "replaced")
			return os.Rename(filepath.Join(dir, "dir/tmp"), filepath.Join(dir, "file"))
		}, []string{"/w moved_to file"}},
		{"removed", func() error { return os.Remove(filepath.Join(dir, "here")) }, []string{"/w delete here"}},
		{"removed directory", func() error { return os.RemoveAll(filepath.Join(dir, "dir")) }, []string{"/w delete+isdir dir"}},
		{"a file by itself", func() error { write("alone", "new"); return nil }, []string{"/single modify ", "/single close_write ", "/w modify alone", "/w close_write alone"}},
		{"the guest's own", func() error { c.Output("echo x >/w/own"); return nil }, []string{"/w create own", "/w modify own", "/w close_write own"}},
		{"the guest removes", func() error { c.Output("rm /w/own"); return nil }, []string{"/w delete own"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.In(t)
			if err := tt.do(); err != nil {
				t.Fatal(err)
			}
			got := settled()
			// Truncation and writing are one change or two.
			got = slices.Compact(got)
			if tt.name == "a file by itself" {
				slices.Sort(got)
				slices.Sort(tt.want)
				got = slices.Compact(got)
			}
			for i := range tt.want {
				tt.want[i] = strings.TrimSpace(tt.want[i])
			}
			for i := range got {
				got[i] = strings.TrimSpace(got[i])
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	write("times", "x")
	before, err := os.Stat(filepath.Join(dir, "times"))
	if err != nil {
		t.Fatal(err)
	}
	settled()
	if after, err := os.Stat(filepath.Join(dir, "times")); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("the host's time of modification was %v, is %v, %v", before.ModTime(), after.ModTime(), err)
	}
	if got := c.Output("stat -c %Y /w/times"); got != fmt.Sprint(before.ModTime().Unix()) {
		t.Errorf("the guest's time of modification: %s, want %d", got, before.ModTime().Unix())
	}
	if got := c.Output("cat /w/file /single; ls /w"); got != "replacednewalone\nfile\ninside\nlink\nprobe\nsub\ntimes" {
		t.Errorf("the guest sees %q", got)
	}
}
