package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"golang.org/x/sys/unix"

	"runv/libvm/vhostuser"
	"runv/libvm/virtio"
	"runv/libvm/vm"
)

// firstExtraFD is the number that the first of exec.Cmd's ExtraFiles gets.
const firstExtraFD = 3

// waitDelay is how long the end of QEMU waits for its last words, should
// somebody else hold the other end of the pipe on which they come.
const waitDelay = time.Second

// launch is what is needed between deciding on a VM and its running QEMU.
type launch struct {
	backend *Backend
	machine *machine
	config  vm.Config
	args    arguments

	child   []*os.File // QEMU's ends, closed once it has them
	console *net.UnixConn
	qmp     *qmp.SocketMonitor
	devs    []peer  // vhost-user connections, one a device
	cards   []*card // network cards among the devices
}

// prepare makes the sockets and the command line.
func (l *launch) prepare(devices []virtio.Device) error {
	// By descriptor: QEMU may not pass the directories on the way to it.
	kernel, err := os.Open(l.config.Kernel)
	if err != nil {
		return fmt.Errorf("guest kernel: %w", err)
	}
	theirs, err := unix.FcntlInt(l.machine.ram.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	l.args.machine(l.config, l.backend.accel, l.backend.tscKHz(), l.file(os.NewFile(uintptr(theirs), "ram")))
	l.args.add("-kernel", l.file(kernel))
	initrd, err := unix.FcntlInt(l.config.Initrd.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	l.args.add("-initrd", l.file(os.NewFile(uintptr(initrd), "initrd")))
	if l.console, err = l.socket("console"); err != nil {
		return err
	}
	l.args.add("-serial", "chardev:console")
	if err := l.prepareQMP(); err != nil {
		return err
	}
	for i, d := range devices {
		if l.args.ownDevice(d) {
			l.devs = append(l.devs, peer{})
			continue
		}
		id := fmt.Sprintf("dev%d", i)
		p, err := l.deviceSocket(id, d)
		if err != nil {
			return err
		}
		l.devs = append(l.devs, p)
		if d.ID() == virtio.IDNet {
			l.cards = append(l.cards, &card{netdev: netdev(id), device: d, up: true})
		}
		if err := l.args.device(d, id); err != nil {
			return err
		}
	}
	cmd := exec.Command(l.backend.binary, l.args.args...)
	cmd.ExtraFiles = l.child
	cmd.Stderr = l.machine.stderr
	cmd.WaitDelay = waitDelay
	cmd.Dir = "/"
	cmd.Env = []string{} // nothing of the caller's is QEMU's business
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: jailNamespaces}
	l.machine.cmd = cmd
	return nil
}

// prepareQMP makes the control socket, already connected.
func (l *launch) prepareQMP() error {
	mon, listener, err := dialQMP(l.backend.run)
	if err != nil {
		return err
	}
	l.qmp = mon
	l.args.add("-chardev", fmt.Sprintf("socket,id=qmp,fd=%d,server=on,wait=off", l.inherit(listener)),
		"-mon", "chardev=qmp,mode=control")
	return nil
}

// inherit hands f to QEMU and returns its number there.
func (l *launch) inherit(f *os.File) int {
	l.child = append(l.child, f)
	return firstExtraFD + len(l.child) - 1
}

// file hands f to QEMU and returns a path of it there.
func (l *launch) file(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", l.inherit(f)) }

// socket makes a chardev called id and returns our end of it.
func (l *launch) socket(id string) (*net.UnixConn, error) {
	ours, theirs, err := vhostuser.Pair()
	if err != nil {
		return nil, err
	}
	l.args.chardev(id, l.inherit(theirs))
	return ours, nil
}

func (l *launch) closeChildEnds() {
	for _, f := range l.child {
		f.Close() //nolint:errcheck // QEMU has its own copy, or nobody needs one
	}
}

func (l *launch) closeOurEnds() {
	if l.console != nil {
		l.console.Close() //nolint:errcheck // nothing was written
	}
	if l.qmp != nil {
		l.qmp.Disconnect() //nolint:errcheck // nothing was said
	}
	for _, p := range l.devs {
		p.close()
	}
}

// serve starts what works for QEMU in this process: the device backends, the
// reader of the console, and QMP. All of it ends when QEMU ends.
func (l *launch) serve(ctx context.Context, devices []virtio.Device) {
	m := l.machine
	for i, d := range devices {
		if l.devs[i] == (peer{}) {
			continue // QEMU's own
		}
		m.serving.Go(func() {
			err := l.devs[i].serve(ctx, d)
			if err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
				m.fail(fmt.Errorf("virtio device type %d: %w", d.ID(), err))
			}
		})
	}
	m.serving.Go(func() {
		defer l.console.Close() //nolint:errcheck // only read from
		stop := context.AfterFunc(ctx, func() { l.console.Close() })
		defer stop()
		io.Copy(m.console, l.console) //nolint:errcheck // ends with QEMU
	})
	m.serving.Go(func() { watchQMP(ctx, l.qmp, l.cards, m.note) })
}
