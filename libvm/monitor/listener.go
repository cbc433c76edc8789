package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/guest"
	"runv/libvm/notifyfd"
	"runv/libvm/seccomp"
	"runv/libvm/state"
	"runv/libvm/thread"
)

// listeners give the supervisor of a seccomp profile its descriptors, one for each
// process that gets the filter (runtime-spec v1.3 config-linux.md "Container Process
// State").
type listeners struct {
	fs       *notifyfd.FS
	path     *os.File // O_PATH of the supervisor's socket
	proc     *os.File // O_PATH of /proc/self/fd
	metadata string
	log      *slog.Logger
}

// openListeners opens what it takes while its path leads there; nil if the profile
// notifies nobody.
func (m *monitor) openListeners() (*listeners, error) {
	if m.spec.Linux == nil || !seccomp.Notifies(m.spec.Linux.Seccomp) {
		return nil, nil
	}
	p := m.spec.Linux.Seccomp
	open := func(path string, flags int) (*os.File, error) {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|flags, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		return os.NewFile(uintptr(fd), path), nil
	}
	l := &listeners{metadata: p.ListenerMetadata, log: m.log}
	var err error
	if l.path, err = open(p.ListenerPath, 0); err != nil {
		return nil, fmt.Errorf("failed to connect with seccomp agent specified in the seccomp profile: %w", err)
	}
	if l.proc, err = open("/proc/self/fd", unix.O_DIRECTORY); err == nil {
		l.fs, err = notifyfd.New()
	}
	if err != nil {
		l.close()
		return nil, fmt.Errorf("linux.seccomp.listenerPath: %w (the host's kernel needs FUSE)", err)
	}
	return l, nil
}

func (l *listeners) close() {
	if l.fs != nil {
		l.fs.Close()
	}
	for _, f := range []*os.File{l.path, l.proc} {
		if f != nil {
			f.Close() //nolint:errcheck // O_PATH
		}
	}
}

// listen has the supervisor get the listener of a process, once the agent has opened
// its stream. It returns the stream's token, and what is to be called when the
// process has been made or not: it says why the supervisor has no listener.
func (l *listeners) listen(g *guest.Guest, s specs.State) (token []byte, finish func(made bool) error) {
	if l == nil {
		return nil, func(bool) error { return nil }
	}
	stream := g.NewStream()
	passed := make(chan error, 1)
	go func() { // ends with the stream, which Cancel ends, or the guest
		conn, err := stream.Wait(context.Background())
		if err == nil {
			if err = l.pass(conn, s); err != nil {
				l.log.Error("the seccomp agent has no listener: calls of the profile fail", "error", err)
			}
		}
		passed <- err
	}()
	return stream.Token, func(made bool) error {
		if made {
			return nil
		}
		stream.Cancel()
		return <-passed
	}
}

// pass sends the supervisor a descriptor of a listener whose stream is conn.
func (l *listeners) pass(conn net.Conn, s specs.State) error {
	f, err := l.fs.Open(conn)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // the supervisor has its own
	b, err := json.Marshal(specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: s.Pid, Metadata: l.metadata, State: s,
	})
	if err != nil {
		return err
	}
	if err := l.send(b, int(f.Fd())); err != nil {
		return fmt.Errorf("failed to connect with seccomp agent specified in the seccomp profile: %w", err)
	}
	return nil
}

func (l *listeners) send(b []byte, fd int) error {
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(sock) //nolint:errcheck // all was sent
	// A supervisor that takes nothing is not waited for, for ever.
	tv := unix.NsecToTimeval(int64(answerTime))
	if err := unix.SetsockoptTimeval(sock, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	err = thread.Own(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		if err := unix.Fchdir(int(l.proc.Fd())); err != nil {
			return os.NewSyscallError("fchdir", err)
		}
		return os.NewSyscallError("connect", unix.Connect(sock, &unix.SockaddrUnix{Name: strconv.Itoa(int(l.path.Fd()))}))
	})
	runtime.KeepAlive(l)
	if err != nil {
		return err
	}
	return os.NewSyscallError("sendmsg", unix.Sendmsg(sock, b, unix.UnixRights(fd), nil, 0))
}

// processState is the container's for a supervisor.
func (m *monitor) processState(s state.Status) specs.State {
	return *m.public(s, m.container.self.PID).OCI()
}
