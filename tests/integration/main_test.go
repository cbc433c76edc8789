// Package integration runs the built runv as people and engines do. Each test
// says what it shows; the harness checks that none leaves anything behind.
package integration

import (
	"os"
	"testing"

	"runv/tests/harness"
)

var setup *harness.Setup

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m, "../../scripts/rootfs.sh", func(s *harness.Setup) { setup = s }))
}

func newRuntime(t *testing.T) *harness.Runtime {
	t.Helper()
	return harness.New(t, setup)
}
