package libvm

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/libvm/apparmor"
	"runv/libvm/bounded"
	"runv/libvm/bundle"
)

// ProcessOptions say what exec runs: a file with a runtime-spec Process, or the
// container's own process with changes.
type ProcessOptions struct {
	File            string   // process.json; if set, the rest is not looked at
	Args            []string // program and arguments
	Cwd             string   // empty: the container's
	Env             []string // KEY=value, added to the container's
	TTY             bool
	User            string // uid[:gid] in digits; empty: the container's
	AdditionalGIDs  []int64
	Capabilities    []string // added to bounding, effective and permitted
	NoNewPrivileges *bool    // nil: the container's
	AppArmor        string   // profile; empty: the container's
	Label           string   // of SELinux; empty: the container's
}

// process makes the process to run, checked, and warnings for the user. The
// words of its errors are runc's.
func (o ProcessOptions) process(dir string) (p *specs.Process, warnings []string, err error) {
	if o.File != "" {
		p, err = readProcess(o.File)
	} else if len(o.Args) == 0 {
		err = errors.New("exec args cannot be empty")
	} else if p, err = bundle.ReadProcess(dir); err == nil {
		err = o.apply(p)
	}
	if err != nil {
		return nil, nil, err
	}
	if warnings, err = bundle.CheckProcess(p); err == nil && (o.File != "" || o.Label != "" || o.AppArmor != "") {
		err = checkLabels(dir, p)
	}
	return p, warnings, err
}

// checkLabels refuses a label of SELinux or a profile of AppArmor that is not the
// container's: that is processes of the host which have one, and its guest has
// neither module.
func checkLabels(dir string, p *specs.Process) error {
	if p.SelinuxLabel == "" && p.ApparmorProfile == "" {
		return nil
	}
	c, err := bundle.ReadProcess(dir)
	if err != nil {
		return err
	}
	if p.SelinuxLabel != "" && p.SelinuxLabel != c.SelinuxLabel {
		return fmt.Errorf("selinux label %q is not the container's (%q), whose VM has one label for all (leave it out)", p.SelinuxLabel, c.SelinuxLabel)
	}
	if a := p.ApparmorProfile; a != "" && a != c.ApparmorProfile && !(apparmor.None(a) && apparmor.None(c.ApparmorProfile)) {
		return fmt.Errorf("apparmor profile %q is not the container's (%q), whose VM has one profile for all (leave it out)", a, c.ApparmorProfile)
	}
	return nil
}

// maxProcess bounds a process.json.
const maxProcess = 8 << 20 // bytes

func readProcess(path string) (*specs.Process, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := bounded.Read(f, path, maxProcess)
	if err != nil {
		return nil, err
	}
	return bundle.ParseProcess(b)
}

// apply changes the container's process into the one to run.
func (o ProcessOptions) apply(p *specs.Process) error {
	p.Args, p.CommandLine = o.Args, ""
	if o.Cwd != "" {
		p.Cwd = o.Cwd
	}
	p.Env = append(p.Env, o.Env...)
	p.Terminal = o.TTY
	if !o.TTY {
		p.ConsoleSize = nil
	}
	if o.NoNewPrivileges != nil {
		p.NoNewPrivileges = *o.NoNewPrivileges
	}
	if o.AppArmor != "" {
		p.ApparmorProfile = o.AppArmor
	}
	if o.Label != "" {
		p.SelinuxLabel = o.Label
	}
	if len(o.Capabilities) > 0 {
		if p.Capabilities == nil {
			p.Capabilities = &specs.LinuxCapabilities{}
		}
		c := p.Capabilities
		for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
			*set = append(*set, o.Capabilities...)
		}
		if c.Inheritable != nil { // else the kernel does not raise them
			c.Ambient = append(c.Ambient, o.Capabilities...)
		}
	}
	if err := setUser(&p.User, o.User); err != nil {
		return err
	}
	for _, gid := range o.AdditionalGIDs {
		if gid < 0 || gid > maxUserID {
			return fmt.Errorf("additional-gids must be a positive number %d", gid)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(gid))
	}
	return nil
}

// maxUserID is the largest id; the one above means "no change" to the kernel.
const maxUserID = 1<<32 - 2

func setUser(u *specs.User, s string) error {
	if s == "" {
		return nil
	}
	uid, gid, both := strings.Cut(s, ":")
	if both {
		n, err := parseID("gid", gid)
		if err != nil {
			return err
		}
		u.GID = n
	}
	n, err := parseID("uid", uid)
	if err != nil {
		return err
	}
	u.UID = n
	return nil
}

func parseID(what, s string) (uint32, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("bad %s: %w", what, err)
	}
	if n < 0 || n > maxUserID {
		return 0, fmt.Errorf("%s %d is out of range", what, n)
	}
	return uint32(n), nil
}
