package main

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"runv/libvm/bundle"
)

var update = flag.Bool("update", false, "write the golden files, manual pages, completions and docs/flags.md")

// golden compares a command's output with a file.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	current(t, filepath.Join("testdata", name), got)
}

// current compares what is made from the program with a file that is kept of it.
func current(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (write it anew if this is meant: go test . -update):\n%s", path, diff)
	}
}

// runSpec runs the command in a new bundle and gives its config.json.
func runSpec(t *testing.T, dir string, args ...string) ([]byte, error) {
	t.Helper()
	c := cli.NewApp()
	c.Commands = []*cli.Command{specCommand()}
	c.ExitErrHandler = func(*cli.Context, error) {}
	if err := c.Run(append([]string{"runv", "spec", "--bundle", dir}, args...)); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	return data, nil
}

// What spec writes, create takes.
func TestSpecLoads(t *testing.T) {
	for _, args := range [][]string{nil, {"--rootless"}} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := runSpec(t, dir, args...); err != nil {
			t.Fatal(err)
		}
		b, err := bundle.Load(dir)
		if err != nil {
			t.Errorf("%q: %v", args, err)
		} else if len(b.Warnings) > 0 {
			t.Errorf("%q: warnings %q", args, b.Warnings)
		}
	}
}

func TestSpecGolden(t *testing.T) {
	for name, change := range map[string]func(*specs.Spec){
		"spec.json":          func(*specs.Spec) {},
		"spec-rootless.json": func(s *specs.Spec) { bundle.Rootless(s, 1000, 1001) },
	} {
		s := bundle.Example(true)
		change(s)
		data, err := json.MarshalIndent(s, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, data)
	}
}

func TestSpecExists(t *testing.T) {
	dir := t.TempDir()
	first, err := runSpec(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = runSpec(t, dir, "--rootless"); err == nil || err.Error() != "File config.json exists. Remove it first" {
		t.Errorf("error %v, want runc's words", err)
	}
	again, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil || string(again) != string(first) {
		t.Errorf("config.json changed, error %v", err)
	}
	if _, err := runSpec(t, filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("error %v, want no such file or directory", err)
	}
}

// The same as runc's, but for the version, the host name, and the ambient
// capabilities, which runc has left out since 1.2.
func TestSpecAsRunc(t *testing.T) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("no runc to compare with (try: apt-get install runc)")
	}
	dir := t.TempDir()
	if out, err := exec.Command(runc, "spec", "--bundle", dir).CombinedOutput(); err != nil {
		t.Fatalf("runc spec: %v: %s", err, out)
	}
	theirs, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := runSpec(t, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var want, got specs.Spec
	if err := json.Unmarshal(theirs, &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(ours, &got); err != nil {
		t.Fatal(err)
	}
	want.Version, want.Hostname, want.Process.Capabilities.Ambient = specs.Version, "runv", nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
