package engines

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// commands are the runtime's that `docker run --rm` has called.
var commands = []string{"create", "start", "delete"}

// sample is what one `docker run --rm` took, in seconds.
type sample struct {
	total     float64
	commands  map[string]float64 // of the runtime, by name; of several calls the sum
	container float64            // from the end of start to the beginning of delete
}

// ours is what is not the engine's: the runtime's commands and the container's life.
func (s sample) ours() float64 {
	sum := s.container
	for _, name := range commands {
		sum += s.commands[name]
	}
	return sum
}

// BenchmarkDockerRun runs `docker run --rm busybox true` with runc and runv in turn,
// and reports medians in ms: the whole, what each command of the runtime takes, and
// the ratios. The runtime's calls are timed by a wrapper of it.
func BenchmarkDockerRun(b *testing.B) {
	dir := os.Getenv("RUNV_ENGINES")
	if dir == "" {
		b.Skip("no engines (try: scripts/test-engines.sh -run '^$' -bench .)")
	}
	samples := map[string][]sample{}
	for b.Loop() {
		for _, rt := range runtimes {
			s, err := dockerRun(dir, rt)
			if err != nil {
				b.Fatal(err)
			}
			samples[rt] = append(samples[rt], s)
		}
	}
	report := func(name string, of func(sample) float64) {
		var medians []float64
		for _, rt := range runtimes {
			m := median(samples[rt], of)
			b.ReportMetric(m*1e3, rt+"-"+name+"-ms")
			medians = append(medians, m)
		}
		b.ReportMetric(medians[1]/medians[0], name+"-ratio")
	}
	report("total", func(s sample) float64 { return s.total })
	report("engine", func(s sample) float64 { return s.total - s.ours() })
	report("container", func(s sample) float64 { return s.container })
	for _, name := range commands {
		report(name, func(s sample) float64 { return s.commands[name] })
	}
	b.ReportMetric(0, "ns/op") // of both together it tells nothing
}

func median(samples []sample, of func(sample) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// dockerRun runs one container with the timed runtime.
func dockerRun(dir, rt string) (sample, error) {
	log := filepath.Join(dir, "timed")
	if err := os.RemoveAll(log); err != nil {
		return sample{}, err
	}
	begin := time.Now()
	_, stderr, err := bash(dir, os.Environ(), "exec /usr/bin/docker run --rm --runtime timed-"+rt+" busybox true", rowLimit)
	s := sample{total: time.Since(begin).Seconds(), commands: map[string]float64{}}
	if err != nil || stderr != "" {
		return s, fmt.Errorf("docker run with %s: %w, %s", rt, err, stderr)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		return s, err
	}
	var started, deleted float64
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		from, err1 := strconv.ParseFloat(words[0], 64)
		to, err2 := strconv.ParseFloat(words[1], 64)
		i := slices.IndexFunc(words, func(w string) bool { return slices.Contains(commands, w) })
		if err1 != nil || err2 != nil || i < 0 {
			return s, fmt.Errorf("timed call of %s: %q", rt, line)
		}
		s.commands[words[i]] += to - from
		switch words[i] {
		case "start":
			started = to
		case "delete":
			deleted = from
		}
	}
	if started == 0 || deleted < started {
		return s, fmt.Errorf("calls of %s: %s", rt, text)
	}
	s.container = deleted - started
	return s, nil
}
