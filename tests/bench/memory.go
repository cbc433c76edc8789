package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"runv/libvm/initramfs"
)

// Goals (issue 2), in MB.
const (
	goalAgentSize = 8
	goalAgentRSS  = 12
)

const mb = 1e6 // bytes

// pss is the proportional set size of processes, in bytes, by what it is of.
type pss struct {
	guest  float64 // RAM of the guest, and the kernel's file where it is mapped as such
	initrd float64
	file   float64
	other  float64 // heap and stacks
}

// add adds a process.
func (p *pss) add(pid int, kernel string) error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	if err := p.read(f, kernel); err != nil {
		return fmt.Errorf("smaps of %d: %w", pid, err)
	}
	return nil
}

// read adds what smaps says. The guest's RAM is a memfd, which QEMU and our own
// VMM name each in its way; our own maps the kernel's file over a part of it.
func (p *pss) read(smaps io.Reader, kernel string) error {
	path := ""
	s := bufio.NewScanner(smaps)
	for s.Scan() {
		fields := strings.Fields(s.Text())
		switch {
		case len(fields) >= 5 && !strings.HasSuffix(fields[0], ":"):
			// 7f00-7f01 rw-s 00000000 00:01 171659 /memfd:name (deleted)
			path = strings.Join(fields[5:], " ")
		case len(fields) == 3 && fields[0] == "Pss:":
			kib, err := strconv.ParseFloat(fields[1], 64)
			if err != nil {
				return err
			}
			*p.of(path, kernel) += kib * 1024
		}
	}
	return s.Err()
}

func (p *pss) of(path, kernel string) *float64 {
	switch {
	case strings.HasPrefix(path, "/memfd:memory-backend"), strings.HasPrefix(path, "/memfd:runv-ram"), path == kernel:
		return &p.guest
	case strings.HasPrefix(path, "/memfd:initramfs"):
		return &p.initrd
	case strings.HasPrefix(path, "/"):
		return &p.file
	}
	return &p.other
}

func (p *pss) sum() float64 { return p.guest + p.beyond() }

// beyond is what a container takes besides its guest's RAM.
func (p *pss) beyond() float64 { return p.initrd + p.file + p.other }

// measureMemory tells what an idle container costs.
func (b *bench) measureMemory(ctx context.Context) (err error) {
	b.progress("memory of an idle container")
	dir, err := b.bundle(ctx, "idle", sleeps)
	if err != nil {
		return err
	}
	c, err := b.runv.detached(ctx, dir, "bench-idle")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.end()) }()
	qemu, _, err := qemuOf(c.pid)
	if err != nil {
		return err
	}
	var all, monitor, machine pss
	if err := errors.Join(monitor.add(c.pid, b.kernel), machine.add(qemu, b.kernel), all.add(c.pid, b.kernel), all.add(qemu, b.kernel)); err != nil {
		return err
	}
	b.table.value("host-pss", "all", "MB", all.sum()/mb, 0)
	b.table.value("host-pss", "guest-ram", "MB", all.guest/mb, 0)
	b.table.value("host-pss", "all-but-guest-ram", "MB", all.beyond()/mb, 0)
	b.table.value("host-pss", "initramfs", "MB", all.initrd/mb, 0)
	b.table.value("host-pss", "monitor-heap-and-stacks", "MB", monitor.other/mb, 0)
	b.table.value("host-pss", "monitor-files", "MB", monitor.file/mb, 0)
	b.table.value("host-pss", "qemu-heap-and-code", "MB", machine.other/mb, 0)
	b.table.value("host-pss", "qemu-files", "MB", machine.file/mb, 0)

	info, err := b.runv.output(ctx, "exec", c.id, "cat", "/proc/meminfo")
	if err != nil {
		return err
	}
	return errors.Join(b.guestMemory(info), b.measureAgent(ctx))
}

// guestMemory reports what the guest has and uses, of its /proc/meminfo.
func (b *bench) guestMemory(info string) error {
	values := map[string]float64{}
	for line := range strings.Lines(info) {
		name, rest, _ := strings.Cut(line, ":")
		if f := strings.Fields(rest); len(f) > 0 {
			v, err := strconv.ParseFloat(f[0], 64)
			if err != nil {
				return fmt.Errorf("meminfo of the guest: %w", err)
			}
			values[name] = v * 1024
		}
	}
	b.table.value("guest-memory", "total", "MB", values["MemTotal"]/mb, 0)
	b.table.value("guest-memory", "used", "MB", (values["MemTotal"]-values["MemAvailable"])/mb, 0)
	return nil
}

// measureSizes tells how large the programs are.
func (b *bench) measureSizes(context.Context) error {
	agent, err := initramfs.Agent()
	if err != nil {
		return err
	}
	b.table.value("size", "agent", "MB", float64(len(agent))/mb, goalAgentSize)
	for _, f := range []struct{ name, path string }{{ours, b.runv.path}, {"kernel", b.kernel}} {
		st, err := os.Stat(f.path)
		if err != nil {
			return err
		}
		b.table.value("size", f.name, "MB", float64(st.Size())/mb, 0)
	}
	return nil
}
