package bundle

import (
	"errors"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/selinux/go-selinux"
)

// checkSecurity checks the labels of the host's security modules. A guest has
// its own kernel, without them: label and profile are the monitor's and its VM's.
// appArmor says why a profile cannot be had.
func checkSecurity(p *specs.Process, appArmor func(profile string) error, hasSELinux func() bool) error {
	if p.SelinuxLabel != "" && !hasSELinux() {
		return errors.New("selinux label is specified in config, but selinux is disabled or not supported")
	}
	return appArmor(p.ApparmorProfile)
}

func hostSELinux() bool { return selinux.GetEnabled() }
