// Package engines runs what users of Docker, Podman and ctr do, with runc as the
// control and with runv, and compares what they see (scripts/test-engines.sh
// starts the engines).
package engines

import (
	_ "embed"
	"fmt"

	"github.com/BurntSushi/toml"
	"github.com/moby/sys/capability"
)

// exception is what is seen in one row with one runtime instead of what the
// table says.
type exception struct {
	Want   string `toml:"want"`
	Reason string `toml:"reason"` // what is different, and whose doing it is

	// WithoutSysResource says that it is so only where root lacks CAP_SYS_RESOURCE.
	WithoutSysResource bool `toml:"without_sys_resource"`
}

// holds reports whether the exception is one on this machine.
func (e exception) holds() (bool, error) {
	if e.Reason == "" || !e.WithoutSysResource {
		return e.Reason != "", nil
	}
	set, err := capability.NewPid2(0)
	if err != nil {
		return false, err
	}
	if err := set.Load(); err != nil {
		return false, err
	}
	return !set.Get(capability.EFFECTIVE, capability.CAP_SYS_RESOURCE), nil
}

//go:embed expected.toml
var expectedFile string

// readExpected returns the exceptions, by the names of the tests.
func readExpected() (map[string]exception, error) {
	const path = "expected.toml"
	var all map[string]exception
	meta, err := toml.Decode(expectedFile, &all)
	if err != nil {
		return nil, err
	}
	if extra := meta.Undecoded(); len(extra) > 0 {
		return nil, fmt.Errorf("%s: unknown key %s", path, extra[0])
	}
	for name, e := range all {
		if e.Reason == "" {
			return nil, fmt.Errorf("%s: %s: an exception without a reason", path, name)
		}
	}
	return all, nil
}
