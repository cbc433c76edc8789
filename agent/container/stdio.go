package container

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"runv/agent/stream"
	"runv/agent/task"
)

// Stdio has the tokens that name a process's streams to the host; an empty one
// is /dev/null. A terminal is Stdin, in both directions.
type Stdio struct {
	Stdin, Stdout, Stderr []byte
	Extra                 []File // descriptors 3, 4, …
}

// File is a descriptor of a process that is a stream: a pipe, or a socket if the
// process both reads and writes.
type File struct {
	Token         []byte // empty: /dev/null
	Reads, Writes bool
}

// files are all of them, by their numbers. With a terminal the first three are
// the terminal, which is the first one's stream.
func (s Stdio) files(terminal bool) []File {
	files := []File{{Token: s.Stdin, Reads: true}, {}, {}}
	if !terminal {
		files[1], files[2] = File{Token: s.Stdout, Writes: true}, File{Token: s.Stderr, Writes: true}
	}
	return append(files, s.Extra...)
}

// output is what a process writes to: *stream.Output or *stream.Duplex.
type output interface {
	Written() uint64
	Done() <-chan struct{}
	Close()
}

// streams are the agent's side of a process's streams.
type streams struct {
	buffers *stream.Buffers
	files   []File
	conns   []stream.Conn // of the files, until something copies

	mu         sync.Mutex
	in         *stream.Input   // stdin
	extra      []*stream.Input // as long as somebody may read them
	out        []output        // of the files; nil where nothing is written
	term       *stream.Terminal
	rows, cols uint16 // asked for; 0: unknown
	closed     bool
}

// maxDials is how many connections are opened at once: the host takes no more
// than a few that have not said yet what they are.
const maxDials = 16

