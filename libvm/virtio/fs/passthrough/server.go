// Package passthrough is the file server behind the virtio-fs device: a
// fuse.RawFileSystem over a table of shared directory trees (or single files).
//
//	/              synthetic, read-only: one directory for each tree's key
//	/<key>         synthetic, read-only: one entry
//	/<key>/<name>  the root of the tree
//
// The guest is hostile, and so may be a host user who can write in a tree:
//
//   - Every lookup is one name relative to an O_PATH descriptor, with
//     O_NOFOLLOW. The server never follows a symbolic link and never looks up
//     "..", so that no race with a rename or a link leads out of a tree.
//   - Only regular files and directories are opened, after the type was seen on
//     the O_PATH descriptor that is reopened. Opening a device or a FIFO has
//     effects of its own on the host.
//   - After NewServer no absolute path is used: the process may pivot away.
//   - What a read-only tree refuses, it refuses here, whatever the guest says.
//
// Permission checks are the guest kernel's (virtiofs implies
// default_permissions), as within a container on one kernel: inside a tree the
// guest's kernel is root.
package passthrough

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Errors of AddTree and RemoveTree.
var (
	ErrTreeExists   = errors.New("shared tree exists")
	ErrTreeNotExist = errors.New("shared tree does not exist")
)

// Options are the limits and policies of a Server. The zero value is usable.
type Options struct {
	// Timeout is how long the guest may use attributes and names before it asks
	// again, and so how late a change on the host is seen. 0 means 500 ms.
	Timeout time.Duration
	// NegativeTimeout is the same for names that do not exist. 0 means 250 ms.
	NegativeTimeout time.Duration
	// MaxInodes bounds the inodes that the guest references at once, each about
	// 250 bytes here (and about 1 KiB in the guest). 0 means 4 Mi.
	MaxInodes int
	// PathFDs bounds the O_PATH descriptors that are kept open. 0 means a
	// quarter of RLIMIT_NOFILE, at most 4096.
	PathFDs int
	// MaxFiles bounds the files and directories that the guest has open at
	// once. 0 means half of RLIMIT_NOFILE.
	MaxFiles int
	// AllowDevices lets the guest create device nodes. Without it only the
	// overlay whiteout (character device 0:0) can be made: a device node in a
	// directory that host users reach is theirs to open, and the guest's kernel,
	// which checks CAP_MKNOD, may be in an attacker's hand.
	AllowDevices bool
}

const (
	defaultTimeout         = 500 * time.Millisecond
	defaultNegativeTimeout = 250 * time.Millisecond
	defaultMaxInodes       = 4 << 20
	maxPathFDs             = 4096
	minPathFDs             = 16
)

// MaxWrite is the largest READ or WRITE that is negotiated, in bytes.
const MaxWrite = 1 << 20

// Server serves shared trees. It is a fuse.RawFileSystem; what it does not
// implement is ENOSYS, on which the guest's kernel falls back (file locks, which
// stay in the guest; ACCESS, which it checks itself; STATX).
type Server struct {
	fuse.RawFileSystem
	opts Options
	proc int // O_PATH directory: our own /proc/self/fd
	ids  bool
	xat  bool // getxattrat and its kin exist (Linux 6.13)

	cache fdCache
	socks sockets
	watch watch

	mu    sync.Mutex // guards all below, and the fields of inode and file that say so
	table inodeTable
	files fileTable
	trees map[string]*tree
	order []*tree           // in the order of AddTree: the listing of /
	devs  map[uint64]uint64 // st_dev to its index in inode numbers
}

var _ fuse.RawFileSystem = (*Server)(nil)

// NewServer returns a server without trees. It opens /proc/self/fd, through
// which it later reopens files, and sets the process's umask to 0: the umask
// that counts is the one of the guest's process, which comes with each request.
func NewServer(o Options) (*Server, error) {
	proc, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /proc/self/fd: %w", err)
	}
	limit, err := raiseNoFile()
	if err != nil {
		unix.Close(proc)
		return nil, err
	}
	o.setDefaults(limit)
	unix.Umask(0)
	s := &Server{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		opts:          o,
		proc:          proc,
		trees:         map[string]*tree{},
		devs:          map[uint64]uint64{},
	}
	s.cache.init(o.PathFDs)
	s.table.init(o.MaxInodes)
	s.files.max = o.MaxFiles
	s.ids = canSwitchIDs()
	s.xat = haveXattrAt(proc)
	return s, nil
}

