// Package stream copies between the pipes or the terminal of a process and the
// vsock connections on which the host has its streams.
//
//	stdin    host ──vsock──▶ Input  ──pipe──▶ process   EOF closes the pipe
//	stdout   host ◀──vsock── Output ◀──pipe── process   EOF shuts the connection down
//	terminal host ◀──vsock──▶ pty master                EOF from the host hangs up
//	socket   host ◀──vsock──▶ Duplex ◀─pair─▶ process   each direction ends by itself
//
// On an output connection the host sends nothing and does not shut its side
// down while it reads: an EOF from it means that the reader is gone, and the
// process gets SIGPIPE, as it would with the reader's own pipe.
package stream

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// TokenSize is the length of what names a stream to the host.
const TokenSize = 16 // bytes

// Conn is a connection to the host: *vsock.Conn of agent/vsock, or *net.UnixConn in tests.
type Conn interface {
	io.ReadWriteCloser
	syscall.Conn
	CloseWrite() error
}

// Dialer connects to the host's port for streams.
type Dialer func() (Conn, error)

// Open dials the host and names the stream.
func Open(dial Dialer, token []byte) (Conn, error) {
	if len(token) != TokenSize {
		return nil, fmt.Errorf("stream token of %d bytes, want %d", len(token), TokenSize)
	}
	c, err := dial()
	if err != nil {
		return nil, fmt.Errorf("dial stream: %w", err)
	}
	if _, err := c.Write(token); err != nil {
		c.Close()
		return nil, fmt.Errorf("send stream token: %w", err)
	}
	return c, nil
}

// bufferSize is that of a pipe: what a process could write ahead of us.
const bufferSize = 64 << 10 // bytes

// Buffers lends the buffers of all streams. A stream has one only while it
// moves data, so that idle streams cost none.
type Buffers struct{ pool sync.Pool }

func (b *Buffers) get() *[bufferSize]byte {
	if p, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return p
	}
	return new([bufferSize]byte)
}

// read waits until src is readable, only then takes a buffer, and reads. The
// caller gives the buffer back; it is nil after an error or EOF. count is called
// under mu with what was read.
func (b *Buffers) read(src syscall.RawConn, mu *sync.Mutex, count func(n int, err error)) (*[bufferSize]byte, int, error) {
	var (
		buf *[bufferSize]byte
		n   int
		err error
	)
	werr := src.Read(func(fd uintptr) bool {
		if buf == nil {
			buf = b.get()
		}
		if mu != nil {
			mu.Lock()
			defer mu.Unlock()
		}
		for {
			n, err = unix.Read(int(fd), buf[:])
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if count != nil {
			count(n, err)
		}
		if errors.Is(err, unix.EAGAIN) {
			b.pool.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	if werr != nil {
		err = werr
	}
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		if buf != nil {
			b.pool.Put(buf)
		}
		return nil, 0, err
	}
	return buf, n, nil
}

// copyAll copies until src ends (nil) or an error of either side.
func (b *Buffers) copyAll(dst io.Writer, src syscall.RawConn, mu *sync.Mutex, count func(int, error)) error {
	for {
		buf, n, err := b.read(src, mu, count)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		_, err = dst.Write(buf[:n])
		b.pool.Put(buf)
		if err != nil {
			return err
		}
	}
}

// Pipe makes a pipe of which one end is the process's, a blocking descriptor
// that is its owner's to close, and one ours.
func Pipe(processReads bool) (process int, ours *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, nil, os.NewSyscallError("pipe2", err)
	}
	process, mine := fds[1], fds[0]
	if processReads {
		process, mine = fds[0], fds[1]
	}
	if err := unix.SetNonblock(mine, true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return -1, nil, os.NewSyscallError("fcntl", err)
	}
	return process, os.NewFile(uintptr(mine), "pipe"), nil
}
