package bundle

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/libvm/apparmor"
)

func (b *Bundle) checkProcess() error {
	if b.Spec.Process == nil {
		return errors.New("process property must not be empty")
	}
	warnings, err := CheckProcess(b.Spec.Process)
	b.Warnings = append(b.Warnings, warnings...)
	return err
}

// CheckProcess checks a process, be it config.json's or an exec's. It takes
// capabilities that no kernel of ours has out of p, and returns warnings for
// the user, a line each.
func CheckProcess(p *specs.Process) ([]string, error) {
	switch {
	case p.Cwd == "":
		//lint:ignore ST1005 runc's words
		return nil, errors.New("Cwd property must not be empty")
	case !filepath.IsAbs(p.Cwd):
		//lint:ignore ST1005 runc's words
		return nil, errors.New("Cwd must be an absolute path")
	case len(p.Args) == 0:
		return nil, errors.New("args must not be empty")
	}
	if err := checkSecurity(p, apparmor.Check, hostSELinux); err != nil {
		return nil, err
	}
	if err := checkTableProcess(p); err != nil {
		return nil, err
	}
	for _, check := range []func(*specs.Process) error{
		checkStrings, checkRlimits, checkNumbers, checkScheduling,
	} {
		if err := check(p); err != nil {
			return nil, err
		}
	}
	var warnings []string
	if unknown := filterCapabilities(p.Capabilities); len(unknown) > 0 {
		warnings = append(warnings, fmt.Sprintf("ignoring unknown or unavailable capabilities: [%s]", strings.Join(unknown, " ")))
	}
	return warnings, nil
}

// checkStrings refuses what cannot be passed to exec.
func checkStrings(p *specs.Process) error {
	if strings.ContainsRune(p.Cwd, 0) {
		return fmt.Errorf("process.cwd %q: contains nul byte", p.Cwd)
	}
	for i, a := range p.Args {
		if strings.ContainsRune(a, 0) {
			return fmt.Errorf("process.args[%d] %q: contains nul byte", i, a)
		}
	}
	for i, e := range p.Env {
		name, _, found := strings.Cut(e, "=")
		switch {
		case !found:
			return fmt.Errorf("process.env[%d]: invalid environment variable %q: missing '='", i, e)
		case name == "":
			return fmt.Errorf("process.env[%d]: invalid environment variable %q: name cannot be empty", i, e)
		case strings.ContainsRune(e, 0):
			return fmt.Errorf("process.env[%d]: invalid environment variable %q: contains nul byte", i, e)
		}
	}
	return nil
}

// rlimitTypes are the resources of setrlimit(2).
func rlimitTypes() []string {
	return []string{
		"RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS",
		"RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC",
		"RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK",
	}
}

func checkRlimits(p *specs.Process) error {
	seen := map[string]bool{}
	for i, r := range p.Rlimits {
		switch {
		case !slices.Contains(rlimitTypes(), r.Type):
			return fmt.Errorf("process.rlimits[%d]: wrong rlimit value: %s", i, r.Type)
		case seen[r.Type]:
			return fmt.Errorf("process.rlimits[%d]: duplicate type %s", i, r.Type)
		case r.Soft > r.Hard:
			return fmt.Errorf("process.rlimits[%d]: %s: soft limit %d is above the hard limit %d", i, r.Type, r.Soft, r.Hard)
		}
		seen[r.Type] = true
	}
	return nil
}

func checkNumbers(p *specs.Process) error {
	if c := p.ConsoleSize; c != nil && (c.Height > math.MaxUint16 || c.Width > math.MaxUint16) {
		return fmt.Errorf("process.consoleSize %dx%d: at most %d each", c.Width, c.Height, math.MaxUint16)
	}
	if s := p.OOMScoreAdj; s != nil && (*s < -1000 || *s > 1000) {
		return fmt.Errorf("process.oomScoreAdj %d: want -1000 to 1000", *s)
	}
	for _, id := range append([]uint32{p.User.UID, p.User.GID}, p.User.AdditionalGids...) {
		if id > math.MaxInt32 {
			return fmt.Errorf("process.user: unable to setup user: uids and gids must be in range 0-%d: %d", math.MaxInt32, id) // runc's words
		}
	}
	return nil
}

// Capabilities lists the capabilities that runv knows, by number.
func Capabilities() []string {
	var out []string
	for _, c := range capability.ListKnown() {
		out = append(out, "CAP_"+strings.ToUpper(c.String()))
	}
	return out
}

// filterCapabilities removes unknown capabilities, and returns their names.
func filterCapabilities(c *specs.LinuxCapabilities) []string {
	if c == nil {
		return nil
	}
	known := Capabilities()
	var unknown []string
	for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Inheritable, &c.Permitted, &c.Ambient} {
		kept := slices.Clone(*set)[:0]
		for _, name := range *set {
			switch {
			case slices.Contains(known, name):
				kept = append(kept, name)
			case !slices.Contains(unknown, name):
				unknown = append(unknown, name)
			}
		}
		if len(*set) > 0 {
			*set = kept
		}
	}
	slices.Sort(unknown)
	return unknown
}
