package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"runv/tests/harness"
)

// How many containers are run: scripts/soak.sh asks for thousands; without it
// the tests are short enough for the suite.
const (
	envRow    = "RUNV_SOAK_ROW"     // in a row
	envMany   = "RUNV_SOAK_MANY"    // at a time, altogether
	envAtOnce = "RUNV_SOAK_AT_ONCE" // of these, how many at a time

	shortRow    = 15
	shortMany   = 40
	shortAtOnce = 20
)

// What each container does, and what has to come of it.
const (
	script     = "echo tail; exit 3"
	wantOutput = "tail\n"
	wantStatus = 3
)

// limit bounds one run. One alone takes a second under emulation, and each of
// twenty on two processors ten times as long.
const limit = 3 * time.Minute

// maxFailures is how many failed runs are told one by one.
const maxFailures = 20

func TestSoakInARow(t *testing.T) {
	soak(t, count(t, envRow, shortRow), 1)
}

func TestSoakManyAtATime(t *testing.T) {
	soak(t, count(t, envMany, shortMany), count(t, envAtOnce, shortAtOnce))
}

// count is a number of the environment, or the default.
func count(t *testing.T, name string, short int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return short
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is not a number of runs", name, v)
	}
	return n
}

// soak runs total containers, each a `runv run`, workers of them at a time.
// That nothing is left is checked by the harness, in part, when the test ends.
func soak(t *testing.T, total, workers int) {
	r := harness.New(t, setup)
	b := r.NewBundle(harness.Shell(script))
	before := snapshot(t, r)
	p := &progress{name: t.Name(), total: total, begin: time.Now()}
	var next, failures atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for next.Add(1) <= int64(total) {
				id := r.NewID()
				took, err := once(r, b, id)
				if err != nil && failures.Add(1) <= maxFailures {
					t.Errorf("%s: %v", id, err)
				}
				p.done(took, err)
			}
		})
	}
	wg.Wait()
	p.summary()
	if n := failures.Load(); n > 0 {
		t.Errorf("%d of %d runs failed", n, total)
	}
	before.Check(t, func() harness.Things { return snapshot(t, r) })
}

// once runs one container and says what is wrong with what came of it.
func once(r *harness.Runtime, b *harness.Bundle, id string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	prepared := r.Command("run", "--bundle", b.Dir, id)
	cmd := exec.CommandContext(ctx, prepared.Path, prepared.Args[1:]...)
	cmd.Env, cmd.Dir = prepared.Env, prepared.Dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	err := cmd.Run()
	took := time.Since(begin)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return took, fmt.Errorf("did not end within %v; stdout %q, stderr %q", limit, &stdout, &stderr)
	case err != nil && !errors.As(err, &exit):
		return took, err
	}
	if got := harness.StatusOf(cmd.ProcessState); got != wantStatus {
		return took, fmt.Errorf("status: got %d, want %d; stdout %q, stderr %q", got, wantStatus, &stdout, &stderr)
	}
	if stdout.String() != wantOutput || stderr.Len() > 0 {
		return took, fmt.Errorf("output: got %q, want %q; stderr %q", &stdout, wantOutput, &stderr)
	}
	return took, nil
}

// progress tells on stderr how far the runs are: they take minutes.
type progress struct {
	name  string
	total int
	begin time.Time

	mu     sync.Mutex
	took   []time.Duration
	failed int
	told   time.Time
}

// tellEvery is the time between lines of progress.
const tellEvery = 10 * time.Second

func (p *progress) done(took time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took = append(p.took, took)
	if err != nil {
		p.failed++
	}
	if time.Since(p.told) < tellEvery && len(p.took) < p.total {
		return
	}
	p.told = time.Now()
	p.say(os.Stderr, fmt.Sprintf("%d of %d", len(p.took), p.total))
}

func (p *progress) say(w io.Writer, what string) {
	fmt.Fprintf(w, "    %s: %s runs, %d failed, %v\n", p.name, what, p.failed, time.Since(p.begin).Round(time.Second)) //nolint:errcheck // progress
}

func (p *progress) summary() {
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.Sort(p.took)
	at := func(q float64) time.Duration {
		return p.took[int(q*float64(len(p.took)-1))].Round(time.Millisecond)
	}
	p.say(os.Stdout, fmt.Sprintf("all %d", len(p.took)))
	fmt.Printf("    %s: a run took %v (median), %v to %v\n", p.name, at(0.5), at(0), at(1))
}
