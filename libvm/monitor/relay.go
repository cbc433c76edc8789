package monitor

import (
	"context"
	"errors"
	"math"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"runv/agent/api"
	"runv/libvm/guest"
)

// relayBuffer is the most that is held of one direction of one stream in this
// process, in bytes, beside the vsock connection's own window.
const relayBuffer = 64 << 10

// files are the host's ends of a process's stdio; nil is /dev/null. With a
// terminal, tty is all there is.
type files struct {
	stdin, stdout, stderr *os.File
	tty                   *os.File // slave side of a pty of the host, in raw mode
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
}

// relay carries the stdio of one process between the host's files and the
// guest's streams.
type relay struct {
	files   files
	stdin   *guest.Stream // with a terminal: both directions
	stdout  *guest.Stream
	stderr  *guest.Stream
	cancel  *os.File // eventfd, ends the reading of the host's side
	inputs  sync.WaitGroup
	outputs sync.WaitGroup

	mu       sync.Mutex
	progress *sync.Cond // a counter below grew, or a stream ended
	sent     [2]uint64  // bytes delivered of stdout (or the terminal) and stderr
	ended    [2]bool    // there will be no more of it
	conns    []net.Conn

	closed chan struct{} // by close
	once   sync.Once     // for closed
}

// The indices of sent and ended.
const (
	toStdout = 0
	toStderr = 1
)

// newRelay asks g for the streams that f needs. The relay owns f.
func newRelay(g *guest.Guest, f files) (*relay, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		f.close()
		return nil, os.NewSyscallError("eventfd2", err)
	}
	r := &relay{files: f, cancel: os.NewFile(uintptr(fd), "relay"), closed: make(chan struct{})}
	r.progress = sync.NewCond(&r.mu)
	r.ended = [2]bool{f.stdout == nil && f.tty == nil, f.stderr == nil}
	if f.tty != nil || f.stdin != nil {
		r.stdin = g.NewStream()
	}
	if f.stdout != nil {
		r.stdout = g.NewStream()
	}
	if f.stderr != nil {
		r.stderr = g.NewStream()
	}
	return r, nil
}

// stdio is what the agent is told of the streams.
func (r *relay) stdio() *api.Stdio {
	s := &api.Stdio{}
	for _, t := range []struct {
		stream *guest.Stream
		token  *[]byte
	}{{r.stdin, &s.Stdin}, {r.stdout, &s.Stdout}, {r.stderr, &s.Stderr}} {
		if t.stream != nil {
			*t.token = t.stream.Token
		}
	}
	return s
}

// start waits for the streams, which the agent has opened by the time that it
// has made the process, and begins to copy.
func (r *relay) start(ctx context.Context) error {
	for _, s := range []struct {
		stream *guest.Stream
		copy   func(net.Conn)
	}{
		{r.stdin, r.input},
		{r.stdout, func(c net.Conn) { r.output(c, r.files.stdout, toStdout) }},
		{r.stderr, func(c net.Conn) { r.output(c, r.files.stderr, toStderr) }},
	} {
		if s.stream == nil {
			continue
		}
		conn, err := s.stream.Wait(ctx)
		if err != nil {
			return err
		}
		r.mu.Lock()
		r.conns = append(r.conns, conn)
		r.mu.Unlock()
		s.copy(conn)
	}
	return nil
}

// input copies from the host to the guest; with a terminal also back.
func (r *relay) input(conn net.Conn) {
	src := r.files.stdin
	if r.files.tty != nil {
		src = r.files.tty
		r.outputs.Go(func() { r.drain(r.files.tty, conn, toStdout) })
	}
	r.inputs.Go(func() {
		ended := r.feed(conn, src)
		if r.files.tty != nil {
			if ended {
				// The terminal was hung up: so is the guest's.
				conn.Close() //nolint:errcheck // its other direction has ended, too
			}
			return // or the output goes on until the guest ends it
		}
		src.Close()      //nolint:errcheck // only read from
		closeWrite(conn) //nolint:errcheck // the process may have gone
	})
}

// output copies one output stream to f.
func (r *relay) output(conn net.Conn, f *os.File, which int) {
	r.outputs.Go(func() {
		r.drain(f, conn, which)
		conn.Close() //nolint:errcheck // at its end
		f.Close()    //nolint:errcheck // writes were checked
	})
}

