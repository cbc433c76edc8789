package monitor

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/guest"
	"runv/libvm/initramfs"
	"runv/libvm/kernel"
	"runv/libvm/kvm"
	"runv/libvm/virtio"
	"runv/libvm/virtio/balloon"
	"runv/libvm/virtio/blk"
	"runv/libvm/virtio/fs"
	"runv/libvm/virtio/fs/passthrough"
	"runv/libvm/virtio/rng"
	"runv/libvm/virtio/vsock"
	"runv/libvm/vm"
)

// fsTag is the virtio-fs tag under which the agent mounts the shared trees.
const fsTag = "runv"

// requestQueues of the file system device: the kernel of a guest uses only one
// before Linux 6.10.
const requestQueues = 1

// machine is the VM with what serves it.
type machine struct {
	vm     vm.VM
	guest  *guest.Guest
	files  *passthrough.Server
	socks  *socketRelay
	initrd *os.File
	names  *resolver
	ended  chan struct{} // closed when the VM has ended and its guest was closed
}

// startMachine starts the VM. The trees are added to its file server later: the
// kernel boots while the host's side is prepared.
func (m *monitor) startMachine(ctx context.Context) (*machine, error) {
	backend, err := m.chooseBackend(ctx)
	if err != nil {
		return nil, err
	}
	if c, ok := backend.(io.Closer); ok {
		defer c.Close() //nolint:errcheck // only what it starts VMs with: a guest that breaks out finds no /dev/kvm
	}
	_, bounded := backend.(*kvm.Backend)
	vc, err := m.vmConfig(bounded || vm.Need(m.spec.Linux.Resources) > 0)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*machine, error) {
		vc.Initrd.Close() //nolint:errcheck // a memfd
		return nil, err
	}
	// The guest's memory would be in a core dump.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fail(os.NewSyscallError("setrlimit", err))
	}
	files, err := passthrough.NewServer(passthrough.Options{AllowDevices: mayMakeDevices(&m.spec)})
	if err != nil {
		return fail(fmt.Errorf("file server: %w", err))
	}
	tree, err := fs.New(fsTag, requestQueues, files)
	if err != nil {
		return fail(err)
	}
	sock := vsock.New(vm.GuestCID)
	g, err := guest.New(sock)
	if err != nil {
		return fail(err)
	}
	devices := []virtio.Device{sock, tree, rng.New(), balloon.New()}
	if err := m.openDisks(); err != nil {
		return fail(err)
	}
	for _, d := range m.disks {
		devices = append(devices, blk.New(d.disk))
	}
	if err := m.openNetwork(len(devices)); err != nil {
		return fail(err)
	}
	for _, d := range m.network.Devices() {
		devices = append(devices, d)
	}
	questions, err := sock.Listen(guest.ResolverPort)
	if err != nil {
		g.Close()
		return fail(err)
	}
	m.log.Debug("starting the virtual machine", "backend", backend.Name(), "memory", vc.Memory, "cpus", vc.CPUs, "kernel", vc.Kernel)
	socks := newSocketRelay(g, files, m.log)
	files.SetSockets(socks)
	files.EnableWatches()
	running, err := backend.Start(ctx, vc, devices)
	if err != nil {
		questions.Close() //nolint:errcheck // nobody has asked
		g.Close()
		return fail(err)
	}
	mc := &machine{vm: running, guest: g, files: files, socks: socks, initrd: vc.Initrd, names: newResolver(questions), ended: make(chan struct{})}
	go func() {
		defer close(mc.ended)
		<-running.Done()
		mc.names.close()
		g.Close() // who waits for a stream learns that it will not come
	}()
	return mc, nil
}

// mayMakeDevices says whether device nodes may appear in the shared trees: the
// workload has the capability for it, or its config leaves /dev in the rootfs, or
// wants a device elsewhere.
func mayMakeDevices(spec *specs.Spec) bool {
	if p := spec.Process; p != nil && p.Capabilities != nil && slices.Contains(p.Capabilities.Bounding, "CAP_MKNOD") {
		return true
	}
	if l := spec.Linux; l != nil && slices.ContainsFunc(l.Devices, func(d specs.LinuxDevice) bool {
		return d.Type != "p" && !strings.HasPrefix(path.Clean(d.Path), "/dev/")
	}) {
		return true
	}
	return !slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool { return path.Clean(m.Destination) == "/dev" })
}

// close ends the VM and everything that served it.
func (mc *machine) close() {
	mc.vm.Close() //nolint:errcheck // Kill fails only if it is dead
	<-mc.ended
	mc.socks.close()
	mc.files.Close()  //nolint:errcheck // descriptors
	mc.initrd.Close() //nolint:errcheck // a memfd
}

// vmConfig derives the VM from the launch. It can grow if it is bounded, by the backend
// or by the limit of its cgroup: a guest under QEMU can use all that the machine has.
func (m *monitor) vmConfig(bounded bool) (vm.Config, error) {
	c := m.launch.Config
	image, modules, err := inspectKernel(m.launch.Kernel)
	if err != nil {
		return vm.Config{}, err
	}
	initrd, err := makeInitrd(modules)
	if err != nil {
		return vm.Config{}, err
	}
	memory, cpus := m.launch.Size(&m.spec)
	m.mostRAM = memory
	if bounded {
		if m.mostRAM, err = m.launch.MaxMemory(memory); err != nil {
			return vm.Config{}, err
		}
	}
	m.log.Debug("guest kernel", "path", m.launch.Kernel, "format", image.Format.String(), "release", image.Release, "modules", len(modules))
	return vm.Config{
		Kernel: m.launch.Kernel, Initrd: initrd, Memory: memory, MaxMemory: m.mostRAM, CPUs: cpus,
		ACPI:    len(modules) > 0, // a distribution's kernel finds virtio-mmio only there
		Cmdline: commandLine(c.KernelParams, m.launch.Debug), AppArmor: m.profile(),
	}, nil
}

