// Package listener is the guest's end of a seccomp listener (seccomp_unotify(2)) whose
// supervisor is on the host, behind a stream (agent/wire, notify.go).
package listener

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"runv/agent/stream"
	"runv/agent/wire"
)

// findPause is how often a process is looked at that is about to make its filter.
const findPause = time.Millisecond

// Take waits until a process has made its listener, which it must not close before
// Take returns, and takes a copy. It gives up when the process has ended (done).
func Take(pid int, done <-chan struct{}) (int, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(pidfd)
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	for {
		if fd, ok := find(dir); ok {
			n, err := unix.PidfdGetfd(pidfd, fd, 0)
			return n, os.NewSyscallError("pidfd_getfd", err)
		}
		select {
		case <-done:
			return -1, errors.New("the process ended before it had a seccomp listener")
		case <-time.After(findPause):
		}
	}
}

// find returns the number of the seccomp listener among the descriptors of a process.
func find(dir string) (int, bool) {
	f, err := os.Open(dir)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return 0, false
	}
	for _, name := range names {
		if to, err := os.Readlink(dir + "/" + name); err == nil && to == "anon_inode:seccomp notify" {
			fd, err := strconv.Atoi(name)
			return fd, err == nil
		}
	}
	return 0, false
}

// Serve carries between a listener and its supervisor, and owns both. It returns at
// once; it ends when all processes of the filter have, or the supervisor has gone:
// then the calls that wait fail with ENOSYS, as they do without one.
func Serve(fd int, c stream.Conn) {
	l := &listener{fd: fd, conn: c}
	var both sync.WaitGroup
	both.Go(l.calls)
	both.Go(l.answers)
	go func() {
		both.Wait()
		unix.Close(fd)
	}()
}

type listener struct {
	fd   int
	conn stream.Conn

	mu sync.Mutex // of writes to conn
}

func (l *listener) send(m wire.NotifyMessage) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.conn.Write(m.Bytes())
	return err
}

// pollTime is how often the end of the supervisor is looked for while no call comes,
// in milliseconds.
const pollTime = 1000

// calls receives notifications.
func (l *listener) calls() {
	defer l.conn.Close()
	for {
		p := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, pollTime)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if n == 0 || err != nil {
			if !open(l.conn) {
				return
			}
			continue
		}
		if p[0].Revents&unix.POLLIN == 0 {
			return // nobody has the filter any more
		}
		b := make([]byte, wire.NotifSize)
		err = l.ioctl(wire.NotifRecv, b)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINTR) {
			continue // who called was killed
		}
		if err != nil || l.send(wire.NotifyMessage{Kind: wire.NotifyCall, Data: b}) != nil {
			return
		}
	}
}

// open says whether a connection has not been closed by this side.
func open(c stream.Conn) bool {
	raw, err := c.SyscallConn()
	return err == nil && raw.Control(func(uintptr) {}) == nil
}

// answers carries the supervisor's words to the kernel.
func (l *listener) answers() {
	defer l.conn.Close()
	for {
		m, err := wire.ReadNotify(l.conn)
		if err != nil {
			return
		}
		switch m.Kind {
		case wire.NotifyRespond:
			err = l.ioctl(wire.NotifSend, m.Data)
		case wire.NotifyValid:
			err = l.ioctl(wire.NotifIDValid, m.Data)
		default:
			return
		}
		var errno unix.Errno
		errors.As(err, &errno)
		if l.send(wire.ResultMessage(uint32(errno))) != nil {
			return
		}
	}
}

func (l *listener) ioctl(cmd uintptr, b []byte) error {
	// A copy that is aligned as the kernel's structs are.
	words := make([]uint64, (len(b)+7)/8)
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), cmd, uintptr(unsafe.Pointer(&words[0])))
	for i := range words {
		binary.LittleEndian.PutUint64(b[8*i:], words[i])
	}
	if e != 0 {
		return fmt.Errorf("ioctl: %w", e)
	}
	return nil
}
