package stream

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Duplex carries both directions of a socket of a process. Each direction ends
// by itself, as after shutdown(2). It ends when both have, when all who have the
// process's end open are gone, when the host's socket is, or by Close.
//
// A connection that is closed says so in one packet: who reads its end, and may
// write no more, knows that it was not only shut down.
type Duplex struct {
	conn Conn
	ours *os.File // the other end of the process's socket
	raw  syscall.RawConn
	peer syscall.RawConn // of conn
	done chan struct{}   // closed when the direction to the host has ended
	over chan struct{}   // closed when both have
	in   chan struct{}   // closed when the direction from the host has ended

	mu    sync.Mutex
	total uint64 // bytes read from ours
}

// NewDuplex starts to copy between conn and ours, both of which it owns.
func (b *Buffers) NewDuplex(conn Conn, ours *os.File) (*Duplex, error) {
	raw, err := ours.SyscallConn()
	peer, perr := conn.SyscallConn()
	if err := errors.Join(err, perr); err != nil {
		conn.Close()
		ours.Close()
		return nil, err
	}
	d := &Duplex{
		conn: conn, ours: ours, raw: raw, peer: peer,
		done: make(chan struct{}), over: make(chan struct{}), in: make(chan struct{}),
	}
	go d.input(b)
	go d.output(b)
	return d, nil
}

// input copies from the host.
func (d *Duplex) input(b *Buffers) {
	defer close(d.in)
	err := b.copyAll(d.ours, d.peer, nil, nil)
	switch {
	case errors.Is(err, unix.EPIPE): // the process does not read
		_ = shutdown(d.peer, unix.SHUT_RD)
	case err != nil || !takes(d.peer): // the host has closed its socket
		d.ours.Close()
	default:
		_ = shutdown(d.raw, unix.SHUT_WR)
	}
}

// output copies to the host.
func (d *Duplex) output(b *Buffers) {
	defer close(d.over)
	err := b.copyAll(d.conn, d.raw, &d.mu, d.count)
	switch {
	case err == nil && !hungUp(d.raw):
		_ = d.conn.CloseWrite()
	case errors.Is(err, unix.EPIPE): // nobody on the host reads
		_ = shutdown(d.raw, unix.SHUT_RD)
		// A socket that is closed with something unread resets the other end.
		_ = b.copyAll(io.Discard, d.raw, nil, nil)
	default:
		d.ours.Close()
		d.conn.Close()
	}
	close(d.done)
	// One direction may go on until the process closes its end.
	_ = d.raw.Read(pollHangUp)
	d.conn.Close()
	d.ours.Close()
	<-d.in
}

func (d *Duplex) count(n int, _ error) {
	if n > 0 {
		d.total += uint64(n)
	}
}

// Written is Output's.
func (d *Duplex) Written() uint64 { return written(d.raw, &d.mu, &d.total) }

// Done is closed when everything that the process wrote is with the host.
func (d *Duplex) Done() <-chan struct{} { return d.done }

// Over is closed when both directions have ended.
func (d *Duplex) Over() <-chan struct{} { return d.over }

// HungUp says whether the process's end is closed.
func (d *Duplex) HungUp() bool { return hungUp(d.raw) }

// Close ends the copying and waits for it.
func (d *Duplex) Close() {
	d.ours.Close()
	d.conn.Close()
	<-d.over
}

// pollHangUp says whether both directions of a socket, or all readers of a pipe,
// are gone.
func pollHangUp(fd uintptr) bool {
	p := [1]unix.PollFd{{Fd: int32(fd)}}
	for {
		if _, err := unix.Poll(p[:], 0); !errors.Is(err, unix.EINTR) {
			return err != nil || p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
		}
	}
}

// HungUp says whether the other end of a socket is closed.
func HungUp(f *os.File) bool {
	raw, err := f.SyscallConn()
	return err != nil || hungUp(raw)
}

func hungUp(c syscall.RawConn) (yes bool) {
	err := c.Control(func(fd uintptr) { yes = pollHangUp(fd) })
	return err != nil || yes
}

// takes says whether the other side of a connection would take data.
func takes(c syscall.RawConn) bool {
	var err error
	cerr := c.Control(func(fd uintptr) { err = unix.Send(int(fd), nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT) })
	return cerr == nil && (err == nil || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR))
}

func shutdown(c syscall.RawConn, how int) error {
	var err error
	cerr := c.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), how) })
	return errors.Join(os.NewSyscallError("shutdown", err), cerr)
}

// Socket makes a pair of sockets, of which one end is the process's, a blocking
// descriptor that is its owner's to close, and one ours.
func Socket() (process int, ours *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, os.NewSyscallError("socketpair", err)
	}
	if err := unix.SetNonblock(fds[1], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return -1, nil, os.NewSyscallError("fcntl", err)
	}
	return fds[0], os.NewFile(uintptr(fds[1]), "socket"), nil
}
