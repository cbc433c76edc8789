// Package bundle reads and checks an OCI bundle (runtime-spec v1.3). What it
// accepts, the rest of runv does: a field of config.json is either supported or
// refused by an error that names it (Table).
//
// Words and order of the checks are runc's where runc has such a check: engines
// and scripts know them.
package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/bounded"
)

// configName is the name of the configuration in a bundle.
const configName = "config.json"

// maxConfig bounds config.json. The agent gets it in one message, of which
// ttrpc takes at most 4 MiB.
const maxConfig = 2 << 20 // bytes

// Bundle is a checked bundle.
type Bundle struct {
	// Dir is the bundle's directory: absolute, without symlinks.
	Dir string
	// Rootfs is the directory of the root file system: absolute, without
	// symlinks.
	Rootfs string
	// Spec is config.json as it is to be run: relative mount destinations and
	// bind sources are made absolute, unknown capabilities are gone.
	Spec *specs.Spec
	// Raw holds the bytes of config.json, fields that we do not know included.
	Raw []byte
	// HostNetwork is whether the config asks for the caller's network namespace.
	HostNetwork bool
	// Warnings are what the user should hear about, a line each.
	Warnings []string
}

// Load reads the bundle in a directory and checks it.
func Load(dir string) (*Bundle, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	raw, err := readConfig(filepath.Join(abs, configName))
	if err != nil {
		return nil, err
	}
	spec, err := parseSpec(raw)
	if err != nil {
		return nil, err
	}
	b := &Bundle{Dir: abs, Spec: spec, Raw: raw}
	if err := b.check(); err != nil {
		return nil, err
	}
	return b, nil
}

// ReadProcess reads the process of the config.json in a bundle's directory, as it
// is now. Nothing of it is checked: see CheckProcess.
func ReadProcess(dir string) (*specs.Process, error) {
	raw, err := readConfig(filepath.Join(dir, configName))
	if err != nil {
		return nil, err
	}
	spec, err := parseSpec(raw)
	if err != nil {
		return nil, err
	}
	if spec.Process == nil {
		return nil, errors.New("process property must not be empty")
	}
	return spec.Process, nil
}

// readConfig reads config.json, a regular file of bounded size.
func readConfig(path string) ([]byte, error) {
	// O_NONBLOCK: a FIFO in its place must not hang us.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("JSON specification file %s not found", configName)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", configName)
	}
	return bounded.Read(f, configName, maxConfig)
}

// check runs all checks, in the order in which runc would complain.
func (b *Bundle) check() error {
	checks := []func() error{
		b.checkVersion,
		b.checkProcess,
		b.checkRoot,
		func() error { return checkTable(b.Spec) },
		b.checkNames,
		b.checkMounts,
		b.checkLinux,
		b.checkHooks,
		b.warnIgnored,
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// warn keeps a line for the user.
func (b *Bundle) warn(format string, args ...any) {
	b.Warnings = append(b.Warnings, fmt.Sprintf(format, args...))
}

// checkRoot finds the root file system. Unlike runc we follow a symlink here.
func (b *Bundle) checkRoot() error {
	if b.Spec.Root == nil {
		return errors.New("root must be specified")
	}
	path := b.Spec.Root.Path
	if path == "" {
		return errors.New("root.path must not be empty")
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(b.Dir, path)
	}
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("invalid rootfs: %w", err)
	}
	if st.Mode()&fs.ModeDevice != 0 {
		return fmt.Errorf("invalid rootfs: %s is a device, which is not supported as a root: mount it on the host, and give the directory", path)
	}
	if !st.IsDir() {
		return fmt.Errorf("invalid rootfs: %s is not a directory", path)
	}
	if b.Rootfs, err = filepath.EvalSymlinks(path); err != nil {
		return fmt.Errorf("invalid rootfs: %w", err)
	}
	return nil
}
