package libvm

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestInheritRlimits(t *testing.T) {
	const inner = "RUNV_TEST_RLIMITS"
	if os.Getenv(inner) == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", `ulimit -c 0; exec "$0" -test.run '^TestInheritRlimits$' -test.v`, self)
		cmd.Env = append(os.Environ(), inner+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("with limits: %v\n%s", err, out)
		}
		return
	}
	p := &specs.Process{Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_STACK", Soft: 1, Hard: 2}}}
	if err := inheritRlimits(p); err != nil {
		t.Fatal(err)
	}
	got := map[string]specs.POSIXRlimit{}
	for _, r := range p.Rlimits {
		if _, twice := got[r.Type]; twice {
			t.Errorf("%s is there twice", r.Type)
		}
		got[r.Type] = r
	}
	for _, want := range []specs.POSIXRlimit{
		{Type: "RLIMIT_CORE"},
		{Type: "RLIMIT_STACK", Soft: 1, Hard: 2},
	} {
		if got[want.Type] != want {
			t.Errorf("got %+v, want %+v", got[want.Type], want)
		}
	}
}
