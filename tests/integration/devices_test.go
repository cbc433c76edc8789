package integration

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/tests/harness"
)

// TestDevices: the nodes that linux.devices asks for.
func TestDevices(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Shell(`cd /dev; stat -c '%n %F %a %u:%g %t:%T' fuse u fifo sub/blk null char/deep/x; stat -c '%n %F' /elsewhere/n; readlink ptmx; echo x >null; cat fifo & echo through >fifo; wait`),
		func(s *specs.Spec) {
			mode := func(m uint32) *fs.FileMode { f := fs.FileMode(m); return &f }
			// A default device that the config makes itself is not allowed by default.
			s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: ptr(int64(1)), Access: "rwm"})
			s.Linux.Devices = []specs.LinuxDevice{
				{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, FileMode: mode(0o640), UID: ptr(uint32(7)), GID: ptr(uint32(8))},
				{Path: "/dev/u", Type: "u", Major: 1, Minor: 5, FileMode: mode(0o20600)},
				{Path: "/dev/fifo", Type: "p", FileMode: mode(0o622)},
				{Path: "/dev/sub/blk", Type: "b", Major: 7, Minor: 300},
				{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, FileMode: mode(0o602), GID: ptr(uint32(5))},
				{Path: "/dev/ptmx", Type: "c", Major: 5, Minor: 2},
				{Path: "/dev/char/../char/deep/x", Type: "c", Major: 1, Minor: 9},
				{Path: "/elsewhere/n", Type: "c", Major: 1, Minor: 3},
			}
		})
	got := r.Run("run", "--bundle", b.Dir, r.NewID())
	want := `fuse character special file 640 7:8 a:e5
u character special file 600 0:0 1:5
fifo fifo 622 0:0 0:0
sub/blk block special file 666 0:0 7:12c
null character special file 602 0:5 1:3
char/deep/x character special file 666 0:0 1:9
/elsewhere/n character special file
pts/ptmx
through
`
	if got.Stdout != want {
		t.Errorf("got %q, %q, want %q", got.Stdout, got.Stderr, want)
	}
}

// TestDeviceRules: who may open and make what, as the list says in its order. The
// probe says of each device whether it can be read, written and made.
func TestDeviceRules(t *testing.T) {
	r := newRuntime(t)
	const all = -1
	rule := func(allow bool, typ string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		d := specs.LinuxDeviceCgroup{Allow: allow, Type: typ, Access: access}
		if major != all {
			d.Major = &major
		}
		if minor != all {
			d.Minor = &minor
		}
		return d
	}
	minusOne := int64(-1)
	deny := rule(false, "a", all, all, "rwm")
	script := `probe() { r=-; w=-; m=-
			(: <$1) 2>/dev/null && r=r; (: >$1) 2>/dev/null && w=w; (mknod /tmp/n $2 $3 $4) 2>/dev/null && m=m; rm -f /tmp/n; echo -n "$r$w$m "; }
		mkdir -p /n; mknod /n/fuse c 10 229; mknod /n/loop c 10 237; mknod /n/kmsg c 1 11
		probe /n/fuse c 10 229; probe /n/loop c 10 237; probe /n/kmsg c 1 11; probe /dev/null c 1 3; probe /dev/full b 7 0`
	for name, tt := range map[string]struct {
		rules []specs.LinuxDeviceCgroup
		want  string // fuse loop-control kmsg null full, the last making a block device
	}{
		"no list":          {nil, "--m --m --m rwm rwm"},
		"nothing":          {[]specs.LinuxDeviceCgroup{deny}, "--m --m --m rwm rwm"},
		"one":              {[]specs.LinuxDeviceCgroup{deny, rule(true, "c", 10, 229, "rw")}, "rwm --m --m rwm rwm"},
		"reading":          {[]specs.LinuxDeviceCgroup{deny, rule(true, "c", 10, 229, "r")}, "r-m --m --m rwm rwm"},
		"a major":          {[]specs.LinuxDeviceCgroup{deny, rule(true, "c", 10, all, "rwm")}, "rwm rwm --m rwm rwm"},
		"a major by -1":    {[]specs.LinuxDeviceCgroup{deny, {Allow: true, Type: "c", Major: ptr(int64(10)), Minor: &minusOne, Access: "rw"}}, "rwm rwm --m rwm rwm"},
		"a minor":          {[]specs.LinuxDeviceCgroup{deny, rule(true, "c", all, 11, "rw")}, "--m --m rwm rwm rwm"},
		"block alone":      {[]specs.LinuxDeviceCgroup{deny, rule(true, "b", all, all, "rw")}, "--m --m --m rwm rwm"},
		"all":              {[]specs.LinuxDeviceCgroup{rule(true, "a", all, all, "rwm")}, "rwm rwm rwm rwm rwm"},
		"all without type": {[]specs.LinuxDeviceCgroup{rule(true, "", all, all, "rwm")}, "rwm rwm rwm rwm rwm"},
		"all but one":      {[]specs.LinuxDeviceCgroup{rule(true, "a", all, all, "rwm"), rule(false, "c", 10, 229, "w")}, "r-m rwm rwm rwm rwm"},
		"a default denied": {[]specs.LinuxDeviceCgroup{rule(true, "a", all, all, "rwm"), rule(false, "c", 1, 3, "rwm")}, "rwm rwm rwm rwm rwm"},
		"all denied last":  {[]specs.LinuxDeviceCgroup{rule(true, "c", 10, 229, "rwm"), deny}, "--m --m --m rwm rwm"},
	} {
		t.Run(name, func(t *testing.T) {
			r.In(t)
			b := r.NewBundle(harness.Shell(script), func(s *specs.Spec) {
				s.Linux.Resources = &specs.LinuxResources{Devices: tt.rules}
				grant(s, "CAP_MKNOD", "CAP_SYSLOG", "CAP_SYS_ADMIN")
			})
			got := r.Run("run", "--bundle", b.Dir, r.NewID())
			if got := strings.TrimSpace(got.Stdout); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
