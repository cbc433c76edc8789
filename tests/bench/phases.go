package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// phases are the parts of a run, each up to a line that the monitor logs with
// --debug. The last two are seen from outside: the first output, and the end.
var phases = [...]struct{ name, until string }{
	{"start-monitor", `step="open state"`},
	{"prepare-vm", `msg="starting the virtual machine"`},
	{"start-vm", `step="start vm"`},
	{"prepare-view", `step="prepare view"`},
	{"boot-to-agent", `step="await agent"`},
	{"configure-guest", `msg="guest is up"`},
	{"create-container", `step="create container"`}, // and the VM is locked up
	{"save-state", `step="save state"`},
	{"start-to-output", ""},
	{"output-to-exit", ""},
}

// measurePhases splits the time of a run.
func (b *bench) measurePhases(ctx context.Context) error { return b.phasesOf(ctx, b.runv) }

// phasesOf compares the phases of several, of which the first is ours.
func (b *bench) phasesOf(ctx context.Context, rs ...runtime) error {
	dir, err := b.bundle(ctx, "phases", func(s *specs.Spec) {
		s.Process.Args = []string{"echo", "here"}
		// As without --debug: a kernel that talks waits for its serial port.
		s.VM = &specs.VM{Kernel: specs.VMKernel{Path: b.kernel, Parameters: []string{"quiet"}}}
	})
	if err != nil {
		return err
	}
	log := filepath.Join(b.dir, "log")
	if err := unix.Mkfifo(log, 0o600); err != nil {
		return os.NewSyscallError("mkfifo", err)
	}
	var variants []variant
	for _, r := range rs {
		variants = append(variants, variant{r.name, func(ctx context.Context) ([]reading, error) { return phasesOfOne(ctx, r, dir, log) }})
	}
	all, err := b.interleave(ctx, "phases of run", b.n, variants...)
	if err != nil {
		return err
	}
	b.table.compareAll("phase:", "ms", all, nil)
	return nil
}

// event is a line of the log, or of the workload, and when it came.
type event struct {
	line string
	at   time.Time
}

// lines collects what comes from f until it ends.
func lines(f *os.File) chan []event {
	done := make(chan []event, 1)
	go func() { // ends when f does, or is closed
		var all []event
		for s := bufio.NewScanner(f); s.Scan(); {
			all = append(all, event{s.Text(), time.Now()})
		}
		done <- all
	}()
	return done
}

// phasesOfOne runs one container. The log is a FIFO: its own times are in whole
// seconds.
func phasesOfOne(ctx context.Context, r runtime, bundle, log string) ([]reading, error) {
	// Open for writing, too: else it would wait for a writer, and end with each.
	fifo, err := os.OpenFile(log, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	logged := lines(fifo)
	in, w, err := os.Pipe()
	if err != nil {
		fifo.Close() //nolint:errcheck // a FIFO
		return nil, err
	}
	output := lines(in)
	cmd := r.command(ctx, "--debug", "--log", log, "run", "--bundle", bundle, "bench-phases")
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &stderr
	begin := time.Now()
	err = cmd.Run()
	end := time.Now()
	w.Close() //nolint:errcheck // a pipe
	printed := <-output
	in.Close()   //nolint:errcheck // a pipe
	fifo.Close() //nolint:errcheck // what was written before the command's end was read, or is not waited for
	events := <-logged
	if err != nil {
		return nil, fmt.Errorf("runv run: %w: %s", err, &stderr)
	}
	if len(printed) != 1 {
		return nil, fmt.Errorf("the container printed %d lines, want 1", len(printed))
	}
	return split(begin, events, printed[0].at, end)
}

// split turns moments into phases.
func split(begin time.Time, events []event, output, end time.Time) ([]reading, error) {
	var readings []reading
	last := begin
	for i, p := range phases {
		var at time.Time
		switch {
		case i == len(phases)-1:
			at = end
		case p.until == "":
			at = output
		default:
			for _, e := range events {
				if strings.Contains(e.line, p.until) {
					at = e.at
				}
			}
		}
		if at.IsZero() {
			continue // a step that runv no longer has, or no longer logs
		}
		readings = append(readings, reading{p.name, ms(at.Sub(last))})
		last = at
	}
	return append(readings, reading{"all", ms(end.Sub(begin))}), nil
}
