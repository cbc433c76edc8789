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
	"runv/libvm/kernel"
	"runv/libvm/virtio"
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

// modules returns what the kernel needs to reach its devices: a distribution's
// has them, and wants ACPI; ours has none.
func modules(t testing.TB, path string) []initramfs.Module {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	image, err := kernel.Inspect(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	needed, err := kernel.Modules(image.Release, kernel.ModuleDirs(path)...)
	if err != nil {
		t.Fatal(err)
	}
	var out []initramfs.Module
	for _, m := range needed {
		data, err := m.Read()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, initramfs.Module{Path: m.Path, Data: data})
	}
	return out
}

// agentInitrd is the initramfs with the given /init.
func agentInitrd(t testing.TB, init []byte, modules ...initramfs.Module) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("initramfs", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "initramfs")
	t.Cleanup(func() { f.Close() })
	if err := initramfs.Write(f, init, modules); err != nil {
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

func startKernel(t testing.TB, c vm.Config, devices ...virtio.Device) *Machine {
	t.Helper()
	return startOn(t, backend(t), c, devices...)
}

func startOn(t testing.TB, b *Backend, c vm.Config, devices ...virtio.Device) *Machine {
	t.Helper()
	m, err := b.StartMachine(context.Background(), c, devices)
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
		Cmdline: quietCmdline, Memory: 128 * vm.MiB, CPUs: 2})
	select {
	case <-m.Done():
	case <-time.After(bootPatience):
		t.Fatalf("no end; console:\n%s", m.Console())
	}
	now, at := time.Now(), m.Timing()
	used, _ := m.CPUTime()
	t.Logf("first KVM_RUN %v, end %v after the start; vCPUs used %v", at.Run.Sub(at.Begin), now.Sub(at.Begin), time.Duration(used))
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
	devices := realDevices(t)
	g, err := guest.New(devices[0].(*vsock.Device))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return host{guest: g, devices: devices}
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
	image := kernelImage(t)
	needed := modules(t, image)
	for _, tt := range []struct {
		cpus   int
		memory uint64 // MiB
		acpi   bool
		pvh    bool
	}{{1, 64, false, false}, {2, 512, false, false}, {4, 4096, false, false}, {2, 256, true, false}, {2, 256, true, true}} {
		t.Run(fmt.Sprintf("%d cpus, %d MiB, ACPI %v, PVH %v", tt.cpus, tt.memory, tt.acpi, tt.pvh), func(t *testing.T) {
			if !tt.acpi && len(needed) > 0 {
				t.Skip("this kernel wants ACPI (try: make kernel)")
			}
			h := newHost(t)
			c := vm.Config{Kernel: image, Initrd: agentInitrd(t, agent(t), needed...), Cmdline: quietCmdline + " " + os.Getenv("RUNV_TEST_CMDLINE"),
				Memory: tt.memory * vm.MiB, CPUs: tt.cpus, ACPI: tt.acpi}
			b := backend(t)
			b.pvh = tt.pvh
			m := startOn(t, b, c, h.devices...)
			h.hello(t, m)
			now, at := time.Now(), m.Timing()
			used, _ := m.CPUTime()
			t.Logf("VM and devices %v, kernel loaded %v, first KVM_RUN %v, agent %v after the start; vCPUs used %v",
				at.Devices.Sub(at.Begin), at.Loaded.Sub(at.Begin), at.Run.Sub(at.Begin), now.Sub(at.Begin), time.Duration(used))
			if os.Getenv("RUNV_TEST_CMDLINE") != "" {
				t.Logf("%s", m.Console())
			}
			closes(t, m)
		})
	}
}

// TestSnapshotGoesOn has a guest go on in another VM, with its memory and state.
func TestSnapshotGoesOn(t *testing.T) {
	realKVM(t)
	const size = 128 * vm.MiB
	shape := func() vm.Config {
		return vm.Config{Kernel: kernelImage(t), Initrd: agentInitrd(t, agent(t)), Cmdline: quietCmdline, Memory: size, CPUs: 2}
	}
	h := newHost(t)
	m := startKernel(t, shape(), h.devices...)
	h.hello(t, m)
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	s, err := m.State()
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range s.Devices {
		if d.Status == 0 || len(d.Queues) == 0 {
			t.Errorf("device %d was not in use: %+v", i, d)
		}
	}
	memory, err := m.ram.mem.Slice(0, size)
	if err != nil {
		t.Fatal(err)
	}
	saved := bytes.Clone(memory)
	closes(t, m)

	sock := vsock.New(vm.GuestCID)
	devices := append([]virtio.Device{sock}, newHost(t).devices[1:]...)
	other := startKernel(t, shape(), devices...)
	if err := other.Pause(); err != nil { // long before the kernel gets to the devices
		t.Fatal(err)
	}
	if memory, err = other.ram.mem.Slice(0, size); err != nil {
		t.Fatal(err)
	}
	copy(memory, saved)
	if err := other.SetState(s); err != nil {
		t.Fatal(err)
	}
	if err := other.Resume(); err != nil {
		t.Fatal(err)
	}
	// Nobody listens there: it is the guest's kernel that says so, which takes
	// both queues, their interrupts, and a processor.
	ctx, cancel := context.WithTimeout(context.Background(), bootPatience)
	defer cancel()
	if _, err := sock.Dial(ctx, 9999); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the guest answers %v; VM: %v; console:\n%s", err, other.Err(), other.Console())
	}
	closes(t, other)
}
