package bundle

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/wire"
)

const namespaces = `[{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]`

// config is a config.json that is fine, with more members at the top.
func config(t *testing.T, more string) string {
	t.Helper()
	if more != "" {
		more = ",\n" + more
	}
	return `{
	"ociVersion": "1.3.0",
	"process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
	"root": {"path": "rootfs"},
	"mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
	"linux": {"namespaces": ` + namespaces + `, "resources": {"devices": [{"allow": false, "access": "rwm"}]}}` + more + `
}`
}

// load makes a bundle of a config.json and loads it.
func load(t *testing.T, text string) (*Bundle, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, configName), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return Load(dir)
}

func TestLoad(t *testing.T) {
	text := config(t, `"x-unknown": {"kept": true}`)
	b, err := load(t, text)
	if err != nil {
		t.Fatal(err)
	}
	if b.Rootfs != filepath.Join(b.Dir, "rootfs") || b.Spec.Process.Args[0] != "sh" {
		t.Errorf("rootfs %q in %q, args %q", b.Rootfs, b.Dir, b.Spec.Process.Args)
	}
	if string(b.Raw) != text {
		t.Error("Raw is not the file")
	}
	if len(b.Warnings) != 0 {
		t.Errorf("warnings %q", b.Warnings)
	}
}

// What `runc spec` and Docker write goes through as it is.
func TestEnginesConfigs(t *testing.T) {
	for _, name := range []string{"runc-1.1.json", "docker-shape.json"} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			b, err := load(t, string(text))
			if err != nil {
				t.Fatal(err)
			}
			want := new(specs.Spec)
			if err := json.Unmarshal(text, want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, b.Spec); diff != "" {
				t.Errorf("changed:\n%s", diff)
			}
		})
	}
}

func TestPaths(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "real")
	for _, d := range []string{"real/fs", "real/data"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"bundle": "real", "real/rootfs": "fs"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	text := strings.Replace(config(t, ""), `"mounts": [`, `"mounts": [
		{"destination": "mnt/x/../y", "type": "tmpfs", "source": "tmpfs"},
		{"destination": "/a", "type": "none", "source": "data", "options": ["rbind", "ro"]},
		{"destination": "/b", "type": "bind", "source": "/proc/self/../self"},`, 1)
	if err := os.WriteFile(filepath.Join(target, configName), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := Load(filepath.Join(dir, "bundle"))
	if err != nil {
		t.Fatal(err)
	}
	if b.Dir != target || b.Rootfs != filepath.Join(target, "fs") {
		t.Errorf("dir %q, rootfs %q; want them without symlinks", b.Dir, b.Rootfs)
	}
	m := b.Spec.Mounts
	if m[0].Destination != "/mnt/y" || len(b.Warnings) != 1 || !strings.Contains(b.Warnings[0], "mnt/x/../y is not absolute") {
		t.Errorf("destination %q, warnings %q; want it absolute and a warning", m[0].Destination, b.Warnings)
	}
	if m[1].Source != filepath.Join(target, "data") || !slices.Contains(m[1].Options, "rbind") {
		t.Errorf("bind of %q, want it in the bundle", m[1].Source)
	}
	if !slices.Contains(m[2].Options, "bind") || m[2].Source != "/proc/self/../self" {
		t.Errorf("type bind without an option: %+v, want a bind of the same source", m[2])
	}
}

func TestWarnings(t *testing.T) {
	text := strings.Replace(config(t, ""), `"cwd": "/"`, `"cwd": "/",
		"capabilities": {"bounding": ["CAP_KILL", "CAP_FOO", "CHOWN"], "ambient": ["CAP_FOO"]}`, 1)
	text = strings.Replace(text, `"1.3.0"`, `"1.4.0"`, 1)
	text = strings.Replace(text, `"resources": {`, `"resources": {"memory": {"disableOOMKiller": true, "kernel": 5},`, 1)
	text = strings.Replace(text, `"linux": {`, `"linux": {"mountLabel": "system_u:object_r:x:s0",`, 1)
	text = strings.Replace(text, `"mounts": [`, `"mounts": [{"destination": "/b", "type": "bind", "source": "/", "options": ["bind", "size=4k"]},`, 1)
	b, err := load(t, text)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"linux.mountLabel is not applied: neither this host nor the guest has SELinux", "bind mounts cannot have any filesystem-specific options applied: size=4k of /b is ignored",
		"ociVersion 1.4.0 is newer than 1.3.0",
		"ignoring unknown or unavailable capabilities: [CAP_FOO CHOWN]",
		"Kernel memory settings are ignored", "memory.disableOOMKiller is not applied",
	} {
		if !slices.ContainsFunc(b.Warnings, func(w string) bool { return strings.Contains(w, want) }) {
			t.Errorf("no warning with %q in %q", want, b.Warnings)
		}
	}
	c := b.Spec.Process.Capabilities
	if diff := cmp.Diff(&specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Ambient: []string{}}, c); diff != "" {
		t.Error(diff)
	}
}

