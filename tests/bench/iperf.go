package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/initramfs"
)

// iperf3 is the program of Debian's package.
const iperf3 = "/usr/bin/iperf3"

// measureIperf compares the network of our containers with that of others' by iperf3.
func (b *bench) measureIperf(ctx context.Context) error { return b.iperfOf(ctx, b.runv, b.runv) }

// measureKVMIperf compares that of our own VMM with that of QEMU on KVM.
func (b *bench) measureKVMIperf(ctx context.Context) error {
	own, other, err := b.backends(ctx)
	if err != nil {
		return err
	}
	return b.iperfOf(ctx, other, own, other)
}

// iperfOf has iperf3 send and receive, by TCP and UDP, over a veth pair: from
// containers of some runtimes, of runc, and from a bare machine with QEMU's own card, to
// the host and to one of the same kind. What is told is how long 100 MB take to
// arrive, and what CPU time they cost.
func (b *bench) iperfOf(ctx context.Context, bare runtime, rs ...runtime) error {
	files, err := programFiles(ctx, iperf3)
	if err != nil {
		return fmt.Errorf("%w (try: apt-get install iperf3)", err)
	}
	try, err := b.bundle(ctx, "try", succeeds)
	if err != nil {
		return err
	}
	rs = append(rs, b.others(ctx, try, "runc")...)
	m, err := b.machine(ctx, bare)
	if err != nil {
		return err
	}
	program, err := os.ReadFile(b.work)
	if err != nil {
		return err
	}
	cargo := slices.Clone(files) // it is carried to where it belongs by tests/bench/work
	for i := range cargo {
		cargo[i].Path = "/lib/modules/bench" + cargo[i].Path
	}
	initrd, err := b.initrd("iperf.cpio", program, cargo...)
	if err != nil {
		return err
	}
	for _, between := range []bool{false, true} {
		name := map[bool]string{false: "iperf-host:", true: "iperf-between:"}[between]
		if err := b.iperfTo(ctx, name, between, m, initrd, files, rs); err != nil {
			return err
		}
	}
	return nil
}

// iperfTo measures one of the two: to the host, or between two of a kind.
func (b *bench) iperfTo(ctx context.Context, name string, between bool, m machine, initrd string, files []initramfs.Module, rs []runtime) error {
	var all []variant
	for _, r := range rs {
		e, err := newEnds(between)
		if err != nil {
			return err
		}
		defer e.close()
		client, err := b.iperfBundle(ctx, e.near, files, "client")
		if err != nil {
			return err
		}
		server, err := b.iperfBundle(ctx, e.far, files, "server")
		if err != nil {
			return err
		}
		all = append(all, variant{r.name, func(ctx context.Context) (_ []reading, err error) {
			if between {
				c, err := r.detached(ctx, server, "bench-server")
				if err != nil {
					return nil, err
				}
				defer func() { err = errors.Join(err, c.end()) }()
			}
			return e.measured(func(watch io.Writer) (string, error) {
				cmd := r.command(ctx, "run", "--bundle", client, "bench-client")
				var stdout, stderr bytes.Buffer
				cmd.Stdout, cmd.Stderr = io.MultiWriter(&stdout, watch), &stderr
				if err := cmd.Run(); err != nil {
					return "", fmt.Errorf("%s run: %w: %s%s", r.name, err, &stdout, &stderr)
				}
				return stdout.String(), nil
			})
		}})
	}
	e, err := newEnds(between)
	if err != nil {
		return err
	}
	defer e.close()
	client, err := m.onTap(e.near, initrd, iperfEnv("client", "BENCH_ADDRESS="+nearAddress+"/24"))
	if err != nil {
		return err
	}
	server := func(context.Context, io.Writer) (string, error) { return "", nil }
	if between {
		if server, err = m.onTap(e.far, initrd, iperfEnv("server", "BENCH_ADDRESS="+farAddress+"/24")); err != nil {
			return err
		}
	}
	all = append(all, variant{qemuCard, func(ctx context.Context) ([]reading, error) {
		serving, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			server(serving, nil) //nolint:errcheck // it is ended; the client tells of what goes wrong
		}()
		defer func() { stop(); <-ended }()
		return e.measured(func(watch io.Writer) (string, error) { return client(ctx, watch) })
	}})
	series, err := b.interleave(ctx, name+" iperf3", max(b.n/2, 1), all...)
	if err != nil {
		return err
	}
	b.table.compareAll(name, "ms/100MB", series, map[string]float64{qemuCard: goalNet})
	return nil
}

