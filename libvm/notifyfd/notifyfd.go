// Package notifyfd makes descriptors that answer the ioctls of a seccomp listener
// (seccomp_unotify(2)) for a listener of another kernel: the guest's. Each is an open
// file of a FUSE file system that this process serves, since of all files of user
// space only those of FUSE pass ioctls on.
//
//	supervisor: SECCOMP_IOCTL_NOTIF_RECV ──FUSE_IOCTL──▶ FS ◀──stream── agent: its listener
//
// What the guest's kernel says of a call is passed on, but for the pid, which is 0, as
// for a process that the supervisor's pid namespace does not have: a process of the
// host must not be taken for one of the guest. SECCOMP_IOCTL_NOTIF_ADDFD fails.
package notifyfd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"runv/agent/wire"
)

// notifIDWrong is wire.NotifIDValid with the wrong direction, as Linux 5.0 had it.
const notifIDWrong = 2<<30 | 8<<16 | '!'<<8 | 2

// maxWaiting bounds the notifications that no supervisor has received yet, and the
// ioctls of supervisors that wait: beyond them the guest's calls, and ioctls, fail.
const maxWaiting = 1024

// askTime is how long a guest may leave an answer of its supervisor unread.
const askTime = 5 * time.Second

// FS is the file system. It serves any number of listeners.
type FS struct {
	dev   *os.File
	root  int // O_PATH
	proc  int // O_PATH of /proc/self/fd
	ended chan struct{}

	opening sync.Mutex // one at a time

	mu    sync.Mutex
	next  net.Conn // the stream of the file that is being opened
	files map[uint64]*listener
	last  uint64
}

// listener is one open file.
type listener struct {
	conn    net.Conn
	calls   [][]byte // notifications that were not received
	waiting []uint64 // requests that wait for one
	asked   []uint64 // requests that wait for the agent's answer, in order
	poll    uint64   // whom to tell of a change
	polled  bool
	closed  bool
}

// New mounts the file system, which takes CAP_SYS_ADMIN, and begins to serve it.
func New() (*FS, error) {
	f := &FS{ended: make(chan struct{}), files: map[uint64]*listener{}}
	var err error
	if f.proc, err = unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, &os.PathError{Op: "open", Path: "/proc/self/fd", Err: err}
	}
	if f.dev, f.root, err = mount(); err != nil {
		unix.Close(f.proc) //nolint:errcheck // a directory
		return nil, err
	}
	go f.serve()
	return f, nil
}

// Open makes the descriptor for a listener whose stream is conn, which is its own.
// The caller passes the file on and closes it; the stream ends with its last copy.
func (f *FS) Open(conn net.Conn) (*os.File, error) {
	f.opening.Lock()
	defer f.opening.Unlock()
	f.mu.Lock()
	f.next = conn
	f.mu.Unlock()
	fd, err := unix.Openat(f.proc, fmt.Sprint(f.root), unix.O_RDWR|unix.O_CLOEXEC, 0)
	f.mu.Lock()
	f.next = nil
	f.mu.Unlock()
	if err != nil {
		conn.Close() //nolint:errcheck // unused
		return nil, &os.PathError{Op: "open", Path: "seccomp listener", Err: err}
	}
	return os.NewFile(uintptr(fd), "seccomp listener"), nil
}

// Close ends all listeners. A supervisor that still has one is told so.
func (f *FS) Close() {
	f.mu.Lock()
	for _, l := range f.files {
		l.conn.Close() //nolint:errcheck // its reader sees it
	}
	f.mu.Unlock()
	unix.Close(f.root) //nolint:errcheck // O_PATH
	unix.Close(f.proc) //nolint:errcheck // O_PATH
	f.dev.Close()      //nolint:errcheck // the kernel answers from now on
	<-f.ended
}

// serve answers the kernel until the file system is closed, or its last file is.
func (f *FS) serve() {
	defer close(f.ended)
	buf := make([]byte, bufferSize)
	for {
		n, err := f.dev.Read(buf)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINTR) {
			continue // interrupted
		}
		if err != nil || n < int(sizeofInHeader) {
			return
		}
		h := *(*inHeader)(unsafe.Pointer(&buf[0]))
		f.request(&h, buf[sizeofInHeader:n])
	}
}

func (f *FS) request(h *inHeader, in []byte) {
	switch h.opcode {
	case opInit:
		f.reply(h.unique, 0, initReply())
	case opGetattr:
		f.reply(h.unique, 0, attrReply())
	case opOpen:
		f.open(h.unique)
	case opFlush:
		f.reply(h.unique, 0, nil)
	case opRelease:
		f.release(binary.NativeEndian.Uint64(in))
		f.reply(h.unique, 0, nil)
	case opIoctl:
		f.ioctl(h.unique, in)
	case opPoll:
		f.poll(h.unique, in)
	case opInterrupt:
		f.interrupt(binary.NativeEndian.Uint64(in))
	case opForget, opBatch:
	default:
		f.reply(h.unique, unix.ENOSYS, nil)
	}
}

func (f *FS) open(unique uint64) {
	f.mu.Lock()
	if f.next == nil {
		f.mu.Unlock()
		f.reply(unique, unix.EACCES, nil) // somebody else, by /proc/<pid>/fd
		return
	}
	f.last++
	fh := f.last
	l := &listener{conn: f.next}
	f.next = nil
	f.files[fh] = l
	f.mu.Unlock()
	go f.receive(l)
	f.reply(unique, 0, openReply(fh))
}

