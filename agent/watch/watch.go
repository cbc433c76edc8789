// Package watch has the guest's part in what inotify shows of changes that were
// made on the host, of which libvm/virtio/fs/passthrough has the other: it finds
// what processes watch, and makes changes that the host answers without carrying
// them out.
package watch

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"runv/agent/wire"
)

// maxNodes bounds what is told of: the host watches no more.
const maxNodes = 4096

// Watcher repeats changes.
type Watcher struct {
	// Dir is where the shared trees are mounted.
	Dir string

	once   sync.Once
	thread uint32
	calls  chan call
}

type call struct {
	f    func() error
	done chan error
}

// Thread is the id of the thread by which changes are made. It lives as long as
// the guest, so that its id is never another's.
func (w *Watcher) Thread() uint32 {
	w.once.Do(func() {
		w.calls = make(chan call)
		started := make(chan uint32)
		go func() {
			runtime.LockOSThread()
			started <- uint32(unix.Gettid())
			for c := range w.calls {
				c.done <- c.f()
			}
		}()
		w.thread = <-started
	})
	return w.thread
}

// Nodes are the files of the shared trees that processes watch, by their FUSE node
// ids.
func (w *Watcher) Nodes() ([]uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(w.Dir, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: w.Dir, Err: err}
	}
	// The kernel's own number of a device: 12 bits of major above 20 of minor.
	dev := uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev))
	processes, err := names("/proc")
	if err != nil {
		return nil, err
	}
	seen := map[uint64]bool{}
	for _, pid := range processes {
		if pid[0] < '1' || pid[0] > '9' || pid == strconv.Itoa(os.Getpid()) {
			continue
		}
		dir := "/proc/" + pid
		fds, err := names(dir + "/fd")
		if err != nil {
			continue // it has ended
		}
		for _, fd := range fds {
			if to, err := os.Readlink(dir + "/fd/" + fd); err != nil || to != "anon_inode:inotify" {
				continue
			}
			if info, err := os.ReadFile(dir + "/fdinfo/" + fd); err == nil {
				parse(info, dev, seen)
			}
		}
	}
	nodes := make([]uint64, 0, len(seen))
	for n := range seen {
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func names(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// fileID is FILEID_INO64_GEN of linux/exportfs.h, which FUSE has: a node id in two
// halves of 32 bits, the upper one first, then a generation.
const fileID = "81"

// parse collects the nodes of a device from the fdinfo of an inotify descriptor
// (proc(5)):
//
//	inotify wd:1 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:c fhandle-type:81 f_handle:…
func parse(info []byte, dev uint64, nodes map[uint64]bool) {
	for line := range bytes.Lines(info) {
		fields := strings.Fields(string(line))
		if len(fields) == 0 || fields[0] != "inotify" {
			continue
		}
		var sdev, kind, handle string
		for _, f := range fields[1:] {
			key, value, _ := strings.Cut(f, ":")
			switch key {
			case "sdev":
				sdev = value
			case "fhandle-type":
				kind = value
			case "f_handle":
				handle = value
			}
		}
		d, err := strconv.ParseUint(sdev, 16, 64)
		b, herr := hex.DecodeString(handle)
		if err != nil || herr != nil || d != dev || kind != fileID || len(b) < 8 || len(nodes) >= maxNodes {
			continue
		}
		nodes[uint64(binary.LittleEndian.Uint32(b))<<32|uint64(binary.LittleEndian.Uint32(b[4:]))] = true
	}
}

// Change is one that was made on the host.
type Change struct {
	Kind      int    // of agent/wire: wire.Modified, …
	Dir, Name string // a directory, relative to the trees, and a name in it
	ToDir, To string // the new ones, if it was moved
	Mode      uint32 // type, S_IFMT
}

// Repeat makes a change once more.
func (w *Watcher) Repeat(c *Change) error {
	w.Thread()
	r := call{func() error { return w.repeat(c) }, make(chan error, 1)}
	w.calls <- r
	return <-r.done
}

func (w *Watcher) repeat(c *Change) error {
	root, err := unix.Open(w.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: w.Dir, Err: err}
	}
	defer unix.Close(root)
	dir, err := beneath(root, c.Dir)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	switch c.Kind {
	case wire.Modified:
		return touch(dir, c.Name, unix.UTIME_OMIT)
	case wire.Attributes:
		return touch(dir, c.Name, unix.UTIME_NOW)
	case wire.CloseWrite:
		return openClose(dir, c.Name)
	case wire.Created:
		return create(dir, c.Name, c.Mode)
	case wire.Deleted:
		flags := 0
		if c.Mode == unix.S_IFDIR {
			flags = unix.AT_REMOVEDIR
		}
		return os.NewSyscallError("unlinkat", unix.Unlinkat(dir, c.Name, flags))
	case wire.Moved:
		to, err := beneath(root, c.ToDir)
		if err != nil {
			return err
		}
		defer unix.Close(to)
		return os.NewSyscallError("renameat", unix.Renameat(dir, c.Name, to, c.To))
	case wire.MovedHere:
		return os.NewSyscallError("renameat", unix.Renameat(root, wire.GhostName, dir, c.Name))
	}
	return fmt.Errorf("change of kind %d", c.Kind)
}

// beneath opens a directory of the trees. No link is followed: it could lead to the
// guest's own files.
func beneath(root int, path string) (int, error) {
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// touch sets the time of modification (IN_MODIFY), and with atime that of access,
// too (IN_ATTRIB).
func touch(dir int, name string, atime int64) error {
	times := []unix.Timespec{{Nsec: atime}, {Nsec: unix.UTIME_NOW}}
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(dir, name, times, unix.AT_SYMLINK_NOFOLLOW))
}

// openClose opens a regular file for writing, and closes it.
func openClose(dir int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("fstatat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("no regular file")
	}
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	return os.NewSyscallError("close", unix.Close(fd))
}

// create makes a file of a type. The host answers with the one that is there.
func create(dir int, name string, mode uint32) error {
	switch mode {
	case unix.S_IFDIR:
		return os.NewSyscallError("mkdirat", unix.Mkdirat(dir, name, 0o700))
	case unix.S_IFLNK:
		return os.NewSyscallError("symlinkat", unix.Symlinkat("x", dir, name))
	}
	return os.NewSyscallError("mknodat", unix.Mknodat(dir, name, mode|0o600, 0))
}