func TestVersions(t *testing.T) {
	for v, ok := range map[string]bool{
		"1.0.0": true, "1.0.2": true, "1.0.2-dev": true, "1.1.0-rc.1": true, "1.2.1+build.5": true, "1.3.0": true, "1.30.7": true,
		"": false, "0.9.0": false, "2.0.0": false, "1.0.0-rc1": false, "1.0": false, "1": false, "v1.0.0": false, "1.0.0 ": false, "1.01.0": false, "99999999999.0.0": false,
	} {
		text := strings.Replace(config(t, ""), `"1.3.0"`, `"`+v+`"`, 1)
		if _, err := load(t, text); (err == nil) != ok {
			t.Errorf("%q: error %v, want accepted %v", v, err, ok)
		} else if err != nil && !strings.Contains(err.Error(), "ociVersion") {
			t.Errorf("%q: error %v does not say ociVersion", v, err)
		}
	}
}

func TestNoConfig(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); err == nil || err.Error() != "JSON specification file config.json not found" {
		t.Errorf("error %v, want runc's words", err)
	}
	if err := os.Mkdir(filepath.Join(dir, configName), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("error %v, want it to refuse a directory", err)
	}
	if _, err := Load(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("error %v, want no such file or directory", err)
	}
	if _, err := load(t, strings.Repeat(" ", maxConfig+1)); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("error %v, want one about the size", err)
	}
}

func FuzzLoadConfig(f *testing.F) {
	for _, name := range []string{"runc-1.1.json", "docker-shape.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"ociVersion": "1.0.0", "process": {"args": ["a"], "cwd": "/"}, "root": {"path": "/"}, "linux": {"sysctl": {"net/a": "1"}}}`))
	dir := f.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		spec, err := parseSpec(text)
		if err != nil {
			return
		}
		b := &Bundle{Dir: dir, Spec: spec, Raw: text}
		if b.check() != nil {
			return
		}
		// What was accepted is accepted again, without a change.
		again, err := json.Marshal(b.Spec)
		if err != nil {
			t.Fatal(err)
		}
		c := &Bundle{Dir: dir, Spec: new(specs.Spec)}
		if err := json.Unmarshal(again, c.Spec); err != nil {
			t.Fatal(err)
		}
		if err := c.check(); err != nil {
			t.Errorf("accepted, then refused: %v", err)
		}
		// The guest can be told of it.
		if got, err := wire.UnmarshalSpec(wire.MarshalSpec(b.Spec, nil)); err != nil {
			t.Errorf("accepted, but cannot be coded: %v", err)
		} else if !cmp.Equal(got.Process.Args, b.Spec.Process.Args) || len(got.Mounts) != len(b.Spec.Mounts) || got.Hostname != b.Spec.Hostname {
			t.Errorf("coded otherwise: %+v", got)
		}
	})
}

func FuzzParseProcess(f *testing.F) {
	f.Add([]byte(`{"args": ["a"], "cwd": "/", "env": ["A=b"], "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}], "capabilities": {"bounding": ["CAP_X"]}}`))
	f.Add([]byte(`{"args": ["a"], "cwd": "/", "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [4294967295]}, "terminal": true, "consoleSize": {"height": 2, "width": 65535},
		"scheduler": {"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK"], "runtime": 18446744073709551615, "nice": -2147483648}, "oomScoreAdj": -1000,
		"ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 7}, "execCPUAffinity": {"initial": "0-1023", "final": " 1, "}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParseProcess(text)
		if err != nil {
			return
		}
		if _, err := CheckProcess(p); err != nil {
			t.Errorf("accepted, then refused: %v", err)
		}
		if len(p.Args) == 0 || !filepath.IsAbs(p.Cwd) {
			t.Errorf("accepted %+v", p)
		}
		// The guest acts on what is left without these.
		p.ApparmorProfile, p.SelinuxLabel, p.User.Username, p.CommandLine = "", "", "", ""
		got, err := wire.UnmarshalProcess(wire.MarshalProcess(p))
		if diff := cmp.Diff(p, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("coded otherwise: %v, %s", err, diff)
		}
	})
}

// What exec reads of a bundle that somebody has changed.
func TestReadProcess(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadProcess(dir); err == nil || err.Error() != "JSON specification file config.json not found" {
		t.Errorf("no config.json: got %v", err)
	}
	path := filepath.Join(dir, "config.json")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadProcess(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a FIFO: got %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"{}": "process property must not be empty", `{"process": 5}`: "process: cannot use number as an object", `{"process": {"cwd": "/x"}}`: ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := ReadProcess(dir)
		if want == "" && (err != nil || p.Cwd != "/x") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %+v, %v, want %q", text, p, err, want)
		}
	}
}
