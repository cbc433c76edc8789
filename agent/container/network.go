package container

import (
	"golang.org/x/sys/unix"

	"runv/agent/network"
	"runv/agent/setup"
)

// setUpNetwork makes the network of a container whose first process exists, as the
// host and then the config want it.
func (c *Container) setUpNetwork(change *network.Change) (err error) {
	if c.ns&unix.CLONE_NEWNET == 0 {
		return nil
	}
	if change == nil {
		change = &network.Change{}
	}
	if change.Own, _, err = c.spec.sysctls(c.ns); err != nil {
		return err
	}
	return c.ChangeNetwork(change)
}

// ChangeNetwork changes the container's network.
func (c *Container) ChangeNetwork(change *network.Change) error {
	c.plugging.Lock()
	defer c.plugging.Unlock()
	return c.network.Apply(c.pidfd, change, setup.WriteSysctl)
}