// commandLine is the kernel's, without what a backend adds. A panic reboots at
// once, which ends the VM: nobody should wait for a guest that is dead. The
// dummy network interface is the driver's gift that no container expects.
func commandLine(extra string, debug bool) string {
	params := []string{"console=ttyS0", "panic=-1", "random.trust_cpu=on", "percpu_alloc=page", "dummy.numdummies=0", "rdinit=/init"}
	if !debug {
		params = append(params, "quiet")
	}
	if extra != "" {
		params = append(params, extra)
	}
	return strings.Join(params, " ")
}

// inspectKernel checks the kernel and finds the modules that it needs.
func inspectKernel(path string) (kernel.Image, []kernel.Module, error) {
	f, err := os.Open(path)
	if err != nil {
		return kernel.Image{}, nil, fmt.Errorf("guest kernel: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read from
	st, err := f.Stat()
	if err != nil {
		return kernel.Image{}, nil, fmt.Errorf("guest kernel: %w", err)
	}
	image, err := kernel.Inspect(f, st.Size())
	if err == nil {
		err = image.CheckPVH()
	}
	if err != nil {
		return kernel.Image{}, nil, fmt.Errorf("guest kernel %q: %w", path, err)
	}
	modules, err := kernel.Modules(image.Release, kernel.ModuleDirs(path)...)
	if err != nil {
		return kernel.Image{}, nil, fmt.Errorf("guest kernel %q: %w", path, err)
	}
	return image, modules, nil
}

// makeInitrd writes the initramfs, with the embedded agent, into a memfd.
func makeInitrd(modules []kernel.Module) (*os.File, error) {
	loaded := make([]initramfs.Module, 0, len(modules))
	for _, m := range modules {
		data, err := m.Read()
		if err != nil {
			return nil, fmt.Errorf("kernel module: %w", err)
		}
		loaded = append(loaded, initramfs.Module{Path: m.Path, Data: data})
	}
	fd, err := unix.MemfdCreate("initramfs", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "initramfs")
	if err := initramfs.WriteEmbedded(f, loaded); err != nil {
		f.Close() //nolint:errcheck // broken
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close() //nolint:errcheck // broken
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	return f, nil
}

// How long a guest may take until its agent calls. What counts is the CPU time
// that it was given, not the time on the wall, so that a loaded host does not
// fail a healthy boot: a stock kernel takes 2 s of emulation, ours 0.6 s.
const (
	bootIdle  = 6 * time.Second        // on the wall, with next to no CPU used
	bootWall  = 3 * time.Minute        // in any case
	bootCheck = 200 * time.Millisecond // how often it is looked at
)

// awaitAgent waits until the agent has dialed, or the guest has shown that it
// never will: for one, that it has used limit of CPU time.
func (mc *machine) awaitAgent(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		mc.watchBoot(ctx, cancel, limit)
	}()
	err := mc.guest.Accept(ctx)
	cause := context.Cause(ctx)
	cancel(nil)
	<-watched
	if err == nil {
		return nil
	}
	if cause == nil {
		select {
		case <-mc.vm.Done():
			cause = fmt.Errorf("the guest did not boot: %w", mc.vm.Err())
		default:
			return err
		}
	}
	return fmt.Errorf("%w%s", cause, mc.consoleTail())
}

// watchBoot cancels when the guest ends, or makes no progress.
func (mc *machine) watchBoot(ctx context.Context, cancel context.CancelCauseFunc, limit time.Duration) {
	tick := time.NewTicker(bootCheck)
	defer tick.Stop()
	begin := time.Now()
	var idleSince time.Time
	var idleCPU int64
	for {
		select {
		case <-ctx.Done():
			return
		case <-mc.vm.Done():
			cancel(fmt.Errorf("the guest did not boot: %w", mc.vm.Err()))
			return
		case now := <-tick.C:
			cpu, err := mc.vm.CPUTime()
			if err != nil {
				continue // it is ending; Done will tell
			}
			if idleSince.IsZero() || time.Duration(cpu-idleCPU) > now.Sub(idleSince)/100 {
				idleSince, idleCPU = now, cpu
			}
			switch {
			case time.Duration(cpu) > limit:
				cancel(fmt.Errorf("the guest did not boot: its agent has not called after %v of CPU time (the setting boot_limit)", time.Duration(cpu).Round(time.Second)))
			case now.Sub(idleSince) > bootIdle && starved():
				idleSince, idleCPU = time.Now(), cpu
			case now.Sub(idleSince) > bootIdle:
				cancel(fmt.Errorf("the guest did not boot: it has been idle for %v and its agent has not called", bootIdle))
			case now.Sub(begin) > bootWall:
				cancel(fmt.Errorf("the guest did not boot: its agent has not called within %v", bootWall))
			}
		}
	}
}

// consoleTail is the end of what the guest's kernel printed, for an error.
func (mc *machine) consoleTail() string { return explainConsole(mc.vm.Console()) }
