// Package differential runs the same bundles under runv and under runc, and
// compares what a probe sees inside: every difference is one that a virtual machine
// cannot avoid, and listed in differences_test.go with the reason, or a defect.
package differential

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/tests/harness"
)

// atOnce is how many containers run at a time: an emulated guest keeps one CPU busy.
const atOnce = 2

var setup *harness.Setup

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m, "../../scripts/rootfs.sh", func(s *harness.Setup) { setup = s }))
}

// minimum is how many configurations there are at least.
const minimum = 150

func TestCorpus(t *testing.T) {
	all := corpus(t)
	seen := map[string]bool{}
	for _, c := range all {
		if seen[c.name] {
			t.Errorf("two configurations are called %q", c.name)
		}
		seen[c.name] = true
	}
	if len(all) < minimum {
		t.Errorf("%d configurations, want %d at least", len(all), minimum)
	}
	for _, d := range differences {
		if d.reason == "" {
			t.Errorf("%s: a difference without a reason", d.fact)
		}
	}
}

// config is one configuration of the corpus.
type config struct {
	name   string
	args   []string // further ones of the probe
	change func(*box)
}

// box is what a configuration can change.
type box struct {
	*specs.Spec
	rootfs string // of this bundle
	dir    string // for what is to be mounted; with files a and b and a directory d
	id     string
}

// outcome is how one runtime ran one configuration.
type outcome struct {
	status int
	stderr string
	facts  map[string]string // empty if the probe did not run
	err    error             // of the test's
}

func TestSameAsRunc(t *testing.T) {
	r := harness.New(t, setup)
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("no runc (try: apt-get install runc)")
	}
	equalLimits(t)
	t.Cleanup(harness.ReapAll)
	probe := filepath.Join(r.Dir, "probe")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", probe, "./probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v\n%s", err, out)
	}
	all := selected(t)
	ours, theirs := make([]outcome, len(all)), make([]outcome, len(all))
	var wg sync.WaitGroup
	next := make(chan int)
	for range atOnce {
		wg.Go(func() {
			for i := range next {
				theirs[i] = run(r, all[i], probe, fmt.Sprintf("runc-%d", i), "runc", "--root", filepath.Join(r.Dir, "runc"))
				ours[i] = run(r, all[i], probe, fmt.Sprintf("runv-%d", i), r.Setup.Runv, "--root", r.Root)
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	wg.Wait()
	used := map[string]bool{}
	for i, c := range all {
		t.Run(c.name, func(t *testing.T) { compare(t, c, ours[i], theirs[i], used) })
	}
	if len(all) == len(corpus(t)) {
		for _, d := range differences {
			if !used[d.key()] && !d.sometimes {
				t.Errorf("listed, but not seen: %s", d.key())
			}
		}
	}
}

// selected is the corpus, or what RUNV_DIFFERENTIAL (part of a name) chooses of it.
func selected(t *testing.T) []config {
	all := corpus(t)
	if part := os.Getenv("RUNV_DIFFERENTIAL"); part != "" {
		all = slices.DeleteFunc(all, func(c config) bool { return !strings.Contains(c.name, part) })
	}
	return all
}

// equalLimits makes the soft limit of open files the hard one: Go raises its own, and
// runc 1.1 takes that for its caller's.
func equalLimits(t *testing.T) {
	t.Helper()
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files.Max, Max: files.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
			t.Error(err)
		}
	})
}

// run runs a configuration in a bundle of its own.
func run(r *harness.Runtime, c config, probe, id, runtime string, flags ...string) outcome {
	id += "-" + filepath.Base(r.Dir)
	dir := filepath.Join(r.Dir, id)
	defer os.RemoveAll(dir) //nolint:errcheck // the test's directory goes, too
	defer removeGroups(id)
	if err := bundle(r, c, probe, dir, id); err != nil {
		return outcome{err: err}
	}
	cmd := exec.Command(runtime, append(flags, "run", "--bundle", dir, id)...)
	cmd.Env = append(os.Environ(), r.Env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	kill := time.AfterFunc(3*harness.Limit, func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = exec.Command(runtime, append(flags, "delete", "--force", id)...).Run()
	})
	defer kill.Stop()
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		return outcome{err: err}
	}
	o := outcome{status: harness.StatusOf(cmd.ProcessState), stderr: stderr.String()}
	if stdout.Len() > 0 {
		o.err = json.Unmarshal(stdout.Bytes(), &o.facts)
		if o.err != nil {
			o.err = fmt.Errorf("%w: %q", o.err, stdout.String())
		}
	}
	return o
}

// bundle writes a configuration's bundle.
func bundle(r *harness.Runtime, c config, probe, dir, id string) error {
	b := &box{Spec: base(), rootfs: filepath.Join(dir, "rootfs"), dir: filepath.Join(dir, "outside"), id: id}
	if err := harness.CopyTree(r.Setup.Rootfs, b.rootfs); err != nil {
		return err
	}
	if err := os.Link(probe, filepath.Join(b.rootfs, "probe")); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(b.dir, "d"), 0o755); err != nil {
		return err
	}
	for _, name := range []string{"a", "b", "d/inside"} {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(name+"\n"), 0o644); err != nil {
			return err
		}
	}
	if c.change != nil {
		c.change(b)
	}
	if b.Process != nil && len(b.Process.Args) > 0 && b.Process.Args[0] == "/probe" {
		b.Process.Args = append(b.Process.Args, c.args...)
	}
	data, err := json.Marshal(b.Spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644)
}

// compare reports each fact that differs without being listed.
func compare(t *testing.T, c config, ours, theirs outcome, used map[string]bool) {
	for who, o := range map[string]outcome{"runv": ours, "runc": theirs} {
		if o.err != nil {
			t.Fatalf("%s: %v\n%s", who, o.err, o.stderr)
		}
	}
	mine, yours := flatten(ours, theirs), flatten(theirs, ours)
	names := slices.Sorted(maps.Keys(mine))
	for n := range yours {
		if _, ok := mine[n]; !ok {
			names = append(names, n)
		}
	}
	told := false
	for _, n := range names {
		if mine[n] == yours[n] || listed(c.name, n, mine[n], yours[n], used) {
			continue
		}
		t.Errorf("%s:\n\trunc %q\n\trunv %q", n, yours[n], mine[n])
		told = true
	}
	if told {
		t.Logf("runc said: %s\nrunv said: %s", theirs.stderr, ours.stderr)
	}
}

// flatten makes how a run ended facts, too. Where only one of two probes ran that
// is all there is to compare.
func flatten(o, other outcome) map[string]string {
	f := map[string]string{}
	if len(other.facts) > 0 {
		maps.Copy(f, o.facts)
	}
	f["exit status"] = fmt.Sprint(o.status)
	f["ran"] = fmt.Sprint(len(o.facts) > 0)
	return f
}

// listed says whether a difference is one that is known.
func listed(config, fact, runv, runc string, used map[string]bool) bool {
	for _, d := range differences {
		if d.match(config, fact, runv, runc) {
			used[d.key()] = true
			return true
		}
	}
	return false
}

// removeGroups removes the control groups that both leave where a path has more than
// one part: they made them, but do not know that nobody else uses them.
func removeGroups(id string) {
	for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/"} {
		for _, below := range []string{"/x", ""} {
			dirs, _ := filepath.Glob(pattern + id + below) // the pattern is a good one
			for _, d := range dirs {
				_ = os.Remove(d) // one that is in use stays, and is told of
			}
		}
	}
}
