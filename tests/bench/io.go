package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// virtiofsd is where Debian's qemu-system-common has it.
const virtiofsd = "/usr/lib/qemu/virtiofsd"

// ioBundle makes the bundle in which a part of the work is done (1: all, 2: half
// of it …), and returns the program.
func (b *bench) ioBundle(ctx context.Context, part int) (dir string, program []byte, err error) {
	dir, err = b.bundle(ctx, "io", func(s *specs.Spec) {
		s.Process.Args = []string{"/work"}
		s.Process.Env = append(s.Process.Env, "BENCH_CONTAINER=1", fmt.Sprintf("BENCH_PART=%d", part))
		s.Root.Readonly = false
		s.Linux.ReadonlyPaths = nil // it drops the guest's caches
		s.Linux.MaskedPaths = nil
	})
	if err != nil {
		return "", nil, err
	}
	if program, err = os.ReadFile(b.work); err != nil {
		return "", nil, err
	}
	if err := os.WriteFile(dir+"/rootfs/work", program, 0o755); err != nil {
		return "", nil, err
	}
	return dir, program, writeSourceTree(dir+"/rootfs/src.tar", part)
}

// works is the work in a container.
func works(r runtime, bundle string) variant {
	return variant{r.name, func(ctx context.Context) ([]reading, error) {
		out, err := r.output(ctx, "run", "--bundle", bundle, "bench-io")
		if err != nil {
			return nil, err
		}
		return steps(out)
	}}
}

// measureIO has the same program do the same work over our virtio-fs, in a
// container, and over virtiofsd's, in a bare machine with QEMU's same flags.
func (b *bench) measureIO(ctx context.Context) error {
	dir, program, err := b.ioBundle(ctx, 1)
	if err != nil {
		return err
	}
	variants := []variant{works(b.runv, dir)}
	if _, err := os.Stat(virtiofsd); err != nil {
		b.progress("no %s: not compared with it (try: apt-get install qemu-system-common)", virtiofsd)
	} else {
		m, err := b.machine(ctx, b.runv)
		if err != nil {
			return err
		}
		initrd, err := b.initrd("work.cpio", program)
		if err != nil {
			return err
		}
		variants = append(variants, variant{"virtiofsd", func(ctx context.Context) ([]reading, error) {
			return b.overVirtiofsd(ctx, m, initrd, dir+"/rootfs")
		}})
	}
	all, err := b.interleave(ctx, "file system", max(b.n/2, 1), variants...)
	if err != nil {
		return err
	}
	b.table.compareAll("fs:", "ms", all, map[string]float64{"virtiofsd": goalFS})
	return nil
}

var stepLine = regexp.MustCompile(`(?m)^step (\S+) (\d+)\s*$`)

// steps reads what the work has printed.
func steps(out string) ([]reading, error) {
	if !strings.Contains(out, "work: done") {
		return nil, fmt.Errorf("the work was not done: %s", out)
	}
	var readings []reading
	for _, m := range stepLine.FindAllStringSubmatch(out, -1) {
		ns, err := strconv.ParseInt(m[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("step %s: %w", m[1], err)
		}
		readings = append(readings, reading{m[1], ms(time.Duration(ns))})
	}
	return readings, nil
}

// overVirtiofsd boots the machine with the share served by virtiofsd, which
// ends with it. Attributes are valid as long as runv says.
func (b *bench) overVirtiofsd(ctx context.Context, m machine, initrd, share string) (_ []reading, err error) {
	socket := filepath.Join(b.dir, "virtiofsd.sock")
	defer os.Remove(socket) //nolint:errcheck // it removes it itself, as a rule
	daemon := exec.CommandContext(ctx, virtiofsd, "--socket-path="+socket,
		"-o", "source="+share+",sandbox=chroot,xattr,cache=auto,timeout=0.5")
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var log bytes.Buffer
	daemon.Stdout, daemon.Stderr = &log, &log
	if err := daemon.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	defer func() {
		if err != nil {
			daemon.Process.Kill() //nolint:errcheck // it may have ended
		}
		if werr := <-ended; err == nil && werr != nil {
			err = fmt.Errorf("virtiofsd: %w: %s", werr, &log)
		}
	}()
	if err := await(ctx, socket, ended); err != nil {
		return nil, fmt.Errorf("virtiofsd: %w: %s", err, &log)
	}
	device := regexp.MustCompile(`chardev=[^,]*`).ReplaceAllString(m.fs, "chardev=fs")
	device = regexp.MustCompile(`tag=[^,]*`).ReplaceAllString(device, "tag=bench")
	out, err := m.boot(ctx, initrd, "-chardev", "socket,id=fs,path="+socket, "-device", device)
	if err != nil {
		return nil, err
	}
	return steps(strings.ReplaceAll(out, "\r", ""))
}

// await waits until a socket is there, or the daemon has ended.
func await(ctx context.Context, path string, ended chan error) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(10 * time.Second)
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-ended:
			ended <- err
			return errors.Join(errors.New("it ended"), err)
		case <-limit:
			return errors.New("it does not listen")
		case <-tick.C:
		}
	}
}
