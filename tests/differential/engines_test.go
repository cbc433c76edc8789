package differential

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// engines are configurations that engines wrote, in testdata. What in them is of the
// machine on which they were written is replaced: the root, sources of binds, hooks,
// paths of namespaces and of control groups.
func engines(t *testing.T) []config {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	var cs []config
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		cs = append(cs, config{"engine " + filepath.Base(f), nil, func(b *box) {
			var s specs.Spec
			must(json.Unmarshal(data, &s))
			adopt(b, &s)
		}})
	}
	return cs
}

// adopt makes an engine's configuration the box's.
func adopt(b *box, s *specs.Spec) {
	s.Root.Path = "rootfs"
	s.Process.Args = []string{"/probe"}
	s.Process.Terminal = false
	s.Process.Rlimits = nil // a host may refuse to raise them
	s.Hooks = nil
	s.Linux.CgroupsPath = "/" + b.id
	for i := range s.Linux.Namespaces {
		s.Linux.Namespaces[i].Path = ""
	}
	for i, m := range s.Mounts {
		if m.Type == "bind" {
			s.Mounts[i].Source = filepath.Join(b.dir, "a")
		}
	}
	b.Spec = s
}
