package bundle

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// checkHooks checks the hooks (runtime-spec v1.3 config.md "POSIX-platform
// Hooks"). Whether a program exists is seen when it is run.
func (b *Bundle) checkHooks() error {
	h := b.Spec.Hooks
	if h == nil {
		return nil
	}
	for _, kind := range []struct {
		name string
		list []specs.Hook
	}{
		//lint:ignore SA1019 engines use it because it is old
		{"prestart", h.Prestart},
		{"createRuntime", h.CreateRuntime},
		{"createContainer", h.CreateContainer},
		{"startContainer", h.StartContainer},
		{"poststart", h.Poststart},
		{"poststop", h.Poststop},
	} {
		for i := range kind.list {
			if err := checkHook(&kind.list[i]); err != nil {
				return fmt.Errorf("hooks.%s[%d]: %w", kind.name, i, err)
			}
		}
	}
	return nil
}

// maxTimeout is the largest number of seconds that a time.Duration holds.
const maxTimeout = 9223372036

func checkHook(h *specs.Hook) error {
	if !filepath.IsAbs(h.Path) {
		return fmt.Errorf("path %q is not absolute", h.Path)
	}
	for _, s := range append(append([]string{h.Path}, h.Args...), h.Env...) {
		if strings.ContainsRune(s, 0) {
			return fmt.Errorf("%q contains nul byte", s)
		}
	}
	for _, e := range h.Env {
		if name, _, found := strings.Cut(e, "="); !found || name == "" {
			return fmt.Errorf("invalid environment variable %q", e)
		}
	}
	if t := h.Timeout; t != nil && (*t <= 0 || *t > maxTimeout) {
		return fmt.Errorf("timeout of %d s", *t)
	}
	return nil
}
