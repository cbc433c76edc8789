package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"runv/agent/api"
	"runv/libvm/guest"
	"runv/libvm/initramfs"
	"runv/libvm/qemu"
	"runv/libvm/virtio"
	"runv/libvm/virtio/fs"
	"runv/libvm/virtio/fs/passthrough"
	"runv/libvm/virtio/rng"
	"runv/libvm/virtio/vsock"
	"runv/libvm/vm"
)

// guestTime bounds the life of a guest that this process boots.
const guestTime = 2 * time.Minute

// guestSize is that of a container without a limit, as libvm/config has it.
const guestSize = 512 * vm.MiB

// guestParams is the kernel's command line, as libvm/monitor has it.
const guestParams = "console=ttyS0 panic=-1 random.trust_cpu=on percpu_alloc=page dummy.numdummies=0 rdinit=/init quiet"

// booted is a guest of runv's in this process, of which no command of runv could
// tell what is asked here. Its agent has called and is configured.
type booted struct {
	files *passthrough.Server
	guest *guest.Guest
	vm    vm.VM
	hello time.Time // the agent's call
	agent *api.ConfigureResponse
}

func (g *booted) close() error {
	err := g.vm.Close()
	g.guest.Close()
	return errors.Join(err, g.files.Close())
}

// boot boots a guest as the monitor does it.
func (b *bench) boot(ctx context.Context, backend vm.Backend) (_ *booted, err error) {
	files, err := passthrough.NewServer(passthrough.Options{AllowDevices: true})
	if err != nil {
		return nil, err
	}
	g := &booted{files: files}
	if err := b.startGuest(ctx, backend, g); err != nil {
		return nil, errors.Join(err, files.Close())
	}
	if err := g.greet(ctx); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

// startGuest starts the VM.
func (b *bench) startGuest(ctx context.Context, backend vm.Backend, g *booted) error {
	tree, err := fs.New("runv", 1, g.files)
	if err != nil {
		return err
	}
	agent, err := initramfs.Agent()
	if err != nil {
		return err
	}
	path, err := b.initrd("agent.cpio", agent)
	if err != nil {
		return err
	}
	initrd, err := os.Open(path)
	if err != nil {
		return err
	}
	defer initrd.Close() //nolint:errcheck // the backend has its own
	sock := vsock.New(vm.GuestCID)
	if g.guest, err = guest.New(sock); err != nil {
		return err
	}
	g.vm, err = backend.Start(ctx, vm.Config{
		Kernel: b.kernel, Initrd: initrd, Memory: guestSize, CPUs: 1, Cmdline: guestParams,
	}, []virtio.Device{sock, tree, rng.New()})
	if err != nil {
		g.guest.Close()
	}
	return err
}

// greet waits for the agent's call, and answers it.
func (g *booted) greet(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with this function, by its cancel
		select {
		case <-g.vm.Done():
			cancel(fmt.Errorf("the guest ended: %w", g.vm.Err()))
		case <-ctx.Done():
		}
	}()
	if err := g.guest.Accept(ctx); err != nil {
		return fmt.Errorf("the agent has not called: %w; console: %s", context.Cause(ctx), g.vm.Console())
	}
	g.hello = time.Now()
	entropy := make([]byte, 64)
	rand.Read(entropy) //nolint:errcheck // never fails
	var err error
	g.agent, err = g.guest.Agent().Configure(ctx, &api.ConfigureRequest{UnixNanos: time.Now().UnixNano(), Entropy: entropy, StreamPort: guest.StreamPort})
	return guest.Error(err)
}

// qemuBackend is QEMU as the monitor starts it.
func (b *bench) qemuBackend() (_ vm.Backend, release func() error, err error) {
	run, err := os.Open(b.dir)
	if err != nil {
		return nil, nil, err
	}
	backend, err := qemu.New("", run, slog.New(slog.DiscardHandler), qemu.NoKVM() == nil)
	if err != nil {
		return nil, nil, errors.Join(err, run.Close())
	}
	return backend, run.Close, nil
}
