package conformance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// expectation is what is known of one program (expected.toml).
type expectation struct {
	Runv string `toml:"runv"` // outcome with runv; "fail/silent" is one or the other
	Runc string `toml:"runc"` // outcome with runc 1.1.5, on the machine that the file tells of
	Crun string `toml:"crun"` // outcome with crun 1.8.1

	// Failed are the descriptions of the assertions that do not hold with runv,
	// in any order; "*" stands for any number of them.
	Failed []string `toml:"failed"`
	// Reason says why an outcome is not pass: what was seen, and whose defect it is.
	Reason string `toml:"reason"`
}

// readExpected reads the file and checks what must hold of it whatever a run says.
func readExpected(path string) (map[string]expectation, error) {
	var all map[string]expectation
	meta, err := toml.DecodeFile(path, &all)
	if err != nil {
		return nil, err
	}
	if extra := meta.Undecoded(); len(extra) > 0 {
		return nil, fmt.Errorf("%s: unknown key %s", path, extra[0])
	}
	for name, e := range all {
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", path, name, err)
		}
	}
	return all, nil
}

// check holds the rule of the file: runv passes whatever another runtime passes,
// and all else has its reason.
func (e expectation) check() error {
	for _, o := range append(strings.Split(e.Runv, "/"), e.Runc, e.Crun) {
		if !slices.Contains([]string{pass, fail, silent}, o) {
			return fmt.Errorf("outcome %q is none of pass, fail, silent", o)
		}
	}
	switch {
	case e.Runv != pass && (e.Runc == pass || e.Crun == pass):
		return fmt.Errorf("another runtime passes it, so runv has to")
	case e.Runv != pass && e.Reason == "":
		return fmt.Errorf("an exception without a reason")
	case e.Runv == pass && (e.Reason != "" || len(e.Failed) > 0):
		return fmt.Errorf("a reason for what passes")
	}
	return nil
}

// differs says how a report is not the expected one; empty if it is.
func (e expectation) differs(r report, status int) string {
	if got := r.outcome(status); !slices.Contains(strings.Split(e.Runv, "/"), got) {
		return fmt.Sprintf("outcome: got %s, want %s", got, e.Runv)
	}
	if slices.Contains(e.Failed, "*") {
		return ""
	}
	got, want := slices.Sorted(slices.Values(r.failed)), slices.Sorted(slices.Values(e.Failed))
	if !slices.Equal(got, want) {
		return fmt.Sprintf("assertions that do not hold: got %q, want %q", got, want)
	}
	return ""
}
