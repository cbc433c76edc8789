// Package soak runs many short containers, in a row and at a time, and checks
// that each delivers its output and status, and that nothing is left of them.
package soak

import (
	"os"
	"testing"

	"runv/tests/harness"
)

var setup *harness.Setup

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m, "../../scripts/rootfs.sh", func(s *harness.Setup) { setup = s }))
}
