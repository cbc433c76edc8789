package monitor

import (
	"context"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/agent/api"
	"runv/libvm/network"
	"runv/libvm/state"
	"runv/libvm/virtio/net"
)

// namespacePath returns the path of the namespace that the config has the container
// put into, empty if it has one of its own.
func (m *monitor) namespacePath(t specs.LinuxNamespaceType) string {
	for _, n := range NamespacesOf(&m.spec).Join {
		if n.Type == t {
			return n.Path
		}
	}
	return ""
}

// maxDevices is how many virtio devices QEMU's microvm has places for.
const maxDevices = 8

// openNetwork opens the network namespace, in which the monitor is, for the cards
// that the VM begins with. What they stand for comes later. Spares make room for
// others, disks for one. The caller's own namespace, where that is let, is none of
// the container's business.
func (m *monitor) openNetwork(others int) (err error) {
	if m.launch.HostNetwork {
		return nil
	}
	m.resolvConf = openResolvConf(m.launch.Bundle, &m.spec)
	if m.watcher, err = network.Watch(); err != nil {
		return err
	}
	_, cpus := m.launch.Size(&m.spec)
	cards := max(0, min(m.launch.Config.NetworkCards, maxDevices-others))
	m.network, err = network.Open(cards, min(cpus, net.MaxPairs)) // each vCPU sends by its own
	return err
}

// followNetwork looks at what has become of the network namespace.
func (m *monitor) followNetwork() (*network.Update, error) {
	if wantsResolver(m.resolvConf) {
		if err := m.network.ShareResolver(); err != nil {
			return nil, err
		}
	}
	return m.network.Update()
}

// firstNetwork is the network with which the container begins.
func (c *container) firstNetwork() (*api.Network, error) {
	c.plugging.Lock()
	defer c.plugging.Unlock()
	u, err := c.monitor.followNetwork()
	if err != nil || u.Empty() {
		return nil, err
	}
	return networkMessage(u), nil
}

// updateNetwork has the guest follow what has become of the network namespace.
func (c *container) updateNetwork(ctx context.Context) error {
	c.plugging.Lock()
	defer c.plugging.Unlock()
	u, err := c.monitor.followNetwork()
	if err != nil || u.Empty() {
		return err
	}
	req := &api.ChangeNetworkRequest{Id: c.monitor.launch.ID, Network: networkMessage(u)}
	_, err = ask(ctx, c, func(ctx context.Context, a api.AgentService) (*api.Empty, error) { return a.ChangeNetwork(ctx, req) })
	if err != nil {
		return fmt.Errorf("network of the guest: %w", err)
	}
	c.monitor.network.Carry()
	return nil
}

// watchNetwork has the guest follow the network namespace while the workload runs.
// It returns when ctx ends.
func (c *container) watchNetwork(ctx context.Context) {
	if c.monitor.watcher == nil {
		return // there is none to follow
	}
	for {
		err := c.monitor.watcher.Next(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.monitor.log.Warn("changes of the network do not reach the container any more", "error", err)
			return
		}
		if c.current() == state.Created {
			continue // start looks by itself
		}
		if err := c.updateNetwork(ctx); err != nil && ctx.Err() == nil {
			c.monitor.log.Warn("a change of the network did not reach the container", "error", err)
		}
	}
}

// networkMessage is an update as the agent gets it.
func networkMessage(u *network.Update) *api.Network {
	n := &api.Network{Messages: u.Messages, Resolver: u.Resolver}
	for _, k := range u.Cards {
		n.Cards = append(n.Cards, &api.Card{Address: k.Address, Name: k.Name, Index: uint32(k.Index), Unplugged: k.Unplugged})
	}
	for _, name := range u.SysctlOrder() {
		n.Sysctls = append(n.Sysctls, &api.Sysctl{Name: name, Value: u.Sysctls[name]})
	}
	return n
}
