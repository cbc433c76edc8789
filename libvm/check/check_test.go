package check

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"runv/libvm/config"
)

func TestChoice(t *testing.T) {
	ways := func(kvm, qemuKVM, tcg bool) []backend {
		return []backend{
			{name: config.BackendKVM, Result: Result{Name: "backend kvm", OK: kvm}},
			{name: config.BackendQEMU, Result: Result{Name: "backend qemu (kvm)", OK: qemuKVM}},
			{name: config.BackendQEMU, Result: Result{Name: "backend qemu (tcg)", OK: tcg}},
		}
	}
	for _, tt := range []struct {
		all    []backend
		asked  string
		ok     bool
		detail string
	}{
		{ways(true, true, true), config.BackendAuto, true, "takes kvm"},
		{ways(false, true, true), config.BackendAuto, true, "takes qemu (kvm)"},
		{ways(false, false, true), config.BackendAuto, true, "takes qemu (tcg)"},
		{ways(false, false, false), config.BackendAuto, false, "no backend works"},
		{ways(true, true, true), config.BackendQEMU, true, "takes qemu (kvm)"},
		{ways(true, false, false), config.BackendQEMU, false, "does not work here"},
		{ways(true, false, false), config.BackendKVM, true, "takes kvm"},
		{ways(false, true, true), config.BackendKVM, false, "does not work here"},
	} {
		got := choice(tt.all, tt.asked)
		if got.Name != "--backend "+tt.asked || got.OK != tt.ok || got.Detail != tt.detail || Works([]Result{{Name: "backend x", OK: true}, got}) != tt.ok {
			t.Errorf("%s of %+v: got %+v", tt.asked, tt.all, got)
		}
	}
}

func TestWorks(t *testing.T) {
	for _, tt := range []struct {
		rs   []Result
		want bool
	}{
		{nil, false},
		{[]Result{{Name: "agent", Needed: true, OK: true}}, false},
		{[]Result{{Name: "agent", Needed: true, OK: true}, {Name: "backend kvm"}, {Name: "backend qemu (tcg)", OK: true}}, true},
		{[]Result{{Name: "agent", Needed: true}, {Name: "backend kvm", OK: true}}, false},
	} {
		if got := Works(tt.rs); got != tt.want {
			t.Errorf("%+v: got %v", tt.rs, got)
		}
	}
}

// What is wrong is named, with what to do about it.
func TestHostTellsTheCure(t *testing.T) {
	root := filepath.Join(t.TempDir(), "not", "yet")
	rs := Host(context.Background(), Options{
		SettingsErr: errors.New("config.toml:3: unknown key"), Kernel: "/no/such", Backend: config.BackendQEMU, QEMU: "/no/qemu", Root: root,
	})
	byName := map[string]Result{}
	for _, r := range rs {
		byName[r.Name] = r
	}
	for name, words := range map[string]string{
		"settings": "config.toml:3", "guest kernel": "/no/such", "backend qemu (tcg)": "/no/qemu", "--backend qemu": "does not work",
	} {
		r, ok := byName[name]
		if !ok || r.OK || !strings.Contains(r.Detail, words) || r.Cure == "" {
			t.Errorf("%s: got %+v, want %q and a cure", name, r, words)
		}
	}
	if r := byName["state directory"]; !r.OK {
		t.Errorf("state directory: got %+v", r)
	}
}

func TestCgroups(t *testing.T) {
	got := cgroups()
	if !got.OK {
		t.Skipf("no cgroups here: %s", got.Detail)
	}
	if version, rest, _ := strings.Cut(got.Detail, ": "); version != "v1" && version != "v2" || !strings.Contains(rest, "pids") {
		t.Errorf("got %+v", got)
	}
}
