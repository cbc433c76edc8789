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
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/initramfs"
)

// machine is how runv calls QEMU, without what only its devices need: read from
// a running container, it cannot differ from what runv does.
type machine struct {
	qemu string
	args []string // -M, -accel, -m, -append …
	fs   string   // its -device argument for virtio-fs
}

// flagsAlone are the options of QEMU that take no value, of those that runv uses.
var flagsAlone = [...]string{"-nodefaults", "-no-user-config", "-no-reboot"}

// dropped are the options that name what runv passes as descriptors.
var dropped = [...]string{"-chardev", "-device", "-netdev", "-mon", "-serial", "-kernel", "-initrd"}

// ramOfFile is memory that runv passes as a descriptor; QEMU makes the same itself.
var ramOfFile = regexp.MustCompile(`^memory-backend-file,(.*),mem-path=.*$`)

// machineOf takes the machine from the command line of a container's QEMU.
func machineOf(cmdline []string) (machine, error) {
	m := machine{qemu: cmdline[0]}
	for i := 1; i < len(cmdline); i++ {
		flag := cmdline[i]
		if slices.Contains(flagsAlone[:], flag) {
			m.args = append(m.args, flag)
			continue
		}
		if i++; i >= len(cmdline) {
			return m, fmt.Errorf("qemu's %s has no value", flag)
		}
		if flag == "-device" && strings.HasPrefix(cmdline[i], "vhost-user-fs") {
			m.fs = cmdline[i]
		}
		if !slices.Contains(dropped[:], flag) {
			m.args = append(m.args, flag, ramOfFile.ReplaceAllString(cmdline[i], "memory-backend-memfd,$1"))
		}
	}
	if m.fs == "" {
		return m, errors.New("qemu has no vhost-user-fs device")
	}
	return m, nil
}

// qemuOf returns the pid of the QEMU below a monitor, and its command line.
func qemuOf(monitor int) (int, []string, error) {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", monitor))
	if err != nil {
		return 0, nil, err
	}
	for _, list := range lists {
		children, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, child := range strings.Fields(string(children)) {
			cmdline, err := os.ReadFile("/proc/" + child + "/cmdline")
			args := strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
			if err == nil && strings.Contains(filepath.Base(args[0]), "qemu") {
				pid, err := strconv.Atoi(child)
				return pid, args, err
			}
		}
	}
	return 0, nil, fmt.Errorf("process %d has no QEMU", monitor)
}

// machine has r run a container for as long as it takes to see its QEMU.
func (b *bench) machine(ctx context.Context, r runtime) (m machine, err error) {
	dir, err := b.bundle(ctx, "machine", sleeps)
	if err != nil {
		return m, err
	}
	c, err := r.detached(ctx, dir, "bench-machine")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, c.end()) }()
	_, cmdline, err := qemuOf(c.pid)
	if err != nil {
		return m, err
	}
	m, err = machineOf(cmdline)
	m.args = append(m.args, "-kernel", b.kernel)
	return m, err
}

// boot boots the machine with an initramfs until it ends by itself, and returns
// what came on its console.
func (m machine) boot(ctx context.Context, initrd string, extra ...string) (string, error) {
	return m.bootWith(ctx, initrd, nil, nil, extra...)
}

// bootWith does so with files that QEMU inherits, as descriptors from 3 on; what comes
// on the console goes to watch, too, unless that is nil.
func (m machine) bootWith(ctx context.Context, initrd string, files []*os.File, watch io.Writer, extra ...string) (string, error) {
	args := append(slices.Clone(m.args), "-initrd", initrd, "-serial", "stdio")
	cmd := exec.CommandContext(ctx, m.qemu, append(args, extra...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.Env = []string{}
	cmd.ExtraFiles = files
	var out bytes.Buffer
	cmd.Stdout = &out
	if watch != nil {
		cmd.Stdout = io.MultiWriter(&out, watch)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("qemu: %w: %s", err, &out)
	}
	return out.String(), nil
}

// bootTime returns how long a boot takes, in ms.
func (m machine) bootTime(ctx context.Context, initrd string) ([]reading, error) {
	begin := time.Now()
	out, err := m.boot(ctx, initrd)
	took := time.Since(begin)
	if err == nil && strings.Contains(out, "Kernel panic") {
		err = fmt.Errorf("the kernel panicked: %s", out)
	}
	return []reading{{value: ms(took)}}, err
}

// initrd writes an initramfs with the given program as its init, and files beside it.
func (b *bench) initrd(name string, program []byte, files ...initramfs.Module) (string, error) {
	path := filepath.Join(b.dir, name)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	return path, errors.Join(initramfs.Write(f, program, files), f.Close())
}
