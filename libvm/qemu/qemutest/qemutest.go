// Package qemutest boots guests under QEMU, by emulation, for the tests of what
// is served to them over vhost-user, and of what runs in them. It does not use
// the arguments of package qemu: what they are tested with is made here.
package qemutest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"runv/libvm/initramfs"
	"runv/libvm/vhostuser"
	"runv/libvm/virtio"
)

// Machine is a guest. Its fields are set before Start.
type Machine struct {
	Memory int      // RAM, MiB
	CPUs   int      // processors
	Append string   // to the kernel's command line
	Args   []string // further ones of QEMU

	t      testing.TB
	qemu   string // paths of what it is made of
	kernel string
	initrd string
	attach []string   // arguments for the devices
	files  []*os.File // for QEMU, from descriptor 3 on
	serve  []serve

	console console
	served  sync.WaitGroup
	cancel  context.CancelFunc
	done    chan struct{}
	err     error // of QEMU, before done is closed
}

// serve serves one device until the context or QEMU ends.
type serve func(context.Context) error

// New returns a machine whose first process is init. The test is skipped where
// there is no QEMU, or no kernel.
func New(t testing.TB, init []byte) *Machine {
	t.Helper()
	m := &Machine{Memory: 256, CPUs: 1, t: t, done: make(chan struct{})}
	m.qemu, m.kernel = needs(t)
	var image bytes.Buffer
	if err := initramfs.Write(&image, init, nil); err != nil {
		t.Fatal(err)
	}
	m.initrd = filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(m.initrd, image.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return m
}

// needs returns the paths of QEMU and of the guest's kernel, or skips the test.
func needs(t testing.TB) (qemu, kernel string) {
	t.Helper()
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("no qemu-system-x86_64 (try: apt-get install qemu-system-x86)")
	}
	if kernel = os.Getenv("RUNV_TEST_KERNEL"); kernel == "" {
		t.Skip("no guest kernel (try: make kernel, and RUNV_TEST_KERNEL=FILE)")
	}
	return qemu, kernel
}

// Build returns the program of a package, built to run in a guest. Where none
// would run, the test is skipped.
func Build(t testing.TB, pkg string, flags ...string) []byte {
	t.Helper()
	needs(t)
	bin := filepath.Join(t.TempDir(), "init")
	build := exec.Command("go", slices.Concat([]string{"build"}, flags, []string{"-o", bin, pkg})...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	b, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Attach gives the guest one of QEMU's vhost-user devices, which d serves.
func (m *Machine) Attach(device string, d virtio.Device) {
	m.t.Helper()
	conn, frontend, err := vhostuser.Pair()
	if err != nil {
		m.t.Fatal(err)
	}
	m.AttachSocket(device, fmt.Sprintf("fd=%d", 3+len(m.files)))
	m.files = append(m.files, frontend)
	m.serve = append(m.serve, func(ctx context.Context) error { return vhostuser.Serve(ctx, conn, d) })
}

// AttachSocket is Attach for a device that somebody else serves on a socket.
func (m *Machine) AttachSocket(device, socket string) {
	id := "c" + strconv.Itoa(len(m.attach))
	m.attach = append(m.attach, "-chardev", "socket,id="+id+","+socket, "-device", device+",chardev="+id)
}

// args are those of QEMU.
func (m *Machine) args() []string {
	memory := strconv.Itoa(m.Memory) + "M"
	return slices.Concat([]string{
		"-M", "microvm,accel=tcg,acpi=off,memory-backend=mem",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-m", memory, "-object", "memory-backend-memfd,id=mem,share=on,size=" + memory, "-smp", strconv.Itoa(m.CPUs),
		"-global", "virtio-mmio.force-legacy=false",
		"-kernel", m.kernel, "-initrd", m.initrd, "-serial", "stdio",
		"-append", "console=ttyS0 reboot=t panic=-1 quiet " + m.Append,
	}, m.attach, m.Args)
}

// Start starts the guest, which ends with the context or the test. An error of a
// device fails the test.
func (m *Machine) Start(ctx context.Context) {
	m.t.Helper()
	ctx, m.cancel = context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, m.qemu, m.args()...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &m.console, &m.console, m.files
	for i, serve := range m.serve {
		m.served.Go(func() {
			if err := serve(ctx); err != nil && !errors.Is(err, context.Canceled) {
				m.t.Errorf("device %d: %v", i, err)
			}
		})
	}
	m.t.Cleanup(m.end)
	err := cmd.Start()
	for _, f := range m.files {
		f.Close() //nolint:errcheck // QEMU has it
	}
	if err != nil {
		close(m.done)
		m.t.Fatal(err)
	}
	go func() {
		m.err = cmd.Wait()
		m.served.Wait()
		close(m.done)
	}()
}

// end ends the guest, and shows what it printed if the test failed.
func (m *Machine) end() {
	m.cancel()
	<-m.done
	m.served.Wait()
	if m.t.Failed() {
		m.t.Logf("QEMU: %v\n%s", m.err, m.console.String())
	}
}

// Done is closed when the guest has ended, and nobody serves its devices.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Run starts the guest, waits until it has powered off, and returns what it
// printed.
func (m *Machine) Run(ctx context.Context) string {
	m.t.Helper()
	m.Start(ctx)
	<-m.done
	if m.err != nil {
		m.t.Errorf("QEMU: %v", m.err)
	}
	return m.console.String()
}

// console keeps what is written to it.
type console struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(b)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}
