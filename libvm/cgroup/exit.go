package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"

	"runv/libvm/state"
)

// Exit is the way out of the groups that were made for a process, and their end:
// for a monitor whose creator was killed, and which then is the last that knows of
// them. No path leads there any more by then. A nil Exit has no groups.
type Exit struct {
	groups []exit
}

type exit struct {
	root, parent *os.File // directories: of the hierarchy, and the one above the group
	name         string
}

// OpenExit opens what Leave needs.
func OpenExit(place state.Cgroup) (*Exit, error) {
	e := &Exit{}
	for _, path := range place.Made {
		root, err := openDir(root(path))
		if err != nil {
			e.Close()
			return nil, err
		}
		parent, err := openDir(filepath.Dir(path))
		if err != nil {
			root.Close() //nolint:errcheck // a directory
			e.Close()
			return nil, err
		}
		e.groups = append(e.groups, exit{root, parent, filepath.Base(path)})
	}
	return e, nil
}

func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
}

// root is the outermost cgroup above path.
func root(path string) string {
	for {
		up := filepath.Dir(path)
		if _, err := os.Stat(filepath.Join(up, cgroups.CgroupProcesses)); err != nil {
			return path
		}
		path = up
	}
}

// emptyTime is how long a group may take to be empty whose other processes have
// closed everything.
const emptyTime = time.Second

// Leave moves the calling process to the roots of the hierarchies and removes the
// groups. Nobody else may be in them.
func (e *Exit) Leave() error {
	if e == nil {
		return nil
	}
	var errs []error
	for _, g := range e.groups {
		errs = append(errs, g.leave())
	}
	e.Close()
	return errors.Join(errs...)
}

func (g exit) leave() error {
	fd, err := unix.Openat(int(g.root.Fd()), cgroups.CgroupProcesses, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Join(g.root.Name(), cgroups.CgroupProcesses), Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("0")); err != nil {
		return &os.PathError{Op: "write", Path: filepath.Join(g.root.Name(), cgroups.CgroupProcesses), Err: err}
	}
	for end := time.Now().Add(emptyTime); ; time.Sleep(emptyTime / 100) {
		err = unix.Unlinkat(int(g.parent.Fd()), g.name, unix.AT_REMOVEDIR)
		if err != unix.EBUSY || time.Now().After(end) {
			break
		}
	}
	if err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "rmdir", Path: filepath.Join(g.parent.Name(), g.name), Err: err}
	}
	return nil
}

// Close gives the way out up.
func (e *Exit) Close() {
	if e == nil {
		return
	}
	for _, g := range e.groups {
		g.root.Close()   //nolint:errcheck // a directory
		g.parent.Close() //nolint:errcheck // a directory
	}
	e.groups = nil
}
