// Package inherit finds the open files that a command was given beside its stdio,
// to be passed on to a process in a guest: --preserve-fds and LISTEN_FDS.
//
// A file of the host does not exist in a guest. What can be passed on is what is
// a stream: the guest's process gets a pipe or a socket whose other end is
// copied to and from the file. All else is refused by its number and kind.
package inherit

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// First is the number of the first file behind stdio.
const First = 3

// Max bounds the files of one process. Those of an exec travel with its stdio in
// one message, and the kernel sends 253 files at a time (SCM_MAX_FD).
const Max = 250

// Access says what a process may do with a file: read, write, or both, which is
// a socket. Neither is /dev/null.
type Access struct {
	Reads  bool `json:"reads,omitempty"`
	Writes bool `json:"writes,omitempty"`
}

// Null says whether the file is /dev/null.
func (a Access) Null() bool { return !a.Reads && !a.Writes }

// File is an open file that is passed on.
type File struct {
	Access
	*os.File
}

// Close closes files.
func Close(files []File) {
	for _, f := range files {
		_ = f.Close() // nothing was written here
	}
}

// Open is how many files from First on the caller left open without a gap. It
// must be asked before these are marked close-on-exec, as what this process
// opens itself is from the start: that is how the two are told apart.
func Open() int {
	for n := 0; ; n++ {
		flags, err := unix.FcntlInt(uintptr(First+n), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			return n
		}
	}
}

// ListenFDs is how many sockets a service manager passes to the process pid, by
// the variables of sd_listen_fds(3); those for another process do not count.
func ListenFDs(getenv func(string) string, pid int) int {
	to, err := strconv.Atoi(getenv("LISTEN_PID"))
	if err != nil || to != pid {
		return 0
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// Files takes the files to pass on: listen of LISTEN_FDS and behind them preserve
// of --preserve-fds, of open that there are. The caller closes them.
func Files(listen, preserve, open int) ([]File, error) {
	listen, preserve = max(listen, 0), max(preserve, 0)
	switch fd := First + open; { // the first that is not open
	case open < listen:
		return nil, fmt.Errorf("LISTEN_FDS is %d, but file descriptor %d is not open", listen, fd)
	case preserve > open-listen: // the words are runc's
		return nil, fmt.Errorf("unable to stat preserved-fd %d (of %d): stat /proc/self/fd/%d: %w (check that file descriptor %[3]d is open)",
			open-listen, preserve, fd, unix.ENOENT)
	case listen+preserve > Max:
		return nil, fmt.Errorf("cannot pass on %d file descriptors, more than %d", listen+preserve, Max)
	}
	var files []File
	for fd := First; fd < First+listen+preserve; fd++ {
		a, err := Inspect(fd)
		if err != nil {
			return nil, err // the others stay open: the process ends
		}
		files = append(files, File{a, os.NewFile(uintptr(fd), "fd "+strconv.Itoa(fd))})
	}
	return files, nil
}

// Inspect says how the file behind a descriptor can be passed on, or why it
// cannot and what to do about that.
func Inspect(fd int) (Access, error) {
	a, what, cure, err := inspect(fd)
	if err != nil {
		return Access{}, fmt.Errorf("pass on file descriptor %d: %w", fd, err)
	}
	if what != "" {
		return Access{}, fmt.Errorf("file descriptor %d is %s, which cannot be passed into a virtual machine (%s)", fd, what, cure)
	}
	return a, nil
}

// The cures.
const (
	cureMount  = "bind mount it, or pass a pipe"
	cureOneWay = "open it for reading only or for writing only"
	curePipe   = "pass a pipe or a connected stream socket"
)

func inspect(fd int) (a Access, what, cure string, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return a, "", "", os.NewSyscallError("fstat", err)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return a, "", "", os.NewSyscallError("fcntl", err)
	}
	name, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)) // for the message
	mode := flags & unix.O_ACCMODE
	a = Access{Reads: mode == unix.O_RDONLY, Writes: mode == unix.O_WRONLY}
	both := mode == unix.O_RDWR
	switch kind := st.Mode & unix.S_IFMT; {
	case flags&unix.O_PATH != 0:
		what, cure = fmt.Sprintf("an O_PATH descriptor of %q", name), cureMount
	case kind == unix.S_IFSOCK:
		a, what, cure, err = inspectSocket(fd)
	case kind == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3):
		a = Access{} // the guest has one of its own
	case kind == unix.S_IFIFO && both:
		what, cure = "a pipe or FIFO opened for both reading and writing", cureOneWay
	case kind == unix.S_IFIFO:
	case strings.HasPrefix(name, "/memfd:"):
		what, cure = fmt.Sprintf("a memory file (%q)", name), curePipe
	case kind == unix.S_IFREG && both:
		what, cure = fmt.Sprintf("the file %q opened for both reading and writing", name), "open it for one of both, or bind mount it"
	case kind == unix.S_IFREG:
	case kind == unix.S_IFCHR && isTerminal(fd) && both:
		what, cure = fmt.Sprintf("the terminal %q opened for both reading and writing", name), cureOneWay+", or set process.terminal"
	case kind == unix.S_IFCHR && isTerminal(fd):
	case kind == unix.S_IFDIR:
		what, cure = fmt.Sprintf("the directory %q", name), "bind mount it"
	case kind == unix.S_IFCHR || kind == unix.S_IFBLK:
		what, cure = fmt.Sprintf("the device %q", name), "let the process open a device of its own: linux.devices"
	default:
		what, cure = fmt.Sprintf("no file but a kernel object (%q)", name), curePipe
	}
	return a, what, cure, err
}

func inspectSocket(fd int) (a Access, what, cure string, err error) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return a, "", "", os.NewSyscallError("getsockopt SO_TYPE", err)
	}
	if typ != unix.SOCK_STREAM {
		return a, "a socket that does not carry a stream", curePipe, nil
	}
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return a, "", "", os.NewSyscallError("getsockopt SO_ACCEPTCONN", err)
	}
	if listens != 0 {
		return a, "a listening socket", "accept on the host, and pass the connection to exec", nil
	}
	if _, err := unix.Getpeername(fd); errors.Is(err, unix.ENOTCONN) {
		return a, "a socket that is not connected", "connect it first", nil
	}
	return Access{Reads: true, Writes: true}, "", "", nil
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}
