package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"

	"runv/libvm/state"
)

// Host says which version of cgroups the host has, "v1" or "v2", and with what
// controllers. It makes none.
func Host() (version string, controllers []string, err error) {
	g, err := open("check", state.Cgroup{Path: "/"}, nil)
	if err != nil {
		return "", nil, err
	}
	if !cgroups.IsCgroup2UnifiedMode() {
		for name := range g.manager.GetPaths() {
			if name != "" && !strings.Contains(name, "=") {
				controllers = append(controllers, name)
			}
		}
		return "v1", controllers, nil
	}
	data, err := os.ReadFile(filepath.Join(g.manager.Path(""), "cgroup.controllers"))
	if err != nil {
		return "", nil, fmt.Errorf("cgroup v2: %w", err)
	}
	return "v2", strings.Fields(string(data)), nil
}

// errNone tells of a host without cgroups.
var errNone = errors.New("this host has no cgroups mounted, say on /sys/fs/cgroup")
