package monitor

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"runv/libvm/guest"
	"runv/libvm/inherit"
)

// files are the host's ends of a process's descriptors; nil is /dev/null. With a
// terminal, tty is in the place of the first three.
type files struct {
	stdin, stdout, stderr *os.File
	tty                   *os.File       // slave side of a pty of the host, in raw mode
	extra                 []inherit.File // descriptors 3, 4, …
}

// dropNull forgets those that are /dev/null, so that nothing is relayed for
// them: the process in the guest gets the guest's /dev/null.
func (f *files) dropNull() {
	for _, p := range []**os.File{&f.stdin, &f.stdout, &f.stderr} {
		if *p != nil && isNull(*p) {
			(*p).Close() //nolint:errcheck // nothing was written
			*p = nil
		}
	}
}

// isNull says whether f is the null device (device number 1:3).
func isNull(f *os.File) bool {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false
	}
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

func (f *files) close() {
	for _, p := range []*os.File{f.stdin, f.stdout, f.stderr, f.tty} {
		if p != nil {
			p.Close() //nolint:errcheck // writes have been checked
		}
	}
	inherit.Close(f.extra)
}

// line is one descriptor of a process: a file of the host, and the stream of the
// guest that is its other end.
type line struct {
	inherit.Access               // the process's; neither: it is /dev/null
	file           *os.File      // nil: /dev/null
	stream         *guest.Stream // nil: /dev/null
	tty            bool          // both directions of a terminal
	extra          bool          // not stdio: it may outlive its process

	cancel *os.File     // eventfd, ends the reading of file; nil if the process does not read
	once   sync.Once    // for free
	halves atomic.Int32 // directions of a socket that have ended

	// Guarded by relay.mu.
	conn  net.Conn // nil before start
	sent  uint64   // bytes of the process that were delivered
	ended bool     // there will be no more of them
}

// newLine asks g for the stream of a file. The line owns the file.
func newLine(g *guest.Guest, file *os.File, a inherit.Access) (*line, error) {
	l := &line{Access: a, file: file, ended: !a.Writes || file == nil}
	if file == nil || a.Null() {
		return l, nil
	}
	if a.Reads {
		if err := l.stoppable(); err != nil {
			return l, err
		}
	}
	l.stream = g.NewStream()
	return l, nil
}

// stoppable makes what stop uses.
func (l *line) stoppable() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("eventfd2", err)
	}
	l.cancel = os.NewFile(uintptr(fd), "relay")
	return nil
}

// lines makes those of all files of a process, in the order of its descriptors.
// The files are the lines'.
func newLines(g *guest.Guest, f files) ([]*line, error) {
	in, out, both := inherit.Access{Reads: true}, inherit.Access{Writes: true}, inherit.Access{Reads: true, Writes: true}
	all := []inherit.File{{Access: in, File: f.stdin}, {Access: out, File: f.stdout}, {Access: out, File: f.stderr}}
	if f.tty != nil {
		all[0] = inherit.File{Access: both, File: f.tty}
	}
	lines := make([]*line, 0, len(all)+len(f.extra))
	var errs error
	for i, file := range append(all, f.extra...) {
		l, err := newLine(g, file.File, file.Access)
		l.tty, l.extra = i == 0 && f.tty != nil, i >= len(all)
		errs = errors.Join(errs, err)
		lines = append(lines, l)
	}
	return lines, errs
}

// stop ends the reading of the host's side.
func (l *line) stop() {
	if l.cancel != nil {
		l.cancel.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0}) //nolint:errcheck // an eventfd takes it; closed: it has ended
	}
}

// free closes what the line has of the host.
func (l *line) free() {
	l.once.Do(func() {
		if l.cancel != nil {
			l.cancel.Close() //nolint:errcheck // not used any more
		}
		if l.file != nil {
			l.file.Close() //nolint:errcheck // writes were checked
		}
	})
}

// half is called when a direction of a socket has ended. With the second one the
// socket is closed.
func (l *line) half(conn net.Conn) {
	if l.halves.Add(1) == 2 {
		conn.Close() //nolint:errcheck // both directions have ended
		l.free()
	}
}

// isSocket says whether the process has a socket, and not a pipe or a terminal.
func (l *line) isSocket() bool { return l.Reads && l.Writes && !l.tty }

// vanished says whether the other side of a socket is gone in both directions.
func (l *line) vanished() bool {
	p := []unix.PollFd{{Fd: int32(l.file.Fd())}}
	_, err := unix.Poll(p, 0)
	return err != nil || p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}
