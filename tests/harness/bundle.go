package harness

import (
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Bundle is a bundle on disk.
type Bundle struct {
	Dir    string
	Rootfs string
	Spec   *specs.Spec // as it was written last
}

// Change is one thing about a config.json that a test wants otherwise.
type Change func(*specs.Spec)

// NewBundle makes a bundle from what `runv spec` prints, with a busybox rootfs
// that can be written to, no terminal, under the AppArmor profile RUNV_TEST_APPARMOR
// (none if that is not set), and the changes.
func (r *Runtime) NewBundle(changes ...Change) *Bundle {
	r.T.Helper()
	b := &Bundle{Dir: filepath.Join(r.Dir, "bundle-"+r.NewID())}
	b.Rootfs = filepath.Join(b.Dir, "rootfs")
	if err := CopyTree(r.Setup.Rootfs, b.Rootfs); err != nil {
		r.T.Fatal(err)
	}
	r.Must("spec", "--bundle", b.Dir)
	data, err := os.ReadFile(filepath.Join(b.Dir, "config.json"))
	if err != nil {
		r.T.Fatal(err)
	}
	b.Spec = new(specs.Spec)
	if err := json.Unmarshal(data, b.Spec); err != nil {
		r.T.Fatal(err)
	}
	b.Spec.Process.Terminal = false
	b.Spec.Root.Readonly = false
	b.Spec.Process.ApparmorProfile = os.Getenv("RUNV_TEST_APPARMOR")
	// Only where the host has cgroup v2, as by runc: bundles are to be the same on all.
	b.Spec.Linux.Namespaces = slices.DeleteFunc(b.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.CgroupNamespace
	})
	b.Change(r.T, changes...)
	return b
}

// Change applies changes and writes config.json.
func (b *Bundle) Change(t testing.TB, changes ...Change) {
	t.Helper()
	for _, c := range changes {
		c(b.Spec)
	}
	data, err := json.MarshalIndent(b.Spec, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	b.Write(t, string(data))
}

// Write replaces config.json by any text.
func (b *Bundle) Write(t testing.TB, config string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.Dir, "config.json"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Args sets the command.
func Args(args ...string) Change {
	return func(s *specs.Spec) { s.Process.Args = args }
}

// Shell sets the command to a script for the shell.
func Shell(script string) Change { return Args("sh", "-c", script) }

// Terminal asks for a terminal.
func Terminal(s *specs.Spec) { s.Process.Terminal = true }

// CopyTree copies directories, files and symbolic links, with their modes.
func CopyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			if err := os.MkdirAll(dst, 0o755); err != nil {
				return err
			}
			return os.Chmod(dst, info.Mode())
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, dst)
		}
		return copyFile(path, dst, info.Mode())
	})
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close() //nolint:errcheck // broken
		return err
	}
	return out.Close()
}
