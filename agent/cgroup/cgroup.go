// Package cgroup manages the cgroups of containers in the guest, which are
// always of version 2 (Documentation/admin-guide/cgroup-v2.rst).
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Root is where the agent mounts the hierarchy in the guest.
const Root = "/sys/fs/cgroup"

// Group is a cgroup of a container.
type Group struct {
	// Path is the cgroup's path in the hierarchy: absolute and clean.
	Path string

	dir  string   // where it is mounted
	made []string // the directories that Create made, outermost first
}

// Path returns the place of a container's cgroup: cgroupsPath of its config,
// which may have the form slice:prefix:name of systemd, or /id.
func Path(cgroupsPath, id string) (string, error) {
	if cgroupsPath == "" {
		return "/" + id, nil
	}
	parts := strings.Split(cgroupsPath, ":")
	if len(parts) != 3 {
		return filepath.Join("/", cgroupsPath), nil
	}
	slice, unit := parts[0], parts[2]
	if slice == "" {
		slice = "system.slice"
	}
	if parts[1] != "" {
		unit = parts[1] + "-" + unit
	}
	if !strings.HasSuffix(unit, ".slice") {
		unit += ".scope"
	}
	dir, err := expandSlice(slice)
	if err != nil {
		return "", err
	}
	return filepath.Join("/", dir, unit), nil
}

// expandSlice returns the directory of a slice: a-b.slice is in a.slice
// (systemd.slice(5)).
func expandSlice(slice string) (string, error) {
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || strings.Contains(name, "/") {
		return "", fmt.Errorf("invalid slice name %q", slice)
	}
	if name == "-" {
		return "/", nil
	}
	dir, prefix := "/", ""
	for _, part := range strings.Split(name, "-") {
		if part == "" {
			return "", fmt.Errorf("invalid slice name %q", slice)
		}
		dir = filepath.Join(dir, prefix+part+".slice")
		prefix += part + "-"
	}
	return dir, nil
}

// Create makes the cgroup at path, below the hierarchy that is mounted on root,
// and what is missing above it, with all controllers enabled on the way.
func Create(root, path string) (*Group, error) {
	path = filepath.Join("/", path)
	if path == "/" {
		return nil, errors.New("cgroup path is the root")
	}
	g := &Group{Path: path, dir: root + path}
	dir := root
	for _, name := range strings.Split(path[1:], "/") {
		Delegate(dir)
		dir += "/" + name
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("create cgroup: %w", err), g.remove())
		}
		g.made = append(g.made, dir)
	}
	return g, nil
}

// Delegate enables each controller that a cgroup has for its children. One that
// cannot be enabled, say for a cgroup that has processes of its own, is left:
// a limit that needs it will say so.
func Delegate(dir string) {
	b, err := os.ReadFile(dir + "/cgroup.controllers")
	if err != nil {
		return
	}
	all := strings.Fields(string(b))
	if len(all) == 0 {
		return
	}
	if os.WriteFile(dir+"/cgroup.subtree_control", []byte("+"+strings.Join(all, " +")), 0) == nil {
		return
	}
	for _, c := range all {
		_ = os.WriteFile(dir+"/cgroup.subtree_control", []byte("+"+c), 0)
	}
}

// Open returns the cgroup's directory, to fork into.
func (g *Group) Open() (int, error) {
	fd, err := unix.Open(g.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: g.dir, Err: err}
	}
	return fd, nil
}

// Inner says whether the cgroup passes controllers on: then no process can be in
// it any more ("No Internal Process Constraint").
func (g *Group) Inner() bool {
	b, err := os.ReadFile(g.dir + "/cgroup.subtree_control")
	return err == nil && len(strings.Fields(string(b))) > 0
}

// OpenBelow opens a cgroup by its path in the hierarchy, which is this one or
// one below it, to fork into.
func (g *Group) OpenBelow(path string) (int, error) {
	rel, err := filepath.Rel(g.Path, filepath.Join("/", path))
	if err != nil || !filepath.IsLocal(rel) {
		return -1, fmt.Errorf("cgroup %s is not below %s", path, g.Path)
	}
	dir := filepath.Join(g.dir, rel)
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}

// Kill sends SIGKILL to every process in the cgroup and below it.
func (g *Group) Kill() error {
	err := os.WriteFile(g.dir+"/cgroup.kill", []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Procs returns the processes in the cgroup and below it.
func (g *Group) Procs() ([]int, error) {
	var pids []int
	err := filepath.WalkDir(g.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // removed meanwhile by the container
			}
			return err
		}
		if !d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(path + "/cgroup.procs")
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids, err
}

// OOMKilled says how many processes of the cgroup the kernel has killed for want
// of memory.
func (g *Group) OOMKilled() uint64 {
	b, err := os.ReadFile(g.dir + "/" + memoryEvents)
	if err != nil {
		return 0
	}
	return oomKilled(string(b))
}

// oomKilled reads memory.events.
func oomKilled(events string) uint64 {
	f := strings.Fields(events)
	for i := 0; i+1 < len(f); i += 2 {
		if f[i] == "oom_kill" {
			n, _ := strconv.ParseUint(f[i+1], 10, 64) // the kernel's own number
			return n
		}
	}
	return 0
}

// Remove removes the cgroup with all that the container made below it, and what
// Create made above it if that is empty. No process may be in it.
func (g *Group) Remove() error {
	if err := removeTree(g.dir); err != nil {
		return fmt.Errorf("remove cgroup %s: %w", g.Path, err)
	}
	return g.remove()
}

// remove removes what Create made, from the inside. A directory that another
// container uses too is busy, and stays.
func (g *Group) remove() error {
	for i := len(g.made) - 1; i >= 0; i-- {
		err := unix.Rmdir(g.made[i])
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY) {
			return nil
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return &os.PathError{Op: "rmdir", Path: g.made[i], Err: err}
		}
	}
	return nil
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(dir + "/" + e.Name()); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
