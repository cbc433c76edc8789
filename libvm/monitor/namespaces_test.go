package monitor

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestNamespacesOf(t *testing.T) {
	const network = unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	usual := []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "network"}, {Type: "ipc"}}
	with := func(more ...specs.LinuxNamespace) []specs.LinuxNamespace { return append(slices.Clone(usual), more...) }
	for _, tt := range []struct {
		name    string
		list    []specs.LinuxNamespace
		flags   uintptr  // of the monitor's new ones
		join    []string // paths, in order
		standIn bool
		shared  uintptr // of the stand-in
		its     []string
	}{
		{"usual", usual, unix.CLONE_NEWNET | unix.CLONE_NEWIPC, nil, false, 0, nil},
		{"cgroup and uts", with(specs.LinuxNamespace{Type: "cgroup"}, specs.LinuxNamespace{Type: "uts", Path: "/u"}),
			unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP, []string{"/u"}, false, 0, nil},
		{"none", nil, 0, nil, true, network, nil},
		{"user", with(specs.LinuxNamespace{Type: "user"}), unix.CLONE_NEWNET | unix.CLONE_NEWIPC, nil, true, network | unix.CLONE_NEWNS | unix.CLONE_NEWPID, nil},
		{"time", with(specs.LinuxNamespace{Type: "time"}), unix.CLONE_NEWNET | unix.CLONE_NEWIPC, nil, true, network | unix.CLONE_NEWNS | unix.CLONE_NEWPID, nil},
		{"joined", []specs.LinuxNamespace{{Type: "mount", Path: "/m"}, {Type: "pid", Path: "/p"}, {Type: "ipc", Path: "/i"}}, 0, []string{"/i", "/m"}, true, network, []string{"/p", "/m"}},
		{"joined pid", []specs.LinuxNamespace{{Type: "mount"}, {Type: "pid", Path: "/p"}}, 0, nil, true, network | unix.CLONE_NEWNS, []string{"/p"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := NamespacesOf(&specs.Spec{Linux: &specs.Linux{Namespaces: tt.list}})
			if got := n.cloneFlags(); got != tt.flags {
				t.Errorf("new: got %#x, want %#x", got, tt.flags)
			}
			if got := paths(n.Join); !slices.Equal(got, tt.join) {
				t.Errorf("joined: got %q, want %q", got, tt.join)
			}
			s := n.StandIn
			if (s != nil) != tt.standIn {
				t.Fatalf("stand-in %+v, want one: %v", s, tt.standIn)
			}
			if s == nil {
				return
			}
			if s.shared != tt.shared || !slices.Equal(paths(s.join), tt.its) {
				t.Errorf("stand-in: shares %#x and joins %q, want %#x and %q", s.shared, paths(s.join), tt.shared, tt.its)
			}
			if got, want := s.chroot, tt.shared&unix.CLONE_NEWNS == 0; got != want {
				t.Errorf("stand-in: chroot %v, want %v", got, want)
			}
		})
	}
}

func paths(list []Namespace) []string {
	var out []string
	for _, n := range list {
		out = append(out, n.Path)
	}
	return out
}