// feed copies src to conn until either ends, or until endInput: then it returns
// false.
func (r *relay) feed(conn net.Conn, src *os.File) (ended bool) {
	buf := make([]byte, relayBuffer)
	poll := []unix.PollFd{{Fd: int32(src.Fd()), Events: unix.POLLIN}, {Fd: int32(r.cancel.Fd()), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(poll, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return true
		}
		if poll[1].Revents != 0 {
			return false
		}
		n, err := unix.Read(int(src.Fd()), buf)
		switch {
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN):
			continue
		case err != nil || n == 0:
			return true
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return true
		}
	}
}

// drain copies conn to dst until the guest closed it. When nobody reads dst any
// more, the guest is told so, and the process there gets SIGPIPE on its next
// write, as if it held the pipe itself.
func (r *relay) drain(dst *os.File, conn net.Conn, which int) {
	buf := make([]byte, relayBuffer)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			if err := r.write(dst, buf[:n]); err != nil {
				closeRead(conn) //nolint:errcheck // the guest may have gone
				break
			}
			r.count(which, n)
		}
		if err != nil {
			break
		}
	}
	r.mu.Lock()
	r.ended[which] = true
	r.progress.Broadcast()
	r.mu.Unlock()
}

// write writes all of p. Whoever shares the open file with us may make it
// non-blocking at any time; then the write waits as if it were not.
func (r *relay) write(dst *os.File, p []byte) error {
	for {
		n, err := dst.Write(p)
		p = p[n:]
		if !errors.Is(err, unix.EAGAIN) {
			return err
		}
		poll := []unix.PollFd{{Fd: int32(dst.Fd()), Events: unix.POLLOUT}}
		if _, err := unix.Poll(poll, int(stuckTime.Milliseconds())); err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		select {
		case <-r.closed:
			return os.ErrClosed
		default:
		}
	}
}

func (r *relay) count(which, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent[which] += uint64(n)
	r.progress.Broadcast()
}

// drained waits until all output has been delivered, or ctx ends.
func (r *relay) drained(ctx context.Context) { r.delivered(ctx, math.MaxUint64, math.MaxUint64) }

// delivered waits until so many bytes of the output streams, or all there are,
// have been delivered, or ctx ends: the counts are the guest's, and it depends
// on others whether the host's side is read.
func (r *relay) delivered(ctx context.Context, stdout, stderr uint64) {
	stop := context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.progress.Broadcast()
	})
	defer stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, n := range []uint64{stdout, stderr} {
		for r.sent[i] < n && !r.ended[i] && ctx.Err() == nil {
			r.progress.Wait()
		}
	}
}

// expire gives the output up once nobody has taken any of it for d, the time
// after which a process that was killed must not be kept by its reader. It
// returns when the relay is closed, if not before.
func (r *relay) expire(d time.Duration) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	r.mu.Lock()
	last := r.sent
	r.mu.Unlock()
	for {
		select {
		case <-r.closed:
			return
		case <-tick.C:
		}
		r.mu.Lock()
		if r.sent == last {
			r.ended = [2]bool{true, true}
			r.progress.Broadcast()
			for _, c := range r.conns {
				closeRead(c) //nolint:errcheck // the agent sees that nobody reads
			}
			r.mu.Unlock()
			return
		}
		last = r.sent
		r.mu.Unlock()
	}
}

// endInput stops the reading of the host's side.
func (r *relay) endInput() {
	r.cancel.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0}) //nolint:errcheck // an eventfd takes it
}

// stuckTime is how long close waits for what it cannot interrupt: a write to a
// pipe that nobody empties, or a read of what somebody else took first.
const stuckTime = time.Second

// close ends the relay: streams that were never opened, both directions of those
// that were, the files. A file that is stuck is closed when it is not any more.
func (r *relay) close() {
	r.once.Do(func() { close(r.closed) })
	for _, s := range []*guest.Stream{r.stdin, r.stdout, r.stderr} {
		if s != nil {
			s.Cancel()
		}
	}
	r.endInput()
	r.mu.Lock()
	for _, c := range r.conns {
		c.Close() //nolint:errcheck // drained, or given up
	}
	r.mu.Unlock()
	freed := make(chan struct{})
	go func() {
		defer close(freed)
		r.inputs.Wait()
		r.outputs.Wait()
		r.cancel.Close() //nolint:errcheck // not used any more
		r.files.close()
	}()
	select {
	case <-freed:
	case <-time.After(stuckTime):
	}
}

// halfCloser is what a vsock connection can do beyond net.Conn.
type halfCloser interface {
	CloseRead() error
	CloseWrite() error
}

func closeWrite(c net.Conn) error {
	if h, ok := c.(halfCloser); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

func closeRead(c net.Conn) error {
	if h, ok := c.(halfCloser); ok {
		return h.CloseRead()
	}
	return c.Close()
}
