package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The names in a state directory. Remove knows them all, and removes nothing
// else.
const (
	stateFile  = "state.json"
	tempMark   = ".state.json." // + pid and time: a Save in progress, or cut short
	socketMark = ".sock"        // of the sockets below, and of those that a VM's start needs
	// ControlSocket is the monitor's socket (package ctl).
	ControlSocket = "ctl.sock"
	// ConsoleSocket is where `runv run` in the foreground gets its terminal.
	ConsoleSocket = "console.sock"
)

// Dir is an open state directory.
type Dir struct {
	id     string
	parent *os.File // <root>
	dir    *os.File // <root>/<id>
}

// Create makes the directory <root>/<id>, root included, and returns it
// locked. ErrExists if it is there already.
func Create(root, id string) (*Dir, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	parent, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(root, id)
	switch err := unix.Mkdirat(int(parent.Fd()), id, 0o700); err {
	case nil:
	case unix.EEXIST:
		_ = parent.Close()
		return nil, ErrExists
	default:
		_ = parent.Close()
		return nil, &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	d, err := openIn(parent, id)
	if err != nil {
		_ = os.Remove(path) // out of descriptors, say: leave nothing
		return nil, err
	}
	// Between mkdir and here a delete --force may have seen a directory
	// without a state, and removed it.
	if err := d.Lock(context.Background()); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// Open opens the directory of an existing container, or ErrNotExist.
func Open(root, id string) (*Dir, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	parent, err := os.Open(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotExist
	} else if err != nil {
		return nil, err
	}
	return openIn(parent, id)
}

// openIn takes parent over, also on failure.
func openIn(parent *os.File, id string) (*Dir, error) {
	fd, err := unix.Openat(int(parent.Fd()), id, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		path := filepath.Join(parent.Name(), id)
		_ = parent.Close()
		if err == unix.ENOENT || err == unix.ENOTDIR {
			return nil, ErrNotExist
		}
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &Dir{id: id, parent: parent, dir: os.NewFile(uintptr(fd), filepath.Join(parent.Name(), id))}, nil
}

// FromFiles is a Dir of two directories that are open already: root, and the
// one of the container id in it. The Dir owns them from now on.
func FromFiles(root, dir *os.File, id string) *Dir {
	return &Dir{id: id, parent: root, dir: dir}
}

// ID is the container's id.
func (d *Dir) ID() string { return d.id }

// Path is the directory's path as it was opened.
func (d *Dir) Path() string { return d.dir.Name() }

// File is the open directory, for package ctl; it stays the Dir's.
func (d *Dir) File() *os.File { return d.dir }

// Root is the open directory above; it stays the Dir's.
func (d *Dir) Root() *os.File { return d.parent }

// Close closes the descriptors, and by that gives up the lock.
func (d *Dir) Close() error {
	return errors.Join(d.dir.Close(), d.parent.Close())
}

// lockPoll is how often Lock looks for the lock: flock(2) cannot be waited for
// together with a context.
const lockPoll = 5 * time.Millisecond

// Lock takes the directory's lock, which create holds while it is at work and
// delete while it removes. ErrNotExist if the directory was removed meanwhile.
func (d *Dir) Lock(ctx context.Context) error {
	for {
		err := unix.Flock(int(d.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return &os.PathError{Op: "flock", Path: d.dir.Name(), Err: err}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the lock of %s: %w", d.dir.Name(), context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
	if err := d.linked(); err != nil {
		return errors.Join(err, d.Unlock())
	}
	return nil
}

// Unlock gives up the lock.
func (d *Dir) Unlock() error {
	return os.NewSyscallError("flock", unix.Flock(int(d.dir.Fd()), unix.LOCK_UN))
}

// linked checks that the open directory is still the one of its name.
func (d *Dir) linked() error {
	var here, there unix.Stat_t
	if err := unix.Fstat(int(d.dir.Fd()), &here); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	err := unix.Fstatat(int(d.parent.Fd()), d.id, &there, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT || err == nil && (here.Ino != there.Ino || here.Dev != there.Dev) {
		return ErrNotExist
	}
	return os.NewSyscallError("fstatat", err)
}

// Save replaces state.json: readers see the old or the new one, and a full
// disk leaves the old.
func (d *Dir) Save(s State) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	tmp := tempMark + strconv.Itoa(os.Getpid()) + "." + strconv.FormatInt(time.Now().UnixNano(), 36)
	dirfd := int(d.dir.Fd())
	fd, err := unix.Openat(dirfd, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: filepath.Join(d.dir.Name(), stateFile), Err: err}
	}
	f := os.NewFile(uintptr(fd), filepath.Join(d.dir.Name(), tmp))
	_, err = f.Write(b)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.NewSyscallError("rename state.json", unix.Renameat(dirfd, tmp, dirfd, stateFile))
	}
	if err != nil {
		_ = unix.Unlinkat(dirfd, tmp, 0) // the first error is the one to tell
		return fmt.Errorf("save state of %q: %w", d.id, err)
	}
	return nil
}

// Read returns state.json as it is; ErrNotExist if there is none (yet).
func (d *Dir) Read() (State, error) {
	fd, err := unix.Openat(int(d.dir.Fd()), stateFile, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return State{}, ErrNotExist
	} else if err != nil {
		return State{}, &os.PathError{Op: "open", Path: filepath.Join(d.dir.Name(), stateFile), Err: err}
	}
	f := os.NewFile(uintptr(fd), filepath.Join(d.dir.Name(), stateFile))
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return State{}, err
	}
	s, err := Parse(b)
	if err == nil && s.ID != d.id {
		err = fmt.Errorf("state.json is of container %q", s.ID)
	}
	return s, err
}

// Load is Read with the status put right: whatever the file says, a container
// whose monitor is gone, or a zombie, is stopped. PID stays, as a stopped
// container's monitor may still be at work on its end.
func (d *Dir) Load() (State, error) {
	s, err := d.Read()
	if err == nil && s.Status != Stopped && !Alive(s.PID, s.StartTime) {
		s.Status = Stopped
	}
	return s, err
}

// Remove removes the files that we made, and the directory. It is no error if
// some or all are gone; that there is a stranger's file is one.
func (d *Dir) Remove() error {
	names, err := d.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		ours := name == stateFile || strings.HasPrefix(name, tempMark) || strings.HasSuffix(name, socketMark)
		if !ours {
			continue // rmdir says that the directory is not empty
		}
		if err := unix.Unlinkat(int(d.dir.Fd()), name, 0); err != nil && err != unix.ENOENT {
			return &os.PathError{Op: "remove", Path: filepath.Join(d.dir.Name(), name), Err: err}
		}
	}
	if err := d.linked(); err != nil {
		if errors.Is(err, ErrNotExist) {
			return nil // another one may have the name by now
		}
		return err
	}
	if err := unix.Unlinkat(int(d.parent.Fd()), d.id, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "remove", Path: d.dir.Name(), Err: err}
	}
	return nil
}

// names reads the directory by a descriptor of its own, so that the offset of
// d.dir does not matter.
func (d *Dir) names() ([]string, error) {
	fd, err := unix.Openat(int(d.dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // removed
	} else if err != nil {
		return nil, &os.PathError{Op: "open", Path: d.dir.Name(), Err: err}
	}
	f := os.NewFile(uintptr(fd), d.dir.Name())
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // removed
	}
	return names, err
}

// Owner is the user id that owns the directory.
func (d *Dir) Owner() (uint32, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.dir.Fd()), &st); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	return st.Uid, nil
}

// List returns the ids below root, in order; none if root does not exist.
func List(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && CheckID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}
