package kernel

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Module is a module that a guest has to load.
type Module struct {
	Name string // as lsmod shows it, with underscores
	Path string // in the guest: /lib/modules/<release>/kernel/….ko
	File string // on the host, perhaps compressed
}

// required names what no container starts without: the bus, the connection to
// the agent, and the root filesystem.
var required = []string{"virtio_mmio", "vmw_vsock_virtio_transport", "virtiofs"}

// wanted names what containers use and could not load themselves, as there is
// no modprobe in the guest. What a kernel does not have of it, it goes without.
var wanted = []string{
	"virtio_pci", "virtio_net", "virtio_blk", "virtio_console", "virtio_rng", "virtio_balloon",
	"overlay", "unix_diag", "binfmt_misc", "ptp_kvm",
}

// maxModule bounds an uncompressed module. The largest in a distribution's
// kernel have some megabytes.
const maxModule = 64 << 20 // bytes

// ModuleDirs returns the directories in which the modules of the kernel at file
// may be: beside it, as in an unpacked linux-image package, or the host's.
func ModuleDirs(file string) []string {
	return []string{filepath.Join(filepath.Dir(file), "..", "lib", "modules"), "/lib/modules"}
}

// Modules returns the modules that a guest with the kernel of this release has
// to load, in that order, so that each comes after those that it depends on.
// They are looked for in the first of dirs that has a directory of the
// release's name; if there is none, the kernel is taken as monolithic.
func Modules(release string, dirs ...string) ([]Module, error) {
	if release == "" {
		return nil, nil
	}
	if !isRelease([]byte(release)) {
		return nil, fmt.Errorf("kernel release %q is not a name", release)
	}
	for _, dir := range dirs {
		dir = filepath.Join(dir, release)
		fi, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) || (err == nil && !fi.IsDir()) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look for kernel modules: %w", err)
		}
		return modulesIn(dir, release)
	}
	return nil, nil
}

// modulesIn resolves the modules in dir, a /lib/modules/<release>.
func modulesIn(dir, release string) ([]Module, error) {
	deps, err := readIndex(dir, "modules.dep", parseDep)
	if errors.Is(err, fs.ErrNotExist) {
		base := filepath.Clean(filepath.Join(dir, "../../.."))
		return nil, fmt.Errorf("%s has no modules.dep: run depmod -b %s %s", dir, base, release)
	}
	if err != nil {
		return nil, err
	}
	builtin, err := readIndex(dir, "modules.builtin", parseBuiltin)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	res := resolver{deps: deps, builtin: builtin, done: make(map[string]bool)}
	for _, name := range required {
		if !res.has(name) {
			return nil, fmt.Errorf("kernel %s has no %s, neither built in nor in %s", release, name, dir)
		}
		if err := res.add(name, 0); err != nil {
			return nil, fmt.Errorf("kernel %s: %w", release, err)
		}
	}
	for _, name := range wanted {
		if !res.has(name) {
			continue
		}
		if err := res.add(name, 0); err != nil {
			return nil, fmt.Errorf("kernel %s: %w", release, err)
		}
	}
	modules := make([]Module, 0, len(res.order))
	for _, p := range res.order {
		plain := p
		if ext := path.Ext(p); ext != ".ko" {
			plain = strings.TrimSuffix(p, ext)
		}
		modules = append(modules, Module{
			Name: moduleName(p),
			Path: path.Join("/lib/modules", release, plain),
			File: filepath.Join(dir, filepath.FromSlash(p)),
		})
	}
	return modules, nil
}

// readIndex reads one of depmod's files with parse.
func readIndex[T any](dir, name string, parse func(io.Reader) (T, error)) (T, error) {
	var none T
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return none, err
	}
	defer f.Close()
	v, err := parse(f)
	if err != nil {
		return none, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return v, nil
}

// Read returns the module's ELF object. It decompresses gzip and refuses what
// the standard library cannot decompress, with the command that does.
func (m Module) Read() ([]byte, error) {
	f, err := os.Open(m.File)
	if err != nil {
		return nil, fmt.Errorf("kernel module %s: %w", m.Name, err)
	}
	defer f.Close()
	var r io.Reader = f
	switch ext := filepath.Ext(m.File); ext {
	case ".ko":
	case ".gz":
		if r, err = gzip.NewReader(f); err != nil {
			return nil, fmt.Errorf("kernel module %s: %w", m.File, err)
		}
	case ".xz", ".zst":
		cmd := map[string]string{".xz": "unxz", ".zst": "unzstd --rm"}[ext]
		dir, _, _ := strings.Cut(m.File, "/kernel/")
		return nil, fmt.Errorf("kernel module %s is compressed with %s: decompress it, as with find %s -name '*.ko%s' -exec %s {} +, and run depmod",
			m.File, ext[1:], dir, ext, cmd)
	default:
		return nil, fmt.Errorf("kernel module %s has an unknown compression", m.File)
	}
	b, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err != nil {
		return nil, fmt.Errorf("kernel module %s: %w", m.File, err)
	}
	if len(b) > maxModule {
		return nil, fmt.Errorf("kernel module %s has more than %d MiB", m.File, maxModule>>20)
	}
	return b, nil
}
