package bundle

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// VersionMin is the oldest version of the runtime-spec that Load takes. The
// newest one it knows is specs.Version.
const VersionMin = "1.0.0"

// semver matches SemVer v2.0.0, with the groups major, minor, patch and
// pre-release. It is compiled where it is used: most commands never load a
// bundle.
func semver() *regexp.Regexp {
	return regexp.MustCompile(`^(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?$`)
}

// checkVersion refuses what is not of major version 1 (runtime-spec v1.3
// config.md "Specification version"), and warns where fields may be unknown.
func (b *Bundle) checkVersion() error {
	v := b.Spec.Version
	if v == "" {
		return errors.New("ociVersion must be specified")
	}
	m := semver().FindStringSubmatch(v)
	if m == nil {
		return fmt.Errorf("ociVersion %q is not a semantic version", v)
	}
	if m[1] != "1" || (m[2] == "0" && m[3] == "0" && m[4] != "") {
		return fmt.Errorf("ociVersion %q is not supported: runv implements %s to %s", v, VersionMin, specs.Version)
	}
	if minor, err := strconv.Atoi(m[2]); err == nil && minor > specs.VersionMinor {
		b.warn("ociVersion %s is newer than %s: fields added since are not known and not applied", v, specs.Version)
	}
	return nil
}