// dial opens the connections of all streams at once: each costs a round trip to
// the host.
func (st *streams) dial(d stream.Dialer, files []File) error {
	st.files = files
	st.conns, st.out = make([]stream.Conn, len(files)), make([]output, len(files))
	var wg sync.WaitGroup
	errs := make([]error, len(files))
	room := make(chan struct{}, maxDials)
	for i, f := range files {
		if len(f.Token) == 0 {
			continue
		}
		room <- struct{}{}
		wg.Go(func() {
			st.conns[i], errs[i] = stream.Open(d, f.Token)
			<-room
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// descriptors makes those that become the process's 0, 1, …: pipes and sockets,
// or for a terminal that is still to be made the null device. The caller closes
// them after the fork.
func (st *streams) descriptors(terminal bool, uid int) ([]int, error) {
	fds := make([]int, 0, len(st.files))
	for i := range st.files {
		var fd int
		var err error
		if terminal && i < 3 {
			fd, err = openNull()
		} else {
			fd, err = st.descriptor(i, uid)
		}
		if err == nil {
			fd, err = st.high(fd)
		}
		if err != nil {
			closeAll(fds)
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// high moves a descriptor: a child numbers its own anew, and no source may be in
// the way.
func (st *streams) high(fd int) (int, error) {
	defer unix.Close(fd)
	return task.High(fd, len(st.files))
}

func openNull() (int, error) {
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/dev/null", Err: err}
	}
	return fd, nil
}

// descriptor makes one of a process, and copies for it from now on.
func (st *streams) descriptor(i, uid int) (int, error) {
	conn, f := st.conns[i], st.files[i]
	if conn == nil {
		return openNull()
	}
	fd, ours, err := pipeFor(f, uid)
	if err != nil {
		return -1, err
	}
	st.conns[i] = nil
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case f.Reads && f.Writes:
		var d *stream.Duplex
		if d, err = st.buffers.NewDuplex(conn, ours); err == nil {
			st.out[i] = d
		}
	case f.Writes:
		var o *stream.Output
		if o, err = st.buffers.NewOutput(conn, ours); err == nil {
			st.out[i] = o
		}
	default:
		err = st.input(i, conn, ours)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// input copies to a pipe. stdin ends with the process, another one with the last
// who has it open.
func (st *streams) input(i int, conn stream.Conn, ours *os.File) error {
	in, err := st.buffers.NewInput(conn, ours)
	if err != nil {
		return err
	}
	if i == 0 {
		st.in = in
		return nil
	}
	st.extra = append(st.extra, in)
	return in.EndWithReaders()
}

// pipeFor makes the process's end and ours of a file. The process's is owned by
// uid, so that it can open /dev/stdout again.
func pipeFor(f File, uid int) (fd int, ours *os.File, err error) {
	if f.Reads && f.Writes {
		return stream.Socket()
	}
	if fd, ours, err = stream.Pipe(f.Reads); err != nil {
		return -1, nil, err
	}
	if uid >= 0 {
		if err := unix.Fchown(fd, uid, -1); err != nil {
			unix.Close(fd)
			ours.Close()
			return -1, nil, os.NewSyscallError("fchown", err)
		}
	}
	return fd, ours, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// terminal starts to copy for a pty.
func (st *streams) terminal(master, slave *os.File) error {
	if err := unix.SetNonblock(int(master.Fd()), true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	// A file knows at its making whether it can be polled.
	fd, err := task.High(int(master.Fd()), len(st.files))
	master.Close()
	if err != nil {
		return err
	}
	pollable := os.NewFile(uintptr(fd), "ptmx")
	conn := st.conns[0]
	if conn == nil {
		pollable.Close()
		slave.Close()
		return errors.New("process.terminal without a stream for it")
	}
	st.conns[0] = nil
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.term, err = st.buffers.NewTerminal(conn, pollable, slave); err != nil {
		return err
	}
	if st.rows != 0 || st.cols != 0 {
		return st.term.Resize(st.rows, st.cols)
	}
	return nil
}

// resize sets the terminal's size now, or when there is one.
func (st *streams) resize(rows, cols uint16) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.rows, st.cols = rows, cols
	if st.term == nil || st.closed {
		return nil
	}
	return st.term.Resize(rows, cols)
}

// ended is called when the process has ended: nobody will read its stdin, and
// the terminal lives only as long as others have it open. It counts how many
// bytes the process wrote until now.
func (st *streams) ended(e *Exit) {
	st.mu.Lock()
	in, out, term := st.in, st.out, st.term
	st.in = nil
	st.mu.Unlock()
	if in != nil {
		in.Close()
	}
	n := make([]uint64, len(out))
	for i, o := range out {
		if o != nil {
			n[i] = o.Written()
		}
	}
	e.Stdout, e.Stderr, e.Extra = n[1], n[2], n[3:]
	if term != nil {
		term.Release()
		e.Stdout = term.Settle()
	}
}

// drain waits until the host has all output. No process may have the streams
// open, or it does not end.
func (st *streams) drain() {
	if st.term != nil {
		<-st.term.Done()
	}
	for _, o := range st.out {
		if o != nil {
			<-o.Done()
		}
	}
}

// close ends what is left.
func (st *streams) close() {
	for _, c := range st.conns {
		if c != nil {
			c.Close()
		}
	}
	st.mu.Lock()
	in, extra, out, term := st.in, st.extra, st.out, st.term
	st.in, st.closed = nil, true
	st.mu.Unlock()
	if in != nil {
		in.Close()
	}
	for _, i := range extra {
		i.Close()
	}
	for _, o := range out {
		if o != nil {
			o.Close()
		}
	}
	if term != nil {
		term.Close()
	}
}

// windowSize returns the size that a terminal starts with.
func windowSize(rows, cols uint32, height, width uint) (uint16, uint16, error) {
	if rows == 0 && cols == 0 {
		rows, cols = uint32(height), uint32(width)
	}
	if rows > 0xffff || cols > 0xffff {
		return 0, 0, fmt.Errorf("console size %dx%d", rows, cols)
	}
	return uint16(rows), uint16(cols), nil
}
