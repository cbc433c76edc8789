package setup

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The conversation of agent and first process, one byte a message:
//
//	agent                 first process
//	  │ ── config (memfd) ──▶ │
//	  │                       │ namespaces, mounts, devices
//	  │ ◀── console + 2 fds ─ │ only with a terminal: master and slave
//	  │                       │ hostname, sysctl, masks, ids, capabilities
//	  │ ◀────── ready ─────── │
//	  │ rlimits, scheduling   │
//	  │ ─────── start ──────▶ │ StartContainer
//	  │                       │ seccomp, execve
//	  │ ◀──── (EOF) ───────── │ the socket was closed by execve
//
// Instead of any of its messages the first process may send failed, followed by
// the error's text, and exit.
const (
	msgConsole = 'c'
	msgReady   = 'r'
	msgStart   = 's'
	msgTaken   = 't' // the seccomp listener was taken: goes to Settings.Hold
	msgFailed  = 'f'
)

// maxError bounds the text of an error.
const maxError = 4096 // bytes

// Peer is the agent's end of the conversation.
type Peer struct{ f *os.File }

// NewPeer makes the socket pair. The second descriptor is to be the first
// process's.
func NewPeer() (*Peer, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return &Peer{os.NewFile(uintptr(fds[0]), "init")}, os.NewFile(uintptr(fds[1]), "agent"), nil
}

// ErrDied says that the first process ended without a word.
var ErrDied = errors.New("the container's init died while it was set up")

// Console waits for the terminal's two sides.
func (p *Peer) Console() (master, slave *os.File, err error) {
	kind, fds, err := p.receive()
	if err != nil {
		return nil, nil, err
	}
	if kind != msgConsole || len(fds) != 2 {
		for _, f := range fds {
			f.Close()
		}
		return nil, nil, fmt.Errorf("init sent %q with %d descriptors instead of its console", kind, len(fds))
	}
	return fds[0], fds[1], nil
}

// Ready waits until everything is set up.
func (p *Peer) Ready() error {
	kind, fds, err := p.receive()
	for _, f := range fds {
		f.Close()
	}
	if err == nil && kind != msgReady {
		err = fmt.Errorf("init sent %q instead of ready", kind)
	}
	return err
}

// Start lets the process exec, and waits until it did.
func (p *Peer) Start() error {
	if _, err := p.f.Write([]byte{msgStart}); err != nil {
		return ErrDied
	}
	kind, _, err := p.receive()
	if errors.Is(err, ErrDied) {
		return nil // the socket was closed: by execve, or by an early death, which Wait tells
	}
	if err == nil {
		err = fmt.Errorf("init sent %q after start", kind)
	}
	return err
}

// Release lets a process go on whose seccomp listener was taken (task.Settings.Hold).
func (p *Peer) Release() error {
	_, err := p.f.Write([]byte{msgTaken})
	return err
}

// Close ends the conversation: a process that was not started exits.
func (p *Peer) Close() error { return p.f.Close() }

func (p *Peer) receive() (kind byte, fds []*os.File, err error) {
	raw, err := p.f.SyscallConn()
	if err != nil {
		return 0, nil, err
	}
	var (
		buf  [1 + maxError]byte
		oob  [64]byte
		n, o int
	)
	rerr := raw.Read(func(fd uintptr) bool {
		n, o, _, _, err = unix.Recvmsg(int(fd), buf[:], oob[:], unix.MSG_CMSG_CLOEXEC)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if rerr != nil {
		return 0, nil, rerr
	}
	if n == 0 || errors.Is(err, unix.ECONNRESET) {
		return 0, nil, ErrDied
	}
	if err != nil {
		return 0, nil, os.NewSyscallError("recvmsg", err)
	}
	if buf[0] == msgFailed {
		return 0, nil, errors.New(string(buf[1:n]))
	}
	fds, err = rights(oob[:o])
	return buf[0], fds, err
}

func rights(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "console"))
		}
	}
	return files, nil
}

// The first process's side.

func (f files) sendFailed(err error) {
	text := err.Error()
	if len(text) > maxError {
		text = text[:maxError]
	}
	_, _ = unix.Write(f.sync(), append([]byte{msgFailed}, text...))
}

func (f files) sendConsole(master, slave int) error {
	if err := unix.Sendmsg(f.sync(), []byte{msgConsole}, unix.UnixRights(master, slave), nil, 0); err != nil {
		return os.NewSyscallError("sendmsg", err)
	}
	return nil
}

// awaitStart says that all is ready, and waits for the word to go.
func (f files) awaitStart() error {
	if _, err := unix.Write(f.sync(), []byte{msgReady}); err != nil {
		return os.NewSyscallError("write", err)
	}
	var b [1]byte
	for {
		n, err := unix.Read(f.sync(), b[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n == 1 && b[0] == msgStart {
			return nil
		}
		return errors.New("the agent gave up")
	}
}
