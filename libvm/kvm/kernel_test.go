package kvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/guest"
	"runv/libvm/initramfs"
	"runv/libvm/virtio"
	"runv/libvm/virtio/fs"
	"runv/libvm/virtio/fs/passthrough"
	"runv/libvm/virtio/rng"
	"runv/libvm/virtio/vsock"
	"runv/libvm/vm"
)

// bootPatience is how long a kernel may take in an emulated KVM host on a busy
// machine.
const bootPatience = 90 * time.Second

// realKVM skips the test unless kernels boot here.
func realKVM(t testing.TB) {
	t.Helper()
	if err := Probe(context.Background()); err != nil {
		t.Skipf("%v (try: make kvmhost)", err)
	}
}

// kernelImage returns the kernel to boot.
func kernelImage(t testing.TB) string {
	t.Helper()
	path := os.Getenv("RUNV_TEST_KERNEL")
	if path == "" {
		t.Skip("no kernel (try: RUNV_TEST_KERNEL=$(make -s kernel | tail -n 1))")
	}
	return path
}

// agentInitrd is the initramfs with the given /init.
func agentInitrd(t testing.TB, init []byte) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("initramfs", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "initramfs")
	t.Cleanup(func() { f.Close() })
	if err := initramfs.Write(f, init, nil); err != nil {
		t.Fatal(err)
	}
	return f
}

func agent(t testing.TB) []byte {
	t.Helper()
	b, err := initramfs.Agent()
	if err != nil {
		t.Skip(err)
	}
	return b
}

// waitConsole waits for a text on the console.
func waitConsole(t testing.TB, m *Machine, want string) {
	t.Helper()
	deadline := time.Now().Add(bootPatience)
	for !bytes.Contains(m.Console(), []byte(want)) {
		select {
		case <-m.Done():
			t.Fatalf("the VM ended: %v; console:\n%s", m.Err(), m.Console())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q; console:\n%s", want, m.Console())
		}
	}
}

func startKernel(t testing.TB, c vm.Config, devices ...virtio.Device) *Machine {
	t.Helper()
	m, err := backend(t).StartMachine(context.Background(), c, devices)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// TestKernelPanicIsAReset boots a kernel whose /init is no program.
func TestKernelPanicIsAReset(t *testing.T) {
	realKVM(t)
	m := startKernel(t, vm.Config{Kernel: kernelImage(t), Initrd: agentInitrd(t, []byte("no program")),
		Cmdline: "console=ttyS0 panic=-1 rdinit=/init", Memory: 128 * vm.MiB, CPUs: 2})
	select {
	case <-m.Done():
	case <-time.After(bootPatience):
		t.Fatalf("no end; console:\n%s", m.Console())
	}
	if err := m.Err(); !errors.Is(err, ErrReset) {
		t.Errorf("got %v, want ErrReset; console:\n%s", err, m.Console())
	}
	if !bytes.Contains(m.Console(), []byte("Kernel panic")) {
		t.Errorf("no panic on the console:\n%s", m.Console())
	}
}

// host is what a guest's agent talks to.
type host struct {
	guest   *guest.Guest
	devices []virtio.Device
}

func newHost(t testing.TB) host {
	t.Helper()
	files, err := passthrough.NewServer(passthrough.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { files.Close() })
	tree, err := fs.New("runv", 1, files)
	if err != nil {
		t.Fatal(err)
	}
	sock := vsock.New(vm.GuestCID)
	g, err := guest.New(sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return host{guest: g, devices: []virtio.Device{sock, tree, rng.New()}}
}

// hello waits until the agent calls.
func (h host) hello(t testing.TB, m *Machine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bootPatience)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-m.Done():
			cancel()
		case <-stop:
		}
	}()
	if err := h.guest.Accept(ctx); err != nil {
		m.Close()
		t.Fatalf("no agent: %v; VM: %v; console:\n%s", err, m.Err(), m.Console())
	}
}

const quietCmdline = "console=ttyS0 panic=-1 random.trust_cpu=on percpu_alloc=page dummy.numdummies=0 rdinit=/init quiet"

// TestAgentCalls boots to the agent's first call, in VMs of all shapes.
func TestAgentCalls(t *testing.T) {
	realKVM(t)
	for _, tt := range []struct {
		cpus   int
		memory uint64 // MiB
		acpi   bool
	}{{1, 64, false}, {2, 512, false}, {4, 4096, false}, {2, 256, true}} {
		t.Run(fmt.Sprintf("%d cpus, %d MiB, ACPI %v", tt.cpus, tt.memory, tt.acpi), func(t *testing.T) {
			h := newHost(t)
			c := vm.Config{Kernel: kernelImage(t), Initrd: agentInitrd(t, agent(t)), Cmdline: quietCmdline,
				Memory: tt.memory * vm.MiB, CPUs: tt.cpus, ACPI: tt.acpi}
			m := startKernel(t, c, h.devices...)
			h.hello(t, m)
			now, at := time.Now(), m.Timing()
			used, _ := m.CPUTime()
			t.Logf("VM and devices %v, kernel loaded %v, first KVM_RUN %v, agent %v after the start; vCPUs used %v",
				at.Devices.Sub(at.Begin), at.Loaded.Sub(at.Begin), at.Run.Sub(at.Begin), now.Sub(at.Begin), time.Duration(used))
			closes(t, m)
		})
	}
}
