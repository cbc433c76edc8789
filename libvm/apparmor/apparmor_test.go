package apparmor

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestCheck: no profile is always fine; one that nobody can have is an error with
// runc's words.
func TestCheck(t *testing.T) {
	for _, name := range []string{"", "unconfined"} {
		if err := Check(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	err := Check("runv-no-such-profile")
	if err == nil || !strings.HasPrefix(err.Error(), "unable to apply apparmor profile: apparmor") {
		t.Errorf("a profile that is not there: %v", err)
	}
	if Enabled() != errors.Is(err, os.ErrNotExist) || Enabled() == errors.Is(err, ErrDisabled) {
		t.Errorf("enabled %v: %v", Enabled(), err)
	}
}

// TestNoChange: without a profile there is nothing to do.
func TestNoChange(t *testing.T) {
	c, err := NewChange("unconfined")
	if c != nil || err != nil {
		t.Fatalf("got %v, %v", c, err)
	}
	defer c.Close()
	if err := c.Apply(); err != nil {
		t.Error(err)
	}
}
