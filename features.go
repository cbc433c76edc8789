package main

import (
	"encoding/json"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"github.com/urfave/cli/v2"

	"runv/libvm/bundle"
	"runv/libvm/cgroup"
	"runv/libvm/config"
	"runv/libvm/seccomp"
)

// Annotations of the features document.
const (
	featureVersion = "io.runv.version"
	featureCommit  = "io.runv.commit"
	featureKernel  = "io.runv.kernel.default" // path of the kernel that guests get
)

func featuresCommand() *cli.Command {
	return &cli.Command{
		Name:  "features",
		Usage: "show the enabled features",
		Description: `Show the enabled features as JSON, in the form of the runtime-spec's features.md.
What each field of a config.json does is in docs/config-fields.md.`,
		Action: func(c *cli.Context) error {
			if _, err := arguments(c, arity{0, 0}); err != nil {
				return err
			}
			enc := json.NewEncoder(c.App.Writer)
			enc.SetIndent("", "    ")
			return enc.Encode(runvFeatures(version, commit, defaultKernel()))
		},
	}
}

// defaultKernel is the kernel of a guest whose bundle and caller name none;
// empty if there is none.
func defaultKernel() string {
	c, err := config.Load(config.DefaultPath)
	if err != nil {
		return ""
	}
	if c, err = c.WithEnv(os.Getenv); err != nil {
		return ""
	}
	path, err := c.FindKernel(config.DefaultSearch(os.Getenv))
	if err != nil {
		return ""
	}
	return path
}

// runvFeatures is the features document (runtime-spec v1.3 features.md), with
// what the table of config.json's fields says.
func runvFeatures(version, commit, kernel string) features.Features {
	annotations := map[string]string{}
	for key, value := range map[string]string{featureVersion: version, featureCommit: commit, featureKernel: kernel} {
		if value != "" {
			annotations[key] = value
		}
	}
	return features.Features{
		OCIVersionMin: bundle.VersionMin,
		OCIVersionMax: specs.Version,
		Hooks:         supportedHooks(),
		MountOptions:  bundle.MountOptions(),
		Linux:         linuxFeatures(),
		Annotations:   annotations,
		// They choose a kernel, a backend and sizes, and properties of systemd's unit.
		PotentiallyUnsafeConfigAnnotations: []string{"io.runv.", cgroup.PropertyPrefix},
	}
}

func supportedHooks() []string {
	var out []string
	for _, name := range []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"} {
		if bundle.Supports("hooks." + name) {
			out = append(out, name)
		}
	}
	return out
}

func linuxFeatures() *features.Linux {
	supports := func(path string) *bool {
		v := bundle.Supports(path)
		return &v
	}
	yes, no := true, false
	return &features.Linux{
		Namespaces:   bundle.Namespaces(),
		Capabilities: bundle.Capabilities(),
		Cgroup: &features.Cgroup{
			V1: &yes, V2: &yes, // of the host; the guest has v2
			Systemd: &yes, SystemdUser: &no,
			Rdma: supports("linux.resources.rdma"),
		},
		Seccomp: &features.Seccomp{
			Enabled: &yes, Actions: seccomp.Actions(), Operators: seccomp.Operators(), Archs: seccomp.Archs(),
			KnownFlags: seccomp.KnownFlags(), SupportedFlags: seccomp.KnownFlags(),
		},
		Apparmor: &features.Apparmor{Enabled: supports("process.apparmorProfile")},
		Selinux:  &features.Selinux{Enabled: supports("process.selinuxLabel")},
		IntelRdt: &features.IntelRdt{
			Enabled: supports("linux.intelRdt.closID"), Schemata: supports("linux.intelRdt.schemata"),
			Monitoring: supports("linux.intelRdt.enableMonitoring"),
		},
		MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: supports("mounts[].uidMappings")}},
		NetDevices:      &features.NetDevices{Enabled: supports("linux.netDevices")},
	}
}
