package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

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

// agentTime bounds the guest of measureAgent.
const agentTime = 2 * time.Minute

// guestSize is that of a container without a limit, as libvm/config has it.
const guestSize = 512 * vm.MiB

// measureAgent asks the agent what it takes: it is in no container, so no
// command of runv can tell. A guest is booted as the monitor does it, with a
// container that sleeps.
func (b *bench) measureAgent(ctx context.Context) (err error) {
	b.progress("memory of the agent")
	ctx, cancel := context.WithTimeout(ctx, agentTime)
	defer cancel()
	files, err := passthrough.NewServer(passthrough.Options{AllowDevices: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	request, err := b.agentRequest(ctx, files)
	if err != nil {
		return err
	}
	g, machine, err := b.agentMachine(ctx, files)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, machine.Close())
		g.Close()
	}()
	if err := g.Accept(ctx); err != nil {
		return fmt.Errorf("the agent has not called: %w; console: %s", err, machine.Console())
	}
	entropy := make([]byte, 64)
	rand.Read(entropy) //nolint:errcheck // never fails
	agent := g.Agent()
	if _, err := agent.Configure(ctx, &api.ConfigureRequest{UnixNanos: time.Now().UnixNano(), Entropy: entropy, StreamPort: guest.StreamPort}); err != nil {
		return guest.Error(err)
	}
	if _, err := agent.CreateContainer(ctx, request); err != nil {
		return guest.Error(err)
	}
	if _, err := agent.StartContainer(ctx, &api.StartContainerRequest{Id: request.Id}); err != nil {
		return guest.Error(err)
	}
	stats, err := agent.Stats(ctx, &api.StatsRequest{})
	if err != nil {
		return guest.Error(err)
	}
	b.table.value("guest-memory", "agent-rss", "MB", float64(stats.AgentRss)/mb, goalAgentRSS)
	return nil
}

// agentRequest describes a container that sleeps, and shares its root.
func (b *bench) agentRequest(ctx context.Context, files *passthrough.Server) (*api.CreateContainerRequest, error) {
	var spec specs.Spec
	dir, err := b.bundle(ctx, "agent", func(s *specs.Spec) {
		sleeps(s)
		spec = *s
	})
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(&spec)
	if err != nil {
		return nil, err
	}
	root, err := os.Open(dir + "/rootfs")
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // the server has its own
	const id = "bench-agent"
	if err := files.AddTree(id, "rootfs", root, false); err != nil {
		return nil, err
	}
	return &api.CreateContainerRequest{
		Id: id, Spec: config, Stdio: &api.Stdio{},
		Trees: []*api.Tree{{Mount: -1, Path: id + "/rootfs"}},
	}, nil
}

// agentMachine boots a guest of runv's.
func (b *bench) agentMachine(ctx context.Context, files *passthrough.Server) (*guest.Guest, vm.VM, error) {
	tree, err := fs.New("runv", 1, files)
	if err != nil {
		return nil, nil, err
	}
	run, err := os.Open(b.dir)
	if err != nil {
		return nil, nil, err
	}
	defer run.Close() //nolint:errcheck // only needed to start
	backend, err := qemu.New("", run, slog.New(slog.DiscardHandler), qemu.NoKVM() == nil)
	if err != nil {
		return nil, nil, err
	}
	agent, err := initramfs.Agent()
	if err != nil {
		return nil, nil, err
	}
	path, err := b.initrd("agent.cpio", agent)
	if err != nil {
		return nil, nil, err
	}
	initrd, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer initrd.Close() //nolint:errcheck // QEMU has its own
	sock := vsock.New(vm.GuestCID)
	g, err := guest.New(sock)
	if err != nil {
		return nil, nil, err
	}
	machine, err := backend.Start(ctx, vm.Config{
		Kernel: b.kernel, Initrd: initrd, Memory: guestSize, CPUs: 1,
		Cmdline: "console=ttyS0 panic=-1 reboot=t random.trust_cpu=on rdinit=/init quiet",
	}, []virtio.Device{sock, tree, rng.New()})
	if err != nil {
		g.Close()
		return nil, nil, err
	}
	return g, machine, nil
}
