package monitor

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/inherit"
	"runv/libvm/log"
)

// takeOver reads what the creator has to say and takes the inherited files, so
// that nothing of the caller's stays open by accident.
func takeOver() (*monitor, error) {
	f := os.NewFile(fdHandshake, "creator")
	conn, err := net.FileConn(f)
	f.Close() //nolint:errcheck // FileConn made a duplicate
	if err != nil {
		return nil, fmt.Errorf("%s is not a command for users: %w", Command, err)
	}
	m := &monitor{sock: conn.(*net.UnixConn), log: slog.New(slog.DiscardHandler), hooked: make(chan struct{})}
	dec := json.NewDecoder(m.sock)
	if err := dec.Decode(&m.launch); err != nil {
		return nil, fmt.Errorf("read launch: %w", err)
	}
	m.words = io.MultiReader(dec.Buffered(), m.sock) // it may have read further
	if !m.launch.Hooked {
		close(m.hooked)
	}
	if err := json.Unmarshal(m.launch.Spec, &m.spec); err != nil {
		return nil, fmt.Errorf("read spec: %w", err)
	}
	m.inheritNoFile()
	m.umask = unix.Umask(0)
	unix.Umask(m.umask)
	next := uintptr(fdOptional)
	take := func(name string) *os.File {
		f := os.NewFile(next, name)
		unix.CloseOnExec(int(next))
		next++
		return f
	}
	if m.launch.Terminal {
		m.console = take("console socket")
	}
	if m.launch.LogFile {
		m.log = log.New(take("log"), m.launch.LogJSON, m.launch.Debug)
	}
	if m.launch.StandIn != nil {
		f := take("stand-in")
		m.standIn, err = net.FileConn(f)
		f.Close() //nolint:errcheck // FileConn made a duplicate
		if err != nil {
			return nil, fmt.Errorf("stand-in: %w", err)
		}
		m.standInGone = make(chan struct{})
	}
	for i, a := range m.launch.Extra {
		m.stdio.extra = append(m.stdio.extra, inherit.File{Access: a, File: take("fd " + strconv.Itoa(inherit.First+i))})
	}
	return m, m.takeStdio()
}

// maxNoFile is fs.nr_open of the guest, above which no limit of open files can be.
const maxNoFile = 1 << 20

// inheritNoFile gives the workload the caller's limit of open files if its config
// does not set one.
func (m *monitor) inheritNoFile() {
	const name = "RLIMIT_NOFILE"
	p := m.spec.Process
	if p == nil || slices.ContainsFunc(p.Rlimits, func(r specs.POSIXRlimit) bool { return r.Type == name }) {
		return
	}
	l := m.launch.NoFile
	p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: name, Soft: min(l.Cur, maxNoFile), Hard: min(l.Max, maxNoFile)})
}

// takeStdio moves the workload's stdio out of the way of our own: Go writes a
// crash to descriptor 2, and a broken pipe on 1 or 2 would end us.
func (m *monitor) takeStdio() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close() //nolint:errcheck // duplicated below
	for fd, dst := range []**os.File{&m.stdio.stdin, &m.stdio.stdout, &m.stdio.stderr} {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, fdOptional)
		if err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		*dst = os.NewFile(uintptr(dup), "stdio")
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	if m.launch.Terminal {
		extra := m.stdio.extra
		m.stdio.extra = nil
		m.stdio.close()
		m.stdio = files{extra: extra}
	}
	m.stdio.dropNull()
	return nil
}
