package stream

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Output carries stdout or stderr of a process. It ends when all writers of the
// pipe are gone and the host has taken everything, when the host's reader is
// gone, or by Close.
type Output struct {
	conn Conn
	src  *os.File
	raw  syscall.RawConn
	done chan struct{}
	peer chan struct{} // closed when the watch of the host's side has ended

	mu    sync.Mutex
	total uint64 // bytes read from src
}

// NewOutput starts to copy from src to conn, both of which it owns.
func (b *Buffers) NewOutput(conn Conn, src *os.File) (*Output, error) {
	raw, err := src.SyscallConn()
	if err != nil {
		conn.Close()
		src.Close()
		return nil, err
	}
	o := &Output{conn: conn, src: src, raw: raw, done: make(chan struct{}), peer: make(chan struct{})}
	go o.watch()
	go func() {
		err := b.copyAll(conn, raw, &o.mu, o.count)
		// Closing our end of the pipe is what gives SIGPIPE to a process
		// whose reader on the host is gone.
		src.Close()
		finish(conn, err, o.done, o.peer)
	}()
	return o, nil
}

// finish ends the direction to the host. The host closes when it has read to
// the end; until then the connection must stay, or it would be reset with data
// in flight. peer is closed when the host's side has ended.
func finish(conn Conn, err error, done chan<- struct{}, peer <-chan struct{}) {
	if err == nil {
		err = conn.CloseWrite()
	}
	close(done)
	if err == nil {
		<-peer
	}
	conn.Close()
}

func (o *Output) count(n int, _ error) {
	if n > 0 {
		o.total += uint64(n)
	}
}

// watch notices that the host's reader is gone while the process is silent.
func (o *Output) watch() {
	defer close(o.peer)
	var b [64]byte
	for {
		// Data from the host has no meaning here and is thrown away.
		if _, err := o.conn.Read(b[:]); err != nil {
			break
		}
	}
	o.src.Close()
}

// Written returns how many bytes the process has written until now: those that
// were read, and those that are still in the pipe.
func (o *Output) Written() uint64 { return written(o.raw, &o.mu, &o.total) }

// written adds what waits in src to total, which mu guards.
func written(src syscall.RawConn, mu *sync.Mutex, total *uint64) uint64 {
	mu.Lock()
	defer mu.Unlock()
	sum := *total
	// Under mu nobody reads, so that nothing is counted twice or missed.
	_ = src.Control(func(fd uintptr) {
		if n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil && n > 0 {
			sum += uint64(n)
		}
	})
	return sum
}

// Done is closed when everything is with the host, or nobody wants it.
func (o *Output) Done() <-chan struct{} { return o.done }

// Close ends the copying and waits for it.
func (o *Output) Close() {
	o.src.Close()
	o.conn.Close()
	<-o.done
	<-o.peer
}
