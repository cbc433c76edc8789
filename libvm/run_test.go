package libvm

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"runv/libvm/state"
)

func TestRunForeground(t *testing.T) {
	r, ctx := testRuntime(t), testContext(t)
	for script, want := range map[string]int{"exit 7": 7, "kill -9 $$": 137, "true": 0} {
		for _, keep := range []bool{false, true} {
			o := RunOptions{CreateOptions: CreateOptions{ID: "c", Bundle: bundleOf(t, nil, "sh", "-c", script)}, Keep: keep}
			got, err := r.Run(ctx, o)
			if err != nil || got != want {
				t.Errorf("%s: got %d, %v, want %d", script, got, err, want)
			}
			if keep {
				if s := status(t, r, "c"); s != state.Stopped {
					t.Errorf("kept: got %q", s)
				}
				if err := r.Delete(ctx, "c", false); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// Signals to run are the workload's.
func TestRunForwardsSignals(t *testing.T) {
	r, ctx := testRuntime(t), testContext(t)
	ready := filepath.Join(t.TempDir(), "ready")
	// What comes before run has heard of the start ends run itself.
	b := bundleOf(t, nil, "sh", "-c", `trap "exit 42" TERM; sleep 0.3; touch `+ready+`; while :; do sleep 0.01; done`)
	type result struct {
		status int
		err    error
	}
	done := make(chan result, 1)
	go func() {
		status, err := r.Run(ctx, RunOptions{CreateOptions: CreateOptions{ID: "c", Bundle: b}})
		done <- result{status, err}
	}()
	eventually(t, "the workload is ready", func() bool { _, err := os.Stat(ready); return err == nil })
	for _, sig := range []unix.Signal{unix.SIGURG, unix.SIGPIPE, unix.SIGWINCH, unix.SIGTERM} {
		if err := unix.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-done; got.err != nil || got.status != 42 {
		t.Errorf("got %+v (%v)", got, got.err)
	}
}
