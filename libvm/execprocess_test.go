package libvm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func yes() *bool { v := true; return &v }

func TestProcess(t *testing.T) {
	dir := t.TempDir()
	config := `{"ociVersion":"1.0.2","process":{"terminal":true,"consoleSize":{"height":1,"width":2},"cwd":"/home",
		"args":["init"],"env":["PATH=/bin","A=1"],"user":{"uid":7,"gid":8,"additionalGids":[9]},
		"capabilities":{"bounding":["CAP_KILL"],"ambient":["CAP_KILL"]},"rlimits":[{"type":"RLIMIT_NOFILE","hard":5,"soft":4}]}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	base := func(change func(*specs.Process)) *specs.Process {
		p := &specs.Process{
			Cwd: "/home", Args: []string{"sh"}, Env: []string{"PATH=/bin", "A=1"},
			User:         specs.User{UID: 7, GID: 8, AdditionalGids: []uint32{9}},
			Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL"}},
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 5, Soft: 4}},
		}
		if change != nil {
			change(p)
		}
		return p
	}
	sh := []string{"sh"}
	tests := []struct {
		name string
		o    ProcessOptions
		want *specs.Process
		err  string
	}{
		{"the container's", ProcessOptions{Args: sh}, base(nil), ""},
		{"tty", ProcessOptions{Args: sh, TTY: true}, base(func(p *specs.Process) {
			p.Terminal, p.ConsoleSize = true, &specs.Box{Height: 1, Width: 2}
		}), ""},
		{"cwd and env", ProcessOptions{Args: sh, Cwd: "/x", Env: []string{"A=2", "B=c,d"}}, base(func(p *specs.Process) {
			p.Cwd, p.Env = "/x", append(p.Env, "A=2", "B=c,d")
		}), ""},
		{"uid", ProcessOptions{Args: sh, User: "0"}, base(func(p *specs.Process) { p.User.UID = 0 }), ""},
		{"uid and gid", ProcessOptions{Args: sh, User: "1:2"}, base(func(p *specs.Process) { p.User.UID, p.User.GID = 1, 2 }), ""},
		{"gids", ProcessOptions{Args: sh, AdditionalGIDs: []int64{5}}, base(func(p *specs.Process) {
			p.User.AdditionalGids = []uint32{9, 5}
		}), ""},
		{"capability", ProcessOptions{Args: sh, Capabilities: []string{"CAP_SYS_ADMIN"}}, base(func(p *specs.Process) {
			p.Capabilities = &specs.LinuxCapabilities{
				Bounding: []string{"CAP_KILL", "CAP_SYS_ADMIN"}, Effective: []string{"CAP_SYS_ADMIN"},
				Permitted: []string{"CAP_SYS_ADMIN"}, Ambient: []string{"CAP_KILL"},
			}
		}), ""},
		{"no new privileges", ProcessOptions{Args: sh, NoNewPrivileges: yes()}, base(func(p *specs.Process) { p.NoNewPrivileges = true }), ""},

		{"nothing", ProcessOptions{}, nil, "exec args cannot be empty"},
		{"user name", ProcessOptions{Args: sh, User: "root"}, nil, `bad uid: strconv.Atoi: parsing "root": invalid syntax`},
		{"group name", ProcessOptions{Args: sh, User: "1:x"}, nil, `bad gid: strconv.Atoi: parsing "x": invalid syntax`},
		{"three ids", ProcessOptions{Args: sh, User: "1:2:3"}, nil, "bad gid"},
		{"negative uid", ProcessOptions{Args: sh, User: "-1"}, nil, "uid -1 is out of range"},
		{"no change", ProcessOptions{Args: sh, User: "4294967295"}, nil, "out of range"},
		{"negative gid", ProcessOptions{Args: sh, AdditionalGIDs: []int64{-1}}, nil, "additional-gids must be a positive number -1"},
		{"relative cwd", ProcessOptions{Args: sh, Cwd: "x"}, nil, "Cwd must be an absolute path"},
		{"env", ProcessOptions{Args: sh, Env: []string{"A"}}, nil, `invalid environment variable "A"`},
		{"no file", ProcessOptions{File: "/nonexistent"}, nil, "open /nonexistent: no such file or directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := tt.o.process(dir)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestProcessFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.json")
	for _, tt := range []struct{ content, err string }{
		{`{"cwd":"/","args":["a"],"terminal":true}`, ""},
		{`{`, "unexpected"},
		{`{}`, "Cwd property must not be empty"},
		{`{"cwd":"x","args":["a"]}`, "Cwd must be an absolute path"},
		{`{"cwd":"/"}`, "args must not be empty"},
	} {
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		// The other options do not count, a missing bundle neither.
		p, _, err := ProcessOptions{File: path, Args: []string{"ignored"}, User: "x"}.process("/nonexistent")
		switch {
		case tt.err == "" && (err != nil || p.Args[0] != "a" || !p.Terminal):
			t.Errorf("%s: got %+v, %v", tt.content, p, err)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("%s: got %v, want %s", tt.content, err, tt.err)
		}
	}
}
