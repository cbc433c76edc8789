package container

import (
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

const status = "Name:\tsleep well\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t77\nPid:\t77\nPPid:\t1\nUid:\t0\t1000\t1000\t1000\nNSpid:\t77\t5\t1\nNSpgid:\t70\t4\t1\nNSsid:\t70\t4\t1\n"

func TestParseStatus(t *testing.T) {
	want := ProcessInfo{PPid: 1, ContainerPid: 5, UID: 1000, Comm: "sleep well", Pgid: 4, Sid: 4}
	if diff := cmp.Diff(want, parseStatus(status, true)); diff != "" {
		t.Error(diff)
	}
	want.ContainerPid, want.Pgid, want.Sid = 77, 70, 70
	if diff := cmp.Diff(want, parseStatus(status, false)); diff != "" {
		t.Error(diff)
	}
}

func TestAddStat(t *testing.T) {
	p := ProcessInfo{Pid: 77}
	p.addStat("77 (a ) b) R) S 1 77 77 34816 77 4194304 1 2 3 4 150 50 0 0 20 -5 3 0 1000 8192 2 18446744073709551615", 60_000)
	want := ProcessInfo{Pid: 77, TTY: 34816, CPUMs: 2000, Nice: -5, Threads: 3, ElapsedMs: 50_000, VSize: 8192, RSS: 8192, Stat: "S<sl+"}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Error(diff)
	}
}

func FuzzAddStat(f *testing.F) {
	f.Add("1 (x) S 1")
	f.Add(")")
	f.Fuzz(func(_ *testing.T, s string) { new(ProcessInfo).addStat(s, 1) })
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
