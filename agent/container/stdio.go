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
}

func (s Stdio) token(i int) []byte { return [...][]byte{s.Stdin, s.Stdout, s.Stderr}[i] }

// streams are the agent's side of a process's streams.
type streams struct {
	buffers *stream.Buffers
	conns   [3]stream.Conn // until something copies

	mu         sync.Mutex
	in         *stream.Input
	out        [2]*stream.Output // stdout, stderr
	term       *stream.Terminal
	rows, cols uint16 // asked for; 0: unknown
	closed     bool
}

// dial opens the connections of all streams at once: each costs a round trip to
// the host.
func (st *streams) dial(d stream.Dialer, s Stdio, terminal bool) error {
	var wg sync.WaitGroup
	var errs [3]error
	for i := range st.conns {
		if len(s.token(i)) == 0 || (terminal && i > 0) {
			continue
		}
		wg.Go(func() { st.conns[i], errs[i] = stream.Open(d, s.token(i)) })
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// stdio makes the descriptors that become the process's 0 to 2: pipes, or for a
// terminal that is still to be made the null device.
func (st *streams) stdio(terminal bool, uid int) ([3]int, error) {
	if !terminal {
		return st.pipes(uid)
	}
	fds := [3]int{-1, -1, -1}
	for i := range fds {
		fd, err := openNull()
		if err != nil {
			closeAll(fds)
			return fds, err
		}
		fds[i] = fd
	}
	return fds, nil
}

func openNull() (int, error) {
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/dev/null", Err: err}
	}
	return fd, nil
}

// pipes makes the descriptors that become the process's 0 to 2, owned by uid so
// that it can open /dev/stdout again. The caller closes them after the fork.
func (st *streams) pipes(uid int) ([3]int, error) {
	fds := [3]int{-1, -1, -1}
	for i := range fds {
		fd, err := st.pipe(i, uid)
		if err != nil {
			closeAll(fds)
			return fds, err
		}
		// A child numbers its descriptors anew: no source may be in the way.
		fds[i], err = task.High(fd)
		unix.Close(fd)
		if err != nil {
			closeAll(fds)
			return fds, err
		}
	}
	return fds, nil
}

func (st *streams) pipe(i, uid int) (int, error) {
	conn := st.conns[i]
	if conn == nil {
		return openNull()
	}
	fd, ours, err := stream.Pipe(i == 0)
	if err != nil {
		return -1, err
	}
	if uid >= 0 {
		if err := unix.Fchown(fd, uid, -1); err != nil {
			unix.Close(fd)
			ours.Close()
			return -1, os.NewSyscallError("fchown", err)
		}
	}
	st.conns[i] = nil
	st.mu.Lock()
	defer st.mu.Unlock()
	if i == 0 {
		st.in, err = st.buffers.NewInput(conn, ours)
	} else {
		st.out[i-1], err = st.buffers.NewOutput(conn, ours)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func closeAll(fds [3]int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// terminal starts to copy for a pty.
func (st *streams) terminal(master, slave *os.File) error {
	if err := unix.SetNonblock(int(master.Fd()), true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	// A file knows at its making whether it can be polled.
	fd, err := task.High(int(master.Fd()))
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
// the terminal lives only as long as others have it open. It returns how many
// bytes the process wrote to stdout or the terminal, and to stderr.
func (st *streams) ended() (stdout, stderr uint64) {
	st.mu.Lock()
	in, out, term := st.in, st.out, st.term
	st.in = nil
	st.mu.Unlock()
	if in != nil {
		in.Close()
	}
	if term != nil {
		term.Release()
		return term.Settle(), 0
	}
	var n [2]uint64
	for i, o := range out {
		if o != nil {
			n[i] = o.Written()
		}
	}
	return n[0], n[1]
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
	in, out, term := st.in, st.out, st.term
	st.in, st.closed = nil, true
	st.mu.Unlock()
	if in != nil {
		in.Close()
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
