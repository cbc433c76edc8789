package container

import (
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

const status = "Name:\tsleep well\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t77\nPid:\t77\nPPid:\t1\nUid:\t1000\t1000\t1000\t1000\nNSpid:\t77\t5\t1\n"

func TestParseStatus(t *testing.T) {
	want := ProcessInfo{PPid: 1, ContainerPid: 5, UID: 1000, Comm: "sleep well"}
	if diff := cmp.Diff(want, parseStatus(status, true)); diff != "" {
		t.Error(diff)
	}
	want.ContainerPid = 77
	if diff := cmp.Diff(want, parseStatus(status, false)); diff != "" {
		t.Error(diff)
	}
}

// A process names itself: its status is not ours.
func FuzzParseStatus(f *testing.F) {
	f.Add(status, true)
	f.Add("NSpid:\t\nUid:\nName:\n", true)
	f.Fuzz(func(_ *testing.T, s string, own bool) { parseStatus(s, own) })
}

func FuzzParseSpec(f *testing.F) {
	f.Add([]byte(`{"process":{"args":["x"]},"root":{"path":"r"},"linux":{"namespaces":[{"type":"mount"}],"sysctl":{"net.x":"1"}},"mounts":[{"destination":"/a"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSpec(b)
		if err != nil {
			return
		}
		_, _ = s.namespaces()
		_, _ = s.personality()
		_, _, _ = s.sysctls(0)
		for i := range s.Mounts {
			c := Container{spec: s, m: &Manager{Trees: "/t"}}
			if _, _, err := c.mounts([]Tree{{Mount: -1, Path: "k/r"}, {Mount: i, Path: "../x"}}); err == nil {
				t.Error("a tree outside of the shared ones is taken")
			}
		}
		if p := s.Process.Args[0]; len(p) > 0 && !utf8.ValidString(p) {
			t.Errorf("%q", p)
		}
	})
}
