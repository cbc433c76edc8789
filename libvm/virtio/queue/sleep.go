package queue

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"runv/libvm/thread"
)

// Dedicate has Wait block the thread that calls it, from now on, instead of
// parking the goroutine. A notification then costs one system call and wakes one
// thread. Through Go's poller it costs a read that succeeds, one that does not,
// and several epoll_pwait, futex and nanosleep calls of threads that look for
// work: more than a short request itself.
//
// The price is a thread while the device is idle, so it is for queues on which
// latency counts. It is called before the first Wait. Where the kick is no file,
// nothing changes.
func (q *Queue) Dedicate() error {
	kick, ok := q.kick.(syscall.Conn)
	if !ok || q.sleeper.Load() != nil {
		return nil
	}
	s, err := newSleeper(kick)
	if err != nil {
		if q.closed.Load() {
			return ErrClosed
		}
		return err
	}
	q.sleeper.Store(s)
	q.kick.Close() //nolint:errcheck // an eventfd; Go's poller is not to wake for it any more
	if q.closed.Load() {
		s.stop()
	}
	return nil
}

// sleeper waits for an eventfd in an epoll instance of its own, edge-triggered:
// each notification ends one wait, and nobody has to read the counter.
type sleeper struct {
	epoll, kick, ended int          // descriptors; ended is an eventfd
	refs               atomic.Int32 // one until stop, one for each wait
	place              func()       // frees that of its thread
	once               sync.Once
}

func newSleeper(kick syscall.Conn) (*sleeper, error) {
	s := &sleeper{epoll: -1, kick: -1, ended: -1, place: thread.Reserve(1)}
	s.refs.Store(1)
	if err := s.open(kick); err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

func (s *sleeper) open(kick syscall.Conn) error {
	conn, err := kick.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) { s.kick, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if cerr != nil {
		return cerr
	}
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if s.ended, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	for fd, events := range map[int]uint32{s.kick: unix.EPOLLIN | unix.EPOLLET, s.ended: unix.EPOLLIN} {
		e := unix.EpollEvent{Events: events, Fd: int32(fd)}
		if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
			return os.NewSyscallError("epoll_ctl", err)
		}
	}
	return nil
}

// wait returns when there was a notification since it last did, or after stop.
func (s *sleeper) wait() error {
	for {
		r := s.refs.Load()
		if r == 0 {
			return nil
		}
		if s.refs.CompareAndSwap(r, r+1) {
			break
		}
	}
	defer s.release()
	var events [2]unix.EpollEvent
	n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.epoll), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), hotMillis, 0, 0)
	for e != 0 || n == 0 {
		_, err := unix.EpollWait(s.epoll, events[:], -1)
		if err != unix.EINTR {
			return os.NewSyscallError("epoll_wait", err)
		}
	}
	return nil
}

// hotMillis is for how many ms Go's scheduler takes a waiting thread for a
// running one. Otherwise, as long as requests follow one another at once, its
// monitor wakes up every 20 µs to see whether the processor that the thread holds
// is of better use to another. Garbage collection interrupts it by a signal; for
// all else there is the place that others have then (thread.Reserve).
const hotMillis = 3

// stop ends each wait, now and later.
func (s *sleeper) stop() {
	s.once.Do(func() {
		unix.Write(s.ended, []byte{1, 0, 0, 0, 0, 0, 0, 0}) //nolint:errcheck // an eventfd with room
		s.release()
	})
}

func (s *sleeper) release() {
	if s.refs.Add(-1) > 0 {
		return
	}
	s.place()
	for _, fd := range []int{s.epoll, s.kick, s.ended} {
		if fd >= 0 {
			unix.Close(fd) //nolint:errcheck // nothing is written to them
		}
	}
}
