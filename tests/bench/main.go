// Command bench measures a built runv, side by side with what it is compared to:
// the bare boot of its guest kernel, runc and crun, and Debian's virtiofsd. The
// table goes to stdout, progress to stderr. scripts/bench.sh runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// bench is what the sections share.
type bench struct {
	runv   runtime
	kernel string  // absolute path of the guest's kernel
	work   string  // absolute path of the program that tests/bench/work is
	script string  // absolute path of scripts/rootfs.sh
	dir    string  // temporary, for everything
	n      int     // readings of each variant
	native float64 // flag -native
	stderr io.Writer

	// unified is the path of a mount namespace for crun; see cgroup.go.
	unified string
	table   table
}

// section is a part of the benchmark that can be asked for by name.
type section struct {
	name  string
	run   func(*bench, context.Context) error
	asked bool // runs only if it is asked for
}

var sections = [...]section{
	{name: "run", run: (*bench).measureRun},
	{name: "phases", run: (*bench).measurePhases},
	{name: "exec", run: (*bench).measureExec},
	{name: "memory", run: (*bench).measureMemory},
	{name: "sizes", run: (*bench).measureSizes},
	{name: "io", run: (*bench).measureIO},
	{name: "network", run: (*bench).measureNetwork},
	{name: "iperf", run: (*bench).measureIperf},
	{name: "kvm", run: (*bench).measureKVM, asked: true},
	{name: "kvm-network", run: (*bench).measureKVMNetwork, asked: true},
	{name: "kvm-iperf", run: (*bench).measureKVMIperf, asked: true},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err) //nolint:errcheck // nobody else to tell
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	b := &bench{stderr: os.Stderr}
	var names, usual []string
	for _, s := range sections {
		names = append(names, s.name)
		if !s.asked {
			usual = append(usual, s.name)
		}
	}
	runv := flag.String("runv", "./runv", "the runv to measure")
	flag.StringVar(&b.kernel, "kernel", os.Getenv("RUNV_KERNEL"), "the guest's kernel")
	flag.StringVar(&b.work, "work", "", "the program that tests/bench/work is, built static")
	flag.StringVar(&b.script, "rootfs-script", "scripts/rootfs.sh", "what makes a root file system")
	flag.IntVar(&b.n, "n", 10, "readings of each kind; of I/O, half of it")
	only := flag.String("only", strings.Join(usual, ","), "sections to run; there are kvm, kvm-network and kvm-iperf, too, for a host with KVM")
	flag.Float64Var(&b.native, "native", 0, "CPU time of \"runv --version\" on real hardware, in ms, by which section kvm estimates its own")
	share := flag.String("serve", "", "serve this directory to the QEMU that connects to the socket that is the argument")
	flag.Parse()
	if *share != "" {
		return serveFiles(ctx, flag.Arg(0), *share)
	}
	if b.n < 1 {
		return fmt.Errorf("-n %d: want at least 1", b.n)
	}
	for _, p := range []*string{runv, &b.kernel, &b.work, &b.script} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
		if st, err := os.Stat(*p); err != nil || !st.Mode().IsRegular() {
			return fmt.Errorf("%s is not a file (try: make bench)", *p)
		}
	}
	if b.dir, err = os.MkdirTemp("", "runv-bench-"); err != nil {
		return err
	}
	release, err := b.unifyCgroups()
	if err != nil {
		return err
	}
	defer release()
	b.runv = b.newRuntime(ours, *runv)
	defer func() { err = errors.Join(err, b.cleanUp()) }()
	// What a detached container leaves to reap is ours.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	var errs []error
	wanted := strings.Split(*only, ",")
	for _, w := range wanted {
		if !slices.Contains(names, w) {
			return fmt.Errorf("-only %q: there are %s", w, strings.Join(names, ", "))
		}
	}
	for _, s := range sections {
		if ctx.Err() == nil && slices.Contains(wanted, s.name) {
			if err := s.run(b, ctx); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
			}
		}
	}
	if len(b.table.rows) > 0 {
		errs = append(errs, b.table.print(os.Stdout))
	}
	return errors.Join(errs...)
}

// progress tells what is being done.
func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(b.stderr, "==> "+format+"\n", args...) //nolint:errcheck // progress
}

// cleanUp ends the containers that an interrupted section left, and removes the
// files.
func (b *bench) cleanUp() error {
	// The context of the measurements may have ended.
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	var errs []error
	roots, err := filepath.Glob(filepath.Join(b.dir, "root-*", "*"))
	errs = append(errs, err)
	for _, state := range roots {
		root, id := filepath.Split(state)
		errs = append(errs, b.runtimeOf(root).delete(ctx, id))
	}
	return errors.Join(append(errs, os.RemoveAll(b.dir))...)
}