// release is the end of the last copy of a descriptor: the agent closes its listener,
// and the guest's kernel answers ENOSYS to those who wait.
func (f *FS) release(fh uint64) {
	f.mu.Lock()
	l := f.files[fh]
	delete(f.files, fh)
	f.mu.Unlock()
	if l != nil {
		l.conn.Close() //nolint:errcheck // its end
	}
}

// receive reads what the agent has to say until the stream ends.
func (f *FS) receive(l *listener) {
	r := bufio.NewReader(l.conn)
	for {
		m, err := wire.ReadNotify(r)
		if err == nil {
			err = f.message(l, m)
		}
		if err != nil {
			break
		}
	}
	l.conn.Close() //nolint:errcheck // it has ended
	f.mu.Lock()
	defer f.mu.Unlock()
	l.closed = true
	for _, u := range append(l.waiting, l.asked...) {
		f.reply(u, unix.ENOENT, nil)
	}
	l.waiting, l.asked = nil, nil
	f.wake(l)
}

func (f *FS) message(l *listener, m wire.NotifyMessage) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch m.Kind {
	case wire.NotifyCall:
		clear(m.Data[8:12]) // the pid
		if len(l.calls) >= maxWaiting {
			return errors.New("too many calls wait")
		}
		l.calls = append(l.calls, m.Data)
		f.deliver(l)
	case wire.NotifyResult:
		if len(l.asked) == 0 {
			return errors.New("an answer that nobody asked for")
		}
		errno := binary.LittleEndian.Uint32(m.Data)
		if errno > maxErrno {
			errno = uint32(unix.EIO)
		}
		f.reply(l.asked[0], 0, ioctlReply(-int32(errno), make([]byte, 0)))
		l.asked = l.asked[1:]
	default:
		return fmt.Errorf("message %q", m.Kind)
	}
	return nil
}

// maxErrno is MAX_ERRNO of linux/err.h.
const maxErrno = 4095

// deliver gives notifications to those who wait for one. Called with f.mu.
func (f *FS) deliver(l *listener) {
	for len(l.calls) > 0 && len(l.waiting) > 0 {
		f.reply(l.waiting[0], 0, ioctlReply(0, l.calls[0]))
		l.calls, l.waiting = l.calls[1:], l.waiting[1:]
	}
	f.wake(l)
}

// wake tells who polls. Called with f.mu.
func (f *FS) wake(l *listener) {
	if l.polled && (len(l.calls) > 0 || l.closed) {
		l.polled = false
		f.write(outHeader{len: uint32(sizeofOutHeader) + 8, error: notifyPoll}, binary.NativeEndian.AppendUint64(nil, l.poll))
	}
}

func (f *FS) ioctl(unique uint64, b []byte) {
	if len(b) < int(sizeofIoctlIn) {
		f.reply(unique, unix.EINVAL, nil)
		return
	}
	in := *(*ioctlIn)(unsafe.Pointer(&b[0]))
	data := b[sizeofIoctlIn:]
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.files[in.fh]
	switch {
	case l == nil:
		f.reply(unique, unix.EBADF, nil)
	case len(l.waiting)+len(l.asked) >= maxWaiting:
		f.reply(unique, unix.ENOMEM, nil)
	case in.cmd == wire.NotifRecv && l.closed && len(l.calls) == 0:
		f.reply(unique, unix.ENOENT, nil)
	case in.cmd == wire.NotifRecv:
		l.waiting = append(l.waiting, unique)
		f.deliver(l)
	case in.cmd == wire.NotifSend && len(data) == wire.RespSize:
		f.ask(l, unique, wire.NotifyMessage{Kind: wire.NotifyRespond, Data: data})
	case (in.cmd == wire.NotifIDValid || in.cmd == notifIDWrong) && len(data) == 8:
		f.ask(l, unique, wire.NotifyMessage{Kind: wire.NotifyValid, Data: data})
	default:
		f.reply(unique, 0, ioctlReply(-int32(unix.EOPNOTSUPP), nil))
	}
}

// ask sends a message that the agent answers. Called with f.mu, so that answers come
// in the order of asked; a guest that takes nothing loses its supervisor.
func (f *FS) ask(l *listener, unique uint64, m wire.NotifyMessage) {
	if l.closed {
		f.reply(unique, unix.ENOENT, nil)
		return
	}
	l.asked = append(l.asked, unique)
	l.conn.SetWriteDeadline(time.Now().Add(askTime)) //nolint:errcheck // a closed connection fails the write
	if _, err := l.conn.Write(m.Bytes()); err != nil {
		l.conn.Close() //nolint:errcheck // receive answers
	}
}

func (f *FS) poll(unique uint64, b []byte) {
	if len(b) < int(sizeofPollIn) {
		f.reply(unique, unix.EINVAL, nil)
		return
	}
	in := *(*pollIn)(unsafe.Pointer(&b[0]))
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.files[in.fh]
	var events uint32
	switch {
	case l == nil || l.closed:
		events = unix.POLLHUP
	case len(l.calls) > 0:
		events = unix.POLLIN
	case in.flags&pollSchedule != 0:
		l.poll, l.polled = in.kh, true
	}
	f.reply(unique, 0, pollReply(events))
}

// interrupt is a signal for who waits in an ioctl.
func (f *FS) interrupt(unique uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.files {
		for i, u := range l.waiting {
			if u == unique {
				l.waiting = append(l.waiting[:i:i], l.waiting[i+1:]...)
				f.reply(unique, unix.EINTR, nil)
				return
			}
		}
	}
}
