package vhostuser

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ring is what the front-end has said about one queue.
//
//	SET_VRING_CALL                       when the front-end starts: the ring is used
//	SET_VRING_NUM, BASE, ADDR, KICK      when the guest's driver is ready
//	SET_VRING_ENABLE 1                   … and then the queue is served
//	SET_VRING_ENABLE 0, GET_VRING_BASE   when the guest resets, or pauses
type ring struct {
	size    uint16 // descriptors
	addr    vringAddr
	placed  bool   // addr is set
	next    uint16 // index of the next available entry
	enabled bool
	known   bool // a CALL came for it, with or without a descriptor
	kick    int  // eventfd, or -1: the ring is stopped
	call    notifier
	fault   notifier // "err"
}

// ready says whether the driver has set the ring up.
func (r *ring) ready() bool { return r.kick >= 0 && r.placed && r.size > 0 }

func (r *ring) setKick(fd int) {
	if r.kick >= 0 {
		unix.Close(r.kick) //nolint:errcheck // an eventfd
	}
	r.kick = fd
}

// reset forgets what the driver said; what the front-end said stays.
func (r *ring) reset() {
	r.setKick(-1)
	r.size, r.addr, r.placed, r.next, r.enabled = 0, vringAddr{}, false, 0, false
}

func (r *ring) close() {
	r.setKick(-1)
	r.call.set(-1)
	r.fault.set(-1)
}

// notifier is the eventfd by which the front-end is told something. It may be
// exchanged while device goroutines signal.
type notifier struct {
	mu sync.Mutex
	fd int // -1: nobody wants to know
}

func (n *notifier) set(fd int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fd >= 0 {
		unix.Close(n.fd) //nolint:errcheck // an eventfd
	}
	n.fd = fd
}

// signal does not block: an eventfd whose counter is full says all there is to
// say.
func (n *notifier) signal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fd >= 0 {
		unix.Write(n.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) //nolint:errcheck // see above
	}
}

// checkEvent makes sure that fd is something like an eventfd, on which neither
// a read nor a write can hang: an anonymous inode (they have no file type), read
// and written, pollable, and not blocking from now on.
func checkEvent(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if st.Mode&unix.S_IFMT != 0 || flags&unix.O_ACCMODE != unix.O_RDWR {
		return fmt.Errorf("descriptor is not an eventfd (mode %#o flags %#x)", st.Mode, flags)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	return pollable(fd)
}

// pollable asks epoll for its opinion, as Go's poller will.
func pollable(fd int) error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	defer unix.Close(ep) //nolint:errcheck // an epoll
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	return nil
}