// raiseNoFile raises the soft limit of open files to the hard one and returns
// it. The Go runtime has usually done so already.
func raiseNoFile() (int, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	if r.Cur < r.Max {
		r.Cur = r.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
			return 0, os.NewSyscallError("setrlimit", err)
		}
	}
	return int(min(r.Cur, 1<<20)), nil
}

// setDefaults fills in what is 0, for a process that may have limit files open.
// A quarter of them stays for the rest of the process: a guest that opens files
// until it is refused must not keep us from accepting a connection.
func (o *Options) setDefaults(limit int) {
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.NegativeTimeout == 0 {
		o.NegativeTimeout = defaultNegativeTimeout
	}
	if o.MaxInodes == 0 {
		o.MaxInodes = defaultMaxInodes
	}
	if o.PathFDs == 0 {
		o.PathFDs = min(limit/4, maxPathFDs)
	}
	o.PathFDs = max(o.PathFDs, minPathFDs)
	if o.MaxFiles == 0 {
		o.MaxFiles = limit / 2
	}
}

// String names the file system in mount tables.
func (s *Server) String() string { return "runv" }

// Close closes every descriptor. No request may be in progress or follow.
func (s *Server) Close() error {
	s.watch.mu.Lock()
	if s.watch.file != nil {
		s.watch.file.Close() //nolint:errcheck // only read from
	}
	s.watch.mu.Unlock()
	s.Reset()
	s.mu.Lock()
	keys := make([]string, 0, len(s.trees))
	for k := range s.trees {
		keys = append(keys, k)
	}
	s.mu.Unlock()
	for _, k := range keys {
		if err := s.RemoveTree(k); err != nil {
			return err
		}
	}
	return os.NewSyscallError("close", unix.Close(s.proc))
}

// Reset forgets everything that a guest referenced or had open, as when its
// kernel has unmounted the file system or was reset. Trees stay.
func (s *Server) Reset() {
	s.mu.Lock()
	files := s.files.takeAll(func(*file) bool { return true })
	dead := s.table.takeAll()
	for _, f := range files {
		s.unlistFile(f)
	}
	s.mu.Unlock()
	for _, f := range files {
		f.close()
	}
	for _, n := range dead {
		s.dropFD(n)
	}
}

// MountOptions returns the options for a fuse.ProtocolServer (or fuse.Server)
// over s. It discards go-fuse's log: the guest could fill it at will.
func (s *Server) MountOptions() *fuse.MountOptions {
	return &fuse.MountOptions{
		MaxWrite:      MaxWrite,
		MaxBackground: maxBackground,
		Logger:        discard,
		EnableAcl:     true,
		FsName:        "runv",
		Name:          "runv",
		ExtraCapabilities: fuse.CAP_READDIRPLUS_AUTO | // plain READDIR when names are all that is wanted
			fuse.CAP_ATOMIC_O_TRUNC | // one request for open(O_TRUNC)
			fuse.CAP_ASYNC_DIO |
			fuse.CAP_DONT_MASK | // the umask does not count where a default ACL does
			fuse.CAP_HANDLE_KILLPRIV_V2 | // or each write asks for security.capability first
			fuse.CAP_SETXATTR_EXT, // says when an ACL must clear the setgid bit
		DisabledCapabilities: fuse.CAP_PASSTHROUGH | fuse.CAP_ALLOW_IDMAP,
		PanicHandler:         onPanic,
	}
}

// maxBackground is how many asynchronous requests (readahead, direct I/O) the
// guest's kernel has in flight.
const maxBackground = 64

// SyncFS writes back the file systems of all writable trees (FUSE_SYNCFS).
func (s *Server) SyncFS() error {
	s.mu.Lock()
	roots := make([]*inode, 0, len(s.order))
	for _, t := range s.order {
		if !t.readOnly {
			roots = append(roots, t.root)
		}
	}
	s.mu.Unlock()
	done := map[uint64]bool{}
	for _, n := range roots {
		if done[n.vol.dev] {
			continue
		}
		done[n.vol.dev] = true
		if err := s.syncOne(n); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) syncOne(n *inode) error {
	p, err := s.hold(n)
	if err != nil {
		return err
	}
	defer p.release()
	if !n.isDir() && !n.isReg() {
		return nil
	}
	fd, err := s.openFD(p.fd, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	runtime.KeepAlive(p)
	return unix.Syncfs(fd)
}
