// Package qemu runs a VM in QEMU's microvm machine. The devices are ours: they
// are served to QEMU from this process over vhost-user (docs/interop/
// vhost-user.rst of QEMU), so that they behave as under our own VMM.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"runv/libvm/mem"
	"runv/libvm/tsc"
	"runv/libvm/virtio"
	"runv/libvm/vm"
)

// consoleTail is how many bytes of the guest's console, and of QEMU's own
// messages, are kept for an error.
const (
	consoleTail = 32 << 10
	stderrTail  = 4 << 10
)

// Backend starts VMs with one QEMU binary.
type Backend struct {
	binary string
	accel  accelerator
	run    *os.File
	log    *slog.Logger
	clock  tsc.Sample // taken by New; Start compares it with one of its own
}

var _ vm.Backend = (*Backend)(nil)

// New returns a backend that runs binary, a name looked up in $PATH or a path
// ("" means qemu-system-x86_64). run is a directory of the caller, which owns
// it, in which QEMU's control socket appears for a moment.
// Guests run on KVM if kvm is set, else by emulation.
func New(binary string, run *os.File, log *slog.Logger, kvm bool) (*Backend, error) {
	path, err := Find(binary)
	if err != nil {
		return nil, err
	}
	clock, err := tsc.Now()
	if err != nil {
		return nil, fmt.Errorf("qemu: %w", err)
	}
	b := &Backend{binary: path, accel: accelTCG, run: run, log: log, clock: clock}
	if kvm {
		b.accel = accelKVM
	}
	return b, nil
}

// DefaultBinary is the QEMU that is looked for when none is named.
const DefaultBinary = "qemu-system-x86_64"

// Find returns the absolute path of the QEMU binary that name ("" for the
// default) stands for.
func Find(name string) (string, error) {
	if name == "" {
		name = DefaultBinary
	}
	path, err := exec.LookPath(name)
	if err != nil && name == DefaultBinary {
		// Engines may call us without a PATH.
		path, err = exec.LookPath("/usr/bin/" + DefaultBinary)
	}
	if err != nil {
		return "", fmt.Errorf("qemu: %w (install it: apt-get install qemu-system-x86, or name it with RUNV_QEMU)", err)
	}
	return path, nil
}

// tscKHz returns the frequency of the host's TSC, which a guest under TCG has as
// its own and cannot measure on a busy host, in kHz; 0 if the guest has to see
// for itself.
func (b *Backend) tscKHz() uint32 {
	if b.accel != accelTCG {
		return 0 // KVM tells its guests
	}
	now, err := tsc.Now()
	if err != nil {
		return 0
	}
	khz, err := tsc.KHz(b.clock, now)
	if errors.Is(err, tsc.ErrTooSoon) {
		khz, err = tsc.Measure()
	}
	if err != nil {
		b.log.Warn("the guest has to measure its clock", "error", err)
		return 0
	}
	return khz
}

// Name returns "qemu" and how it executes the guest.
func (b *Backend) Name() string { return "qemu (" + string(b.accel) + ")" }

// machine is one running QEMU.
type machine struct {
	cmd     *exec.Cmd
	config  vm.Config
	ram     *os.File
	console *vm.Tail
	stderr  *vm.Tail
	serving sync.WaitGroup // device servers, console reader, QMP
	cancel  context.CancelFunc

	done chan struct{}
	err  error // why the VM ended, before done is closed

	mu     sync.Mutex
	closed bool   // Close was called: the end is ours
	reason string // what QEMU said over QMP of its end
	devErr error  // the first device that failed
}

// Start starts QEMU; see vm.Backend. QEMU gets a mount namespace of its own, a
// copy of the caller's as it is now: the caller may pivot away afterwards.
func (b *Backend) Start(_ context.Context, c vm.Config, devices []virtio.Device) (vm.VM, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	ram, err := mem.NewFile(c.Most())
	if err != nil {
		return nil, fmt.Errorf("%d MiB of guest memory: %w", c.Most()/vm.MiB, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &machine{config: c, ram: ram, console: vm.NewTail(consoleTail), stderr: vm.NewTail(stderrTail), cancel: cancel, done: make(chan struct{})}
	l := &launch{backend: b, machine: m, config: c}
	defer l.closeChildEnds()
	if err := l.prepare(devices); err != nil {
		l.closeOurEnds()
		cancel()
		ram.Close() //nolint:errcheck // nothing is in it
		return nil, err
	}
	if err := startJailed(m.cmd, c.AppArmor); err != nil {
		l.closeOurEnds()
		cancel()
		ram.Close() //nolint:errcheck // nothing is in it
		return nil, fmt.Errorf("start qemu: %w", err)
	}
	l.serve(ctx, devices)
	go m.wait()
	return m, nil
}

// wait waits for QEMU's end and works out why it ended.
func (m *machine) wait() {
	err := m.cmd.Wait()
	m.cancel() // ends what still serves the dead QEMU
	m.serving.Wait()
	m.ram.Close() //nolint:errcheck // nobody wants it any more
	m.err = m.explain(err)
	close(m.done)
}

// explain says what became of QEMU, from its wait status, its own messages, and
// what our devices saw.
func (m *machine) explain(waitErr error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return vm.ErrClosed
	}
	if m.devErr != nil {
		return fmt.Errorf("virtual machine ended: %w", m.devErr)
	}
	var exit *exec.ExitError
	if errors.As(waitErr, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return fmt.Errorf("qemu was killed by signal %d (%s)", ws.Signal(), unix.SignalName(ws.Signal()))
		}
		return fmt.Errorf("qemu exited with status %d: %s", exit.ExitCode(), oneLine(m.stderr.Bytes()))
	}
	if waitErr != nil {
		return fmt.Errorf("wait for qemu: %w", waitErr)
	}
	if m.reason != "" {
		return fmt.Errorf("virtual machine ended: %s", m.reason)
	}
	return errors.New("virtual machine ended: the guest powered off or reset itself")
}

func (m *machine) Done() <-chan struct{} { return m.done }

func (m *machine) Err() error { return m.err }

func (m *machine) Console() []byte { return m.console.Bytes() }

// Close kills QEMU, which has nothing to save: what the guest wrote to shared
// files has been written by our file server.
func (m *machine) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	if err := m.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill qemu: %w", err)
	}
	<-m.done
	return nil
}

// fail notes the first device error and ends QEMU, which cannot go on.
func (m *machine) fail(err error) {
	m.mu.Lock()
	first := m.devErr == nil && !m.closed
	if first {
		m.devErr = err
	}
	m.mu.Unlock()
	if first {
		m.cmd.Process.Kill() //nolint:errcheck // it may have ended meanwhile
	}
}
