package main

import (
	"context"
	"errors"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/agent/api"
	"runv/agent/wire"
	"runv/libvm/guest"
	"runv/libvm/virtio/fs/passthrough"
)

// measureAgent asks the agent what it takes: it is in no container, so no
// command of runv can tell. The guest has a container that sleeps.
func (b *bench) measureAgent(ctx context.Context) (err error) {
	b.progress("memory of the agent")
	ctx, cancel := context.WithTimeout(ctx, guestTime)
	defer cancel()
	backend, release, err := b.qemuBackend()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	g, err := b.boot(ctx, backend)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	request, err := b.agentRequest(ctx, g.files)
	if err != nil {
		return err
	}
	agent := g.guest.Agent()
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
	root, err := os.Open(dir + "/rootfs")
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // the server has its own
	const id = "bench-agent"
	if err := files.AddTree(id, "rootfs", root, passthrough.TreeOptions{}); err != nil {
		return nil, err
	}
	return &api.CreateContainerRequest{
		Id: id, Spec: wire.MarshalSpec(&spec, nil), Stdio: &api.Stdio{},
		Trees: []*api.Tree{{Mount: -1, Path: id + "/rootfs"}},
	}, nil
}
