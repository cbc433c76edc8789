package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/setup"
)

// Tree is what is bound for a mount of the config: one of Path, Guest and Node.
type Tree struct {
	Mount int    // index into mounts; -1: the root file system
	Path  string // shared by the host: below the mount of all shared trees
	Guest string // the guest's: absolute
	Node  Node   // a device node, if its mode is not 0; Path is then its name
}

// Node is a device node of the guest.
type Node struct {
	Mode         uint32 // S_IFCHR or S_IFBLK, and permissions
	Uid, Gid     uint32
	Major, Minor uint32
}

// mounts pairs the config's mounts with the trees of the binds among them.
func (c *Container) mounts(trees []Tree) (rootfs string, mounts []setup.Mount, err error) {
	mounts = make([]setup.Mount, len(c.spec.Mounts))
	for i, m := range c.spec.Mounts {
		mounts[i].Mount = m
	}
	for _, t := range trees {
		if t.Mount < -1 || t.Mount >= len(mounts) {
			return "", nil, fmt.Errorf("shared tree %q for mount %d", t.Path, t.Mount)
		}
		var m specs.Mount
		if t.Mount >= 0 {
			m = mounts[t.Mount].Mount
		}
		path, err := c.treePath(&t)
		if err != nil {
			return "", nil, fmt.Errorf("error mounting %q to rootfs at %q: %w", m.Source, m.Destination, err)
		}
		if t.Mount == -1 {
			rootfs = path
		} else {
			mounts[t.Mount].Tree = path
		}
	}
	if rootfs == "" {
		return "", nil, errors.New("no shared tree for the rootfs")
	}
	return rootfs, mounts, nil
}

// treePath returns the path in the guest of what is to be bound.
func (c *Container) treePath(t *Tree) (string, error) {
	switch {
	case t.Node.Mode != 0:
		return c.makeNode(t)
	case t.Guest != "":
		if !filepath.IsAbs(t.Guest) {
			return "", fmt.Errorf("path %q of the guest", t.Guest)
		}
		return filepath.Clean(t.Guest), nil
	case !filepath.IsLocal(t.Path):
		return "", fmt.Errorf("shared tree %q", t.Path)
	}
	return filepath.Join(c.m.Trees, t.Path), nil
}

// makeNode makes the node of a bind where a user namespace can bind it from. The
// guest must have a driver for it: a node that cannot be opened is of no use, and
// what the host has behind it is not here.
func (c *Container) makeNode(t *Tree) (string, error) {
	n := &t.Node
	kind, typ := "char", "c"
	if n.Mode&unix.S_IFMT == unix.S_IFBLK {
		kind, typ = "block", "b"
	}
	if _, err := os.Stat(fmt.Sprintf("/sys/dev/%s/%d:%d", kind, n.Major, n.Minor)); err != nil {
		return "", fmt.Errorf("the guest has no %s device %d:%d, and that of the host is not passed through", kind, n.Major, n.Minor)
	}
	if !filepath.IsLocal(t.Path) || filepath.Base(t.Path) != t.Path {
		return "", fmt.Errorf("device name %q", t.Path)
	}
	sub := "mount" + strconv.Itoa(t.Mount)
	dir, err := c.openDevices(sub)
	if err != nil {
		return "", err
	}
	defer unix.Close(dir)
	mode := os.FileMode(n.Mode & 0o7777)
	err = setup.MakeNode(dir, t.Path, &specs.LinuxDevice{
		Path: t.Path, Type: typ, Major: int64(n.Major), Minor: int64(n.Minor), FileMode: &mode, UID: &n.Uid, GID: &n.Gid,
	})
	return filepath.Join(c.devices, sub, t.Path), err
}

// openDevices makes and opens a directory of nodes that are to be bound.
func (c *Container) openDevices(sub string) (int, error) {
	c.devices = filepath.Join(c.m.RunDir, "devices", c.id)
	path := filepath.Join(c.devices, sub)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return -1, err
	}
	dir, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return dir, nil
}

// deviceDir makes the nodes that a user namespace cannot make, in a directory
// that it returns.
func (c *Container) deviceDir(uid, gid int) (string, error) {
	dir, err := c.openDevices("nodes")
	if err != nil {
		return "", err
	}
	defer unix.Close(dir)
	for i, d := range setup.MergeDevices(c.spec.Linux.Devices) {
		u, g := uint32(uid), uint32(gid)
		if d.UID != nil {
			u = uint32(guestID(*d.UID, c.spec.Linux.UIDMappings))
		}
		if d.GID != nil {
			g = uint32(guestID(*d.GID, c.spec.Linux.GIDMappings))
		}
		d.UID, d.GID = &u, &g
		if err := setup.MakeNode(dir, setup.Node(i), &d); err != nil {
			return "", err
		}
	}
	return filepath.Join(c.devices, "nodes"), nil
}
