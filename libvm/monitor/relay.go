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
	"runv/libvm/inherit"
)

// relayBuffer is the most that is held of one direction of one stream in this
// process, in bytes, beside the vsock connection's own window.
const relayBuffer = 64 << 10

// relay carries the descriptors of one process between the host's files and the
// guest's streams.
type relay struct {
	lines   []*line        // by descriptor; the first three are stdio, or a terminal and nothing
	inputs  sync.WaitGroup // of stdin or the terminal
	extras  sync.WaitGroup // of the other inputs, which may outlive the process
	outputs sync.WaitGroup

	mu       sync.Mutex
	progress *sync.Cond // sent of a line grew, or it ended

	closed chan struct{} // by close
	once   sync.Once     // for closed
}

// newRelay asks g for the streams that f needs. The relay owns f.
func newRelay(g *guest.Guest, f files) (*relay, error) {
	r := &relay{closed: make(chan struct{})}
	r.progress = sync.NewCond(&r.mu)
	var err error
	if r.lines, err = newLines(g, f); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// relaySocket begins to copy between a connected stream socket of the host and a
// stream that is open. The relay owns both.
func relaySocket(file *os.File, conn net.Conn) (*relay, error) {
	l := &line{Access: inherit.Access{Reads: true, Writes: true}, file: file, extra: true, conn: conn}
	r := &relay{closed: make(chan struct{}), lines: []*line{l}}
	r.progress = sync.NewCond(&r.mu)
	if err := l.stoppable(); err != nil {
		r.close()
		return nil, err
	}
	r.carry(l, conn)
	return r, nil
}

// stdio is what the agent is told of the streams.
func (r *relay) stdio() *api.Stdio {
	token := func(l *line) []byte {
		if l.stream == nil {
			return nil
		}
		return l.stream.Token
	}
	s := &api.Stdio{Stdin: token(r.lines[0]), Stdout: token(r.lines[1]), Stderr: token(r.lines[2])}
	for _, l := range r.lines[3:] {
		s.Extra = append(s.Extra, &api.File{Token: token(l), Reads: l.Reads, Writes: l.Writes})
	}
	return s
}

// start waits for the streams, which the agent has opened by the time that it
// has made the process, and begins to copy.
func (r *relay) start(ctx context.Context) error {
	for _, l := range r.lines {
		if l.stream == nil {
			continue
		}
		conn, err := l.stream.Wait(ctx)
		if err != nil {
			return err
		}
		r.mu.Lock()
		l.conn = conn
		r.mu.Unlock()
		r.carry(l, conn)
	}
	return nil
}

// carry copies between the two ends of a line.
func (r *relay) carry(l *line, conn net.Conn) {
	inputs := &r.inputs
	if l.extra {
		inputs = &r.extras
	}
	switch {
	case l.tty:
		r.outputs.Go(func() { r.drain(l, conn) }) //nolint:errcheck // the terminal tells
		inputs.Go(func() {
			if r.feed(l, conn) {
				// The terminal was hung up: so is the guest's.
				conn.Close() //nolint:errcheck // its other direction has ended, too
			} // or the output goes on until the guest ends it
		})
	case l.isSocket():
		r.outputs.Go(func() { r.socketOutput(l, conn); l.half(conn) })
		inputs.Go(func() { r.socketInput(l, conn); l.half(conn) })
	case l.Writes:
		r.outputs.Go(func() {
			r.drain(l, conn) //nolint:errcheck // the guest was told
			conn.Close()     //nolint:errcheck // at its end
			l.free()
		})
	default:
		inputs.Go(func() {
			r.feed(l, conn)
			l.file.Close()   //nolint:errcheck // only read from
			closeWrite(conn) //nolint:errcheck // the process may have gone
		})
		if l.extra {
			inputs.Go(func() {
				conn.Read(make([]byte, 1)) //nolint:errcheck // the guest sends nothing: its end, which is that of the last reader
				l.stop()
				conn.Close() //nolint:errcheck // nobody reads
			})
		}
	}
}

// socketInput copies what comes out of the host's socket. Its end is that of the
// socket's peer: of this direction, or of both.
func (r *relay) socketInput(l *line, conn net.Conn) {
	if r.feed(l, conn) && l.vanished() {
		closeRead(conn) //nolint:errcheck // the process may have gone
	}
	closeWrite(conn) //nolint:errcheck // as above
}

// socketOutput copies to the host's socket. If the process ends this direction
// only, the socket's peer learns that; a close is told by our own, which changes
// nothing for others who have the socket open.
func (r *relay) socketOutput(l *line, conn net.Conn) {
	err := r.drain(l, conn)
	if h, ok := conn.(hangUpper); ok && err == nil && !h.HungUp() {
		unix.Shutdown(int(l.file.Fd()), unix.SHUT_WR) //nolint:errcheck // the peer may have gone
		h.AwaitHangUp()
	}
	if err == nil {
		l.stop()
	}
}

// feed copies the file of a line to conn until either ends, or until the line is
// stopped: then it returns false.
func (r *relay) feed(l *line, conn net.Conn) (ended bool) {
	src := int(l.file.Fd())
	buf := make([]byte, relayBuffer)
	poll := []unix.PollFd{{Fd: int32(src), Events: unix.POLLIN}, {Fd: int32(l.cancel.Fd()), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(poll, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return true
		}
		if poll[1].Revents != 0 {
			return false
		}
		n, err := unix.Read(src, buf)
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

// drain copies conn to the file of a line until the guest closed it. When nobody
// reads the file any more, the guest is told so, and the process there gets
// SIGPIPE on its next write, as if it held the pipe itself; the error says so.
func (r *relay) drain(l *line, conn net.Conn) (err error) {
	buf := make([]byte, relayBuffer)
	for {
		n, rerr := conn.Read(buf)
		if n > 0 {
			if err = r.write(l.file, buf[:n]); err != nil {
				closeRead(conn) //nolint:errcheck // the guest may have gone
				break
			}
			r.count(l, n)
		}
		if rerr != nil {
			break
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l.ended = true
	r.progress.Broadcast()
	return err
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

func (r *relay) count(l *line, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.sent += uint64(n)
	r.progress.Broadcast()
}

// drained waits until all output has been delivered, or ctx ends.
func (r *relay) drained(ctx context.Context) {
	all := make([]uint64, len(r.lines))
	for i := range all {
		all[i] = math.MaxUint64
	}
	r.delivered(ctx, all...)
}

// delivered waits until so many bytes of the descriptors 1, 2, … (of 1 if there
// is a terminal), or all there are, have been delivered, or ctx ends: the counts
// are the guest's, and it depends on others whether the host's side is read.
func (r *relay) delivered(ctx context.Context, counts ...uint64) {
	stop := context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.progress.Broadcast()
	})
	defer stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, n := range counts[:min(len(counts), len(r.lines)-1)] {
		l := r.lines[i+1]
		if i == 0 && r.lines[0].tty {
			l = r.lines[0]
		}
		for l.sent < n && !l.ended && ctx.Err() == nil {
			r.progress.Wait()
		}
	}
}

// sent is how much was delivered of all lines together.
func (r *relay) sent() (sum uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		sum += l.sent
	}
	return sum
}

// expire gives the output up once nobody has taken any of it for d, the time
// after which a process that was killed must not be kept by its reader. It
// returns when the relay is closed, if not before.
func (r *relay) expire(d time.Duration) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for last := r.sent(); ; {
		select {
		case <-r.closed:
			return
		case <-tick.C:
		}
		now := r.sent()
		if now == last {
			r.giveUp()
			return
		}
		last = now
	}
}

// giveUp ends all output.
func (r *relay) giveUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		l.ended = true
		if l.conn != nil {
			closeRead(l.conn) //nolint:errcheck // the agent sees that nobody reads
		}
	}
	r.progress.Broadcast()
}

// endInput stops the reading of stdin, or of the terminal.
func (r *relay) endInput() { r.lines[0].stop() }

// finished waits until all output has been delivered and nobody in the guest can
// read what is not stdin.
func (r *relay) finished() {
	r.outputs.Wait()
	r.extras.Wait()
}

// stuckTime is how long close waits for what it cannot interrupt: a write to a
// pipe that nobody empties, or a read of what somebody else took first.
const stuckTime = time.Second

// close ends the relay: streams that were never opened, both directions of those
// that were, the files. A file that is stuck is closed when it is not any more.
func (r *relay) close() {
	r.once.Do(func() { close(r.closed) })
	for _, l := range r.lines {
		if l.stream != nil {
			l.stream.Cancel()
		}
		l.stop()
	}
	r.mu.Lock()
	for _, l := range r.lines {
		if l.conn != nil {
			l.conn.Close() //nolint:errcheck // drained, or given up
		}
	}
	r.mu.Unlock()
	freed := make(chan struct{})
	go func() {
		defer close(freed)
		r.inputs.Wait()
		r.extras.Wait()
		r.outputs.Wait()
		for _, l := range r.lines {
			l.free()
		}
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

// hangUpper is another such thing: it tells the end of one direction from a close.
type hangUpper interface {
	HungUp() bool
	AwaitHangUp()
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
