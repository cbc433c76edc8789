// Package config is what runv is told outside of bundles: /etc/runv/config.toml,
// the environment, and annotations of a bundle. Of two sources that say the same
// thing the later one in this list wins:
//
//	built-in default
//	config.toml          Load
//	annotation           WithAnnotations
//	vm of config.json    WithVM
//	environment          WithEnv
//	flag                 WithKernel, or set by the command
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"runv/libvm/bounded"
)

// DefaultPath is where config.toml is looked for.
const DefaultPath = "/etc/runv/config.toml"

// Values of Config.Backend.
const (
	BackendAuto = "auto" // KVM where it runs at hardware speed, else QEMU
	BackendKVM  = "kvm"
	BackendQEMU = "qemu"
)

// Values of Config.HostNetwork: what becomes of a container that asks for the
// caller's network namespace.
const (
	HostNetworkRefuse = "refuse" // it is an error
	HostNetworkNone   = "none"   // it stays there on the host, and has no network
)

// Limits of what can be asked for. The largest number of vCPUs is the guest
// kernel's; the least memory is what kernel and agent need to start.
const (
	minMemory = 48        // MiB
	maxMemory = 1 << 24   // MiB, 16 TiB
	maxCPUs   = 64        // vCPUs
	maxBoot   = 600       // s
	maxCards  = 4         // network cards: QEMU's microvm has room for 8 devices
	maxFile   = 256 << 10 // bytes of a config.toml
)

// Config is the runtime's configuration. It is plain data: it travels as JSON
// to the monitor.
type Config struct {
	// Kernel is the absolute path of the guest's kernel; empty: the first one
	// of the search list of FindKernel.
	Kernel string `toml:"kernel" json:"kernel,omitempty"`
	// KernelParams is appended to the guest kernel's command line.
	KernelParams string `toml:"kernel_params" json:"kernelParams,omitempty"`
	// Backend is one of the Backend constants.
	Backend string `toml:"backend" json:"backend"`
	// QEMU is the program's name, looked up in PATH, or its absolute path;
	// empty: the usual name.
	QEMU string `toml:"qemu" json:"qemu,omitempty"`
	// Memory is the RAM of a VM whose bundle sets no limit, in MiB.
	Memory int `toml:"memory" json:"memory"`
	// MaxMemory is the RAM to which a VM may grow by an update of its limit, in MiB, as
	// far as the host has it; what a VM begins with it may have in any case.
	MaxMemory int `toml:"max_memory" json:"maxMemory"`
	// CPUs is the number of vCPUs of a VM whose bundle sets no limit.
	CPUs int `toml:"cpus" json:"cpus"`
	// HostNetwork is one of the HostNetwork constants.
	HostNetwork string `toml:"host_network" json:"hostNetwork"`
	// BootLimit is the CPU time that each of a VM's processors may use until the
	// agent has called, in seconds.
	BootLimit int `toml:"boot_limit" json:"bootLimit"`
	// NetworkCards is the number of a VM's network cards: interfaces that a container
	// can have, those that come while it runs included.
	NetworkCards int `toml:"network_cards" json:"networkCards"`
	// Debug logs every step, as --debug does.
	Debug bool `toml:"debug" json:"debug,omitempty"`

	// KernelFrom says where Kernel was set, for errors about it: a file's
	// name, "RUNV_KERNEL", "annotation io.runv.kernel", "vm.kernel.path", "--kernel".
	KernelFrom string `toml:"-" json:"kernelFrom,omitempty"`
}

// Default is the configuration without any file.
func Default() Config {
	return Config{Backend: BackendAuto, HostNetwork: HostNetworkRefuse, Memory: 512, MaxMemory: 16384, CPUs: 1, BootLimit: 8, NetworkCards: 3}
}

// Load reads a config.toml on top of the defaults. A file that does not exist
// changes nothing. Unknown keys, values of a wrong type or out of range are
// errors that name the key and, where known, the line.
func Load(path string) (Config, error) {
	c := Default()
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	meta, err := toml.Decode(string(data), &c)
	if err != nil {
		return Default(), fmt.Errorf("%s: %w", path, tomlError(err))
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		key := unknown[0]
		return Default(), fmt.Errorf("%s:%d: unknown key %q", path, lineOf(data, key), key)
	}
	if c.Kernel != "" {
		c.KernelFrom = path
	}
	if err := c.check(); err != nil {
		return Default(), fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// readFile reads a file of bounded size.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	return bounded.Read(f, path, maxFile)
}

// tomlError drops the library's prefix: the file's name stands there already.
func tomlError(err error) error {
	return errors.New(strings.TrimPrefix(err.Error(), "toml: "))
}

// lineOf finds the line that sets a key, counted from 1. The library tells
// lines only for what it cannot decode.
func lineOf(data []byte, key toml.Key) int {
	name := regexp.QuoteMeta(key[len(key)-1])
	set := regexp.MustCompile(`^\s*\[*\s*([\w"'-]+\s*\.\s*)*["']?` + name + `["']?\s*[].=]`)
	for i, line := range strings.Split(string(data), "\n") {
		if set.MatchString(line) {
			return i + 1
		}
	}
	return 1
}

// check says what is wrong with the values.
func (c Config) check() error {
	switch {
	case !slices.Contains([]string{BackendAuto, BackendKVM, BackendQEMU}, c.Backend):
		return fmt.Errorf("backend %q: want %s, %s or %s", c.Backend, BackendAuto, BackendKVM, BackendQEMU)
	case c.HostNetwork != HostNetworkRefuse && c.HostNetwork != HostNetworkNone:
		return fmt.Errorf("host_network %q: want %s or %s", c.HostNetwork, HostNetworkRefuse, HostNetworkNone)
	case c.Memory < minMemory || c.Memory > maxMemory:
		return fmt.Errorf("memory of %d MiB: want %d to %d", c.Memory, minMemory, maxMemory)
	case c.MaxMemory < 0 || c.MaxMemory > maxMemory:
		return fmt.Errorf("max_memory of %d MiB: want 0 to %d", c.MaxMemory, maxMemory)
	case c.CPUs < 1 || c.CPUs > maxCPUs:
		return fmt.Errorf("%d cpus: want 1 to %d", c.CPUs, maxCPUs)
	case c.BootLimit < 1 || c.BootLimit > maxBoot:
		return fmt.Errorf("boot limit of %d s: want 1 to %d", c.BootLimit, maxBoot)
	case c.NetworkCards < 0 || c.NetworkCards > maxCards:
		return fmt.Errorf("%d network cards: want 0 to %d", c.NetworkCards, maxCards)
	case c.Kernel != "" && !filepath.IsAbs(c.Kernel):
		return fmt.Errorf("kernel %q is not an absolute path", c.Kernel)
	case strings.ContainsRune(c.QEMU, '/') && !filepath.IsAbs(c.QEMU):
		return fmt.Errorf("qemu %q is neither a program's name nor an absolute path", c.QEMU)
	case strings.ContainsFunc(c.KernelParams, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("kernel parameters %q have control characters", c.KernelParams)
	}
	return nil
}
