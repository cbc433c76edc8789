package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Annotations of a bundle that runv reads.
const (
	annotationPrefix = "io.runv."

	AnnotationKernel  = "io.runv.kernel"  // absolute path of the guest's kernel
	AnnotationMemory  = "io.runv.memory"  // RAM without a limit, MiB
	AnnotationCPUs    = "io.runv.cpus"    // vCPUs without a limit
	AnnotationBackend = "io.runv.backend" // auto, kvm or qemu

	AnnotationHostNetwork = "io.runv.host_network" // refuse or none
)

// Environment variables that runv reads.
const (
	EnvKernel  = "RUNV_KERNEL"     // path of the guest's kernel
	EnvBackend = "RUNV_BACKEND"    // auto, kvm or qemu
	EnvQEMU    = "RUNV_QEMU"       // for tests: the program to run as QEMU
	EnvBoot    = "RUNV_BOOT_LIMIT" // for tests: CPU time until the agent calls, s
	EnvHostNet = "RUNV_HOST_NETWORK"
	EnvCache   = "RUNV_CACHE" // directory of what builds make and find again
)

// Annotations lists the annotations that runv reads, sorted.
func Annotations() []string {
	return []string{AnnotationBackend, AnnotationCPUs, AnnotationHostNetwork, AnnotationKernel, AnnotationMemory}
}

// WithAnnotations applies a bundle's annotations. One that starts with
// "io.runv." and is not known is an error; others are not ours.
func (c Config) WithAnnotations(a map[string]string) (Config, error) {
	for key := range a {
		if strings.HasPrefix(key, annotationPrefix) && !slices.Contains(Annotations(), key) {
			return c, fmt.Errorf("annotation %s is not known to runv (it knows %s)", key, strings.Join(Annotations(), ", "))
		}
	}
	out := c
	var err error
	if v, ok := a[AnnotationMemory]; ok {
		if out.Memory, err = strconv.Atoi(v); err != nil {
			return c, fmt.Errorf("annotation %s: %q is not a number of MiB", AnnotationMemory, v)
		}
	}
	if v, ok := a[AnnotationCPUs]; ok {
		if out.CPUs, err = strconv.Atoi(v); err != nil {
			return c, fmt.Errorf("annotation %s: %q is not a number", AnnotationCPUs, v)
		}
	}
	if v, ok := a[AnnotationBackend]; ok {
		out.Backend = v
	}
	if v, ok := a[AnnotationHostNetwork]; ok {
		out.HostNetwork = v
	}
	if v, ok := a[AnnotationKernel]; ok {
		out.Kernel, out.KernelFrom = v, "annotation "+AnnotationKernel
	}
	if err := out.check(); err != nil {
		return c, fmt.Errorf("annotations: %w", err)
	}
	return out, nil
}

// WithVM applies the vm object of a config.json (runtime-spec v1.3 config-vm.md
// "Kernel Object"): kernel.path, kernel.parameters, hwConfig.vcpus and
// hwConfig.memory. libvm/bundle refuses the rest. A nil vm changes nothing.
func (c Config) WithVM(vm *specs.VM) (Config, error) {
	if vm == nil {
		return c, nil
	}
	out := c
	if vm.Kernel.Path != "" {
		out.Kernel, out.KernelFrom = vm.Kernel.Path, "vm.kernel.path"
	}
	if len(vm.Kernel.Parameters) > 0 {
		out.KernelParams = strings.TrimSpace(out.KernelParams + " " + strings.Join(vm.Kernel.Parameters, " "))
	}
	if hw := vm.HwConfig; hw != nil {
		if hw.VCPUs != nil && *hw.VCPUs != 0 {
			out.CPUs = int(min(*hw.VCPUs, maxCPUs+1))
		}
		if hw.Memory != nil && *hw.Memory != 0 {
			// The field is in bytes; a part of a MiB counts as one.
			out.Memory = int(min((*hw.Memory-1)>>20+1, maxMemory+1))
		}
	}
	if err := out.check(); err != nil {
		return c, fmt.Errorf("vm: %w", err)
	}
	return out, nil
}

// WithEnv applies the environment, as getenv tells it. An empty variable is as
// good as none. A relative RUNV_KERNEL is relative to the working directory.
func (c Config) WithEnv(getenv func(string) string) (Config, error) {
	out, err := c.WithBackend(getenv(EnvBackend))
	if err != nil {
		return c, fmt.Errorf("%s: %w", EnvBackend, err)
	}
	if v := getenv(EnvQEMU); v != "" {
		out.QEMU = v
	}
	if v := getenv(EnvHostNet); v != "" {
		out.HostNetwork = v
	}
	if v := getenv(EnvBoot); v != "" {
		if out.BootLimit, err = strconv.Atoi(v); err != nil {
			return c, fmt.Errorf("%s: %q is not a whole number of seconds", EnvBoot, v)
		}
	}
	if v := getenv(EnvKernel); v != "" {
		if out, err = out.WithKernel(v, EnvKernel); err != nil {
			return c, err
		}
	}
	if err = out.check(); err != nil {
		return c, fmt.Errorf("environment: %w", err)
	}
	return out, nil
}

// WithKernel sets the guest's kernel, relative to the working directory, and
// says who asked for it ("--kernel"). An empty path changes nothing.
func (c Config) WithKernel(path, from string) (Config, error) {
	if path == "" {
		return c, nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return c, fmt.Errorf("%s: %w", from, err)
	}
	c.Kernel, c.KernelFrom = abs, from
	return c, nil
}

// WithBackend sets the backend, as --backend does. An empty name changes nothing.
func (c Config) WithBackend(name string) (Config, error) {
	if name == "" {
		return c, nil
	}
	out := c
	out.Backend = name
	if err := out.check(); err != nil {
		return c, err
	}
	return out, nil
}
