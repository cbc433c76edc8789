package bundle

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/selinux/go-selinux"
)

// checkSecurity checks the labels of the host's security modules. A guest has
// its own kernel, without them; the label of SELinux is the monitor's and its
// VM's. Engines set an AppArmor profile on every host that has AppArmor, so it is
// an error only where runc, too, could not apply it.
func checkSecurity(p *specs.Process, hasAppArmor, hasSELinux func() bool) (warning string, err error) {
	if p.SelinuxLabel != "" && !hasSELinux() {
		return "", errors.New("selinux label is specified in config, but selinux is disabled or not supported")
	}
	switch a := p.ApparmorProfile; {
	case a == "" || a == "unconfined":
		return "", nil
	case !hasAppArmor():
		return "", fmt.Errorf("unable to apply apparmor profile: process.apparmorProfile is %q, but AppArmor is disabled or not supported (remove it from the config)", a)
	default:
		return fmt.Sprintf("process.apparmorProfile %q is not applied: the guest has its own kernel, without AppArmor", a), nil
	}
}

// hostAppArmor says whether the host enforces AppArmor.
func hostAppArmor() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(b), "Y")
}

func hostSELinux() bool { return selinux.GetEnabled() }
