package libvm

import (
	"encoding/json"
	"errors"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/libvm/bundle"
	"runv/libvm/config"
	"runv/libvm/inherit"
)

// bundleConfig is a bundle that was checked.
type bundleConfig struct {
	path   string          // absolute
	rootfs string          // absolute
	spec   *specs.Spec     // Process is set
	raw    json.RawMessage // spec, for the monitor

	hostNetwork bool // it asks for the caller's network namespace

	listen   int      // files of LISTEN_FDS
	notify   bool     // NOTIFY_SOCKET is set
	warnings []string // what is not quite right with it
}

func (b *bundleConfig) terminal() bool { return b.spec.Process.Terminal }

// loadBundle reads and checks the bundle.
func (r *Runtime) loadBundle(o CreateOptions) (*bundleConfig, error) {
	dir := o.Bundle
	if dir == "" {
		dir = "."
	}
	b, err := bundle.Load(dir)
	if err != nil {
		return nil, err
	}
	if err := inheritRlimits(b.Spec.Process); err != nil {
		return nil, err
	}
	listen := inherit.ListenFDs(os.Getenv, os.Getpid())
	if p := b.Spec.Process; listen > 0 {
		p.Env = append(p.Env, "LISTEN_FDS="+strconv.Itoa(listen), "LISTEN_PID=1")
	}
	notify := os.Getenv(envNotify) != ""
	if p := b.Spec.Process; notify {
		p.Env = append(p.Env, envNotify+"="+notifyPath)
	}
	raw, err := json.Marshal(b.Spec)
	if err != nil {
		return nil, err
	}
	return &bundleConfig{path: b.Dir, rootfs: b.Rootfs, spec: b.Spec, raw: raw, hostNetwork: b.HostNetwork, listen: listen, notify: notify, warnings: b.Warnings}, nil
}

var errHostNetwork = errors.New("linux.namespaces: network: the host's network namespace is not supported: the guest would take over its interfaces (a bridge, a port that is published, or the setting host_network may do)")

// resolve finds the guest's kernel, and the rest of the settings.
func (r *Runtime) resolve(b *bundleConfig) (kernel string, c config.Config, err error) {
	c, err = r.settings(b)
	if err != nil {
		return "", c, err
	}
	if b.hostNetwork && c.HostNetwork == config.HostNetworkRefuse {
		return "", c, errHostNetwork
	}
	kernel, err = c.FindKernel(config.DefaultSearch(os.Getenv))
	return kernel, c, err
}

// settings puts together what config.toml, the bundle, the environment and the
// flags say.
func (r *Runtime) settings(b *bundleConfig) (c config.Config, err error) {
	steps := []func(config.Config) (config.Config, error){
		func(config.Config) (config.Config, error) { return config.Load(config.DefaultPath) },
		func(c config.Config) (config.Config, error) { return c.WithAnnotations(b.spec.Annotations) },
		func(c config.Config) (config.Config, error) { return c.WithVM(b.spec.VM) },
		func(c config.Config) (config.Config, error) { return c.WithEnv(os.Getenv) },
		func(c config.Config) (config.Config, error) { return c.WithKernel(r.Kernel, "--kernel") },
		func(c config.Config) (config.Config, error) { return c.WithBackend(r.Backend) },
	}
	for _, step := range steps {
		if c, err = step(c); err != nil {
			return c, err
		}
	}
	return c, nil
}
