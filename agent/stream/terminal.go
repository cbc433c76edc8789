package stream

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxPending is above what a pty holds between its two sides, so that a process
// which outlives the one that we wait for, and never stops writing, does not
// keep Settle.
const maxPending = 80 << 10 // bytes

// Terminal carries both directions of a pty. It ends when the host closes the
// connection, which hangs the terminal up, or when nobody has it open.
type Terminal struct {
	conn   Conn
	master *os.File
	raw    syscall.RawConn
	done   chan struct{}
	peer   chan struct{} // closed when the host's direction has ended
	moved  chan struct{} // told after each read of the master

	mu    sync.Mutex
	total uint64 // bytes read from the master
	slave *os.File
}

// NewTerminal starts to copy between conn and master. slave is the other side of
// master: as long as it is open, here or in a process, the terminal lives; it is
// kept until Release. All three are the Terminal's.
func (b *Buffers) NewTerminal(conn Conn, master, slave *os.File) (*Terminal, error) {
	out, err := master.SyscallConn()
	if err != nil {
		return nil, err
	}
	in, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	t := &Terminal{
		conn: conn, master: master, raw: out, slave: slave,
		done: make(chan struct{}), peer: make(chan struct{}), moved: make(chan struct{}, 1),
	}
	go func() {
		defer close(t.peer)
		_ = b.copyAll(master, in, nil, nil)
		master.Close() // the host hung up
	}()
	go func() {
		err := b.copyAll(conn, out, &t.mu, t.count)
		if errors.Is(err, unix.EIO) {
			err = nil // the other side of the pty is closed: its EOF
		}
		finish(conn, err, t.done, t.peer)
		master.Close()
	}()
	return t, nil
}

func (t *Terminal) count(n int, _ error) {
	if n > 0 {
		t.total += uint64(n)
	}
	select {
	case t.moved <- struct{}{}:
	default:
	}
}

// Resize sets the window size in characters. The foreground processes get
// SIGWINCH if it changed.
func (t *Terminal) Resize(rows, cols uint16) error {
	var err error
	cerr := t.raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	if cerr != nil {
		return cerr
	}
	return os.NewSyscallError("ioctl", err)
}

// Release lets the terminal end with the last process that has it open.
func (t *Terminal) Release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slave != nil {
		t.slave.Close()
		t.slave = nil
	}
}

// Settle waits until what the process had written when Settle was called is
// read, and returns how many bytes were read by then. The process has ended.
func (t *Terminal) Settle() uint64 {
	t.mu.Lock()
	limit := t.total + maxPending
	t.mu.Unlock()
	for {
		total, pending := t.pending()
		if !pending || total >= limit {
			return total
		}
		select {
		case <-t.moved:
		case <-t.done:
			t.mu.Lock()
			defer t.mu.Unlock()
			return t.total
		}
	}
}

// pending says whether the master has something to read. poll(2) makes the
// kernel flush what is on its way between the sides, which FIONREAD does not.
func (t *Terminal) pending() (uint64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var p [1]unix.PollFd
	err := t.raw.Control(func(fd uintptr) {
		p[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
		for {
			if _, err := unix.Poll(p[:], 0); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
	return t.total, err == nil && p[0].Revents&unix.POLLIN != 0
}

// Done is closed when the terminal has ended and everything is with the host.
func (t *Terminal) Done() <-chan struct{} { return t.done }

// Close ends the copying and waits for it.
func (t *Terminal) Close() {
	t.Release()
	t.master.Close()
	t.conn.Close()
	<-t.done
	<-t.peer
}