func iperfEnv(role string, more ...string) []string {
	return append([]string{"BENCH_NETWORK=" + farAddress, "BENCH_IPERF=" + role}, more...)
}

// iperfBundle makes the bundle of a container in a namespace.
func (b *bench) iperfBundle(ctx context.Context, ns *os.File, files []initramfs.Module, role string) (string, error) {
	dir, err := b.networkBundle(ctx, ns, iperfEnv(role))
	if err != nil {
		return "", err
	}
	for _, f := range files {
		path := filepath.Join(dir, "rootfs", f.Path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, f.Data, 0o755)); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// ends is a pair, and the server at its far end if that is the host.
type ends struct {
	*pair
	host  *exec.Cmd // nil: there is another container, or machine
	ended chan struct{}
}

// newEnds makes the ends of a measurement: between two of a kind, or to the host.
func newEnds(between bool) (*ends, error) {
	p, err := newLink("eth0")
	if err != nil {
		return nil, err
	}
	e := &ends{pair: p, ended: make(chan struct{})}
	if between {
		return e, nil
	}
	e.host = exec.Command("nsenter", "--net="+nsPath(p.far), iperf3, "-s")
	e.host.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	started := make(chan error)
	go func() {
		goruntime.LockOSThread() // it dies with the thread that has started it
		defer goruntime.UnlockOSThread()
		err := e.host.Start()
		started <- err
		if err == nil {
			e.host.Wait() //nolint:errcheck // it is killed
			close(e.ended)
		}
	}()
	if err := <-started; err != nil {
		p.close()
		return nil, err
	}
	return e, nil
}

func (e *ends) close() {
	if e.host != nil {
		e.host.Process.Kill() //nolint:errcheck // it may have ended
		<-e.ended
	}
	e.pair.close()
}

// measured has run run a client, and adds to what it has measured what CPU time each
// step took, of everything but the host's own server.
func (e *ends) measured(run func(watch io.Writer) (string, error)) ([]reading, error) {
	w := &cpuWatch{used: func() (time.Duration, error) {
		all, err := childrenCPU()
		if err != nil || e.host == nil {
			return all, err
		}
		server, err := cpuTime(e.host.Process.Pid)
		return all - server, err
	}}
	out, err := run(w)
	if err != nil {
		return nil, err
	}
	readings, err := steps(out)
	return append(readings, w.took...), errors.Join(err, w.err)
}

// cpuWatch reads what a client says, and notes the CPU time between the lines.
type cpuWatch struct {
	used  func() (time.Duration, error)
	rest  []byte
	begin time.Duration
	took  []reading
	err   error
}

var movedLine = regexp.MustCompile(`^moved (\S+) (\d+)\s*$`)

// Write takes a piece of the output.
func (w *cpuWatch) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		line, rest, whole := bytes.Cut(w.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		w.rest = rest
		moved := movedLine.FindSubmatch(line)
		if moved == nil && !bytes.HasPrefix(line, []byte("begin ")) {
			continue
		}
		now, err := w.used()
		w.err = errors.Join(w.err, err)
		if moved == nil {
			w.begin = now
			continue
		}
		n, err := strconv.ParseInt(string(moved[2]), 10, 64)
		if err != nil || n == 0 {
			w.err = errors.Join(w.err, fmt.Errorf("%q: %w", line, err))
			continue
		}
		const unit = 100e6 // bytes, as in tests/bench/work
		w.took = append(w.took, reading{string(moved[1]) + ":cpu", ms(now-w.begin) * unit / float64(n)})
	}
}

var libraryPath = regexp.MustCompile(`(?m)^\s+(?:\S+ => )?(/\S+) \(0x`)

// programFiles reads a program and the libraries that it needs.
func programFiles(ctx context.Context, path string) (files []initramfs.Module, err error) {
	out, err := exec.CommandContext(ctx, "ldd", path).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", path, err)
	}
	paths := []string{path}
	for _, m := range libraryPath.FindAllSubmatch(out, -1) {
		paths = append(paths, string(m[1]))
	}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		files = append(files, initramfs.Module{Path: p, Data: data})
	}
	return files, nil
}
