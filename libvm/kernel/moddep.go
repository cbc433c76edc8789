package kernel

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"strings"
)

// The index files of depmod(8), modules.dep(5): paths relative to the directory
// that they are in.
//
//	modules.dep      kernel/fs/fuse/virtiofs.ko: kernel/fs/fuse/fuse.ko kernel/drivers/virtio/virtio.ko
//	modules.builtin  kernel/fs/ext4/ext4.ko

const (
	maxModules  = 1 << 16 // entries of an index; a distribution's kernel has 4,000
	maxDepLine  = 1 << 16 // bytes of a line
	maxDepDepth = 64      // of a chain of dependencies; a loop is longer
)

// dependency is what modules.dep says of one module.
type dependency struct {
	path  string   // of the module
	needs []string // names of the modules that it depends on
}

// parseDep parses modules.dep into a map by module name.
func parseDep(r io.Reader) (map[string]dependency, error) {
	deps := make(map[string]dependency)
	err := eachLine(r, func(line string) error {
		p, rest, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("%q has no colon", line)
		}
		d := dependency{path: p}
		if err := checkPath(p); err != nil {
			return err
		}
		for _, need := range strings.Fields(rest) {
			if err := checkPath(need); err != nil {
				return err
			}
			d.needs = append(d.needs, moduleName(need))
		}
		deps[moduleName(p)] = d
		return nil
	})
	return deps, err
}

// parseBuiltin parses modules.builtin into a set of module names.
func parseBuiltin(r io.Reader) (map[string]bool, error) {
	names := make(map[string]bool)
	err := eachLine(r, func(line string) error {
		names[moduleName(line)] = true
		return nil
	})
	return names, err
}

// eachLine calls f with each line that is not empty.
func eachLine(r io.Reader, f func(string) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxDepLine)
	n := 0
	for s.Scan() {
		if n++; n > maxModules {
			return fmt.Errorf("more than %d lines", maxModules)
		}
		if line := strings.TrimSpace(s.Text()); line != "" {
			if err := f(line); err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	return nil
}

// checkPath accepts the path of a module in the directory of the index.
func checkPath(p string) error {
	if p == "" || path.IsAbs(p) || path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../") ||
		strings.ContainsAny(p, "\x00\n") || !strings.Contains(path.Base(p), ".ko") {
		return fmt.Errorf("%q is not the path of a module in this directory", p)
	}
	return nil
}

// moduleName returns the name that the kernel gives to a module file.
func moduleName(p string) string {
	name, _, _ := strings.Cut(path.Base(p), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// resolver collects modules behind their dependencies.
type resolver struct {
	deps    map[string]dependency
	builtin map[string]bool
	done    map[string]bool
	order   []string // paths
}

// has reports whether the kernel has the module in some way.
func (r *resolver) has(name string) bool {
	_, ok := r.deps[name]
	return ok || r.builtin[name]
}

// add appends the module and, before it, what it needs.
func (r *resolver) add(name string, depth int) error {
	if r.done[name] || r.builtin[name] {
		return nil
	}
	d, ok := r.deps[name]
	if !ok {
		return fmt.Errorf("module %s is needed and missing in modules.dep", name)
	}
	if depth > maxDepDepth {
		return fmt.Errorf("module %s depends on itself, or on more than %d others in a row", name, maxDepDepth)
	}
	// modules.dep lists the whole closure, the most basic module last.
	for i := len(d.needs) - 1; i >= 0; i-- {
		if err := r.add(d.needs[i], depth+1); err != nil {
			return err
		}
	}
	r.done[name] = true
	r.order = append(r.order, d.path)
	return nil
}
