package container

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"runv/agent/network"
	"runv/agent/reap"
	"runv/agent/stream"
)

// Errors of the calls on containers.
var (
	ErrNotExist   = errors.New("container does not exist")
	ErrExist      = errors.New("container already exists in the guest")
	ErrNotRunning = errors.New("container not running")
	ErrNoProcess  = errors.New("no such process in the container")
)

// Manager holds the containers of the guest.
type Manager struct {
	// Reaper waits for all processes.
	Reaper *reap.Table
	// Dial connects to the host's port for streams.
	Dial stream.Dialer
	// DialResolver connects to the host's name server; package network.
	DialResolver func() (network.Conn, error)
	// Exe is the executable that runs setup.Main as setup.Argv0.
	Exe string
	// RunDir is a directory of the agent's own, Base an empty one in it for
	// root file systems, Trees where the shared trees are mounted.
	RunDir, Base, Trees string
	// Mounted returns once Trees is mounted; nil: it is.
	Mounted func() error
	// CgroupRoot is where the cgroup v2 hierarchy is mounted.
	CgroupRoot string
	// LastCap is the highest capability of the kernel.
	LastCap uint

	buffers stream.Buffers

	mu         sync.Mutex
	containers map[string]*Container
}

// reserve enters a container that is to be made.
func (m *Manager) reserve(c *Container) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.containers[c.id] != nil {
		return ErrExist
	}
	if m.containers == nil {
		m.containers = make(map[string]*Container)
	}
	m.containers[c.id] = c
	return nil
}

func (m *Manager) forget(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.containers, id)
}

// Get returns a container that was created.
func (m *Manager) Get(id string) (*Container, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.containers[id]; c != nil && c.created.Load() {
		return c, nil
	}
	return nil, ErrNotExist
}

// deleteTimeout bounds the wait for processes that SIGKILL does not end at once:
// they are in the kernel, waiting for the host's file server, say.
const deleteTimeout = 10 * time.Second

// Delete ends what is left of a container and frees all that it had.
func (m *Manager) Delete(ctx context.Context, id string) error {
	c, err := m.Get(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	if err := c.end(ctx); err != nil {
		return err
	}
	m.forget(id)
	return nil
}

// validID says whether an id can be a file name; the host has checked more.
func validID(id string) error {
	if id == "" || id == "." || !filepath.IsLocal(id) || filepath.Base(id) != id {
		return fmt.Errorf("container id %q", id)
	}
	return nil
}
