// Package ctl is the protocol between the runv commands and the monitor of a
// container, over the Unix stream socket ctl.sock in the state directory.
//
// A message is its length (4 bytes, little endian) and that many bytes of JSON;
// file descriptors travel with the length (SCM_RIGHTS).
//
//	command                            monitor
//	   | -- start | signal | pause … ----> |
//	   | <------------- ok | error ------- |      and so on, until hang-up
//	   |                                   |
//	   | -- exec + 3 fds or 1 tty,         |
//	   |         + further fds ----------> |
//	   | <------------- ok(pid) | error -- |  the process exec'd in the guest
//	   | -- signal | resize -------------> |  any number, no answer
//	   | <------------- exit(status) ----- |  its streams are drained
//	   | (hang-up before: SIGKILL for the process)
package ctl

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/inherit"
	"runv/libvm/state"
)

// Limits of a message. A process with the longest argument list that Linux
// takes (ARG_MAX, 2 MiB on x86-64 by default; every byte can be 6 in JSON)
// fits.
const (
	maxMessage = 16 << 20        // bytes of JSON
	maxFiles   = 3 + inherit.Max // stdin, stdout, stderr; or the terminal; and further ones
)

// The types of messages.
const (
	typeStart     = "start"
	typeSignal    = "signal"
	typeProcesses = "processes"
	typeReady     = "ready"
	typePause     = "pause"
	typeResume    = "resume"
	typeExec      = "exec"
	typeResize    = "resize"
	typePlace     = "place"
	typeUpdate    = "update"
	typeMetrics   = "metrics"
	typeOOM       = "oom"
	typeOK        = "ok"
	typeError     = "error"
	typeExit      = "exit"
)

// message is every message in one; the fields that a type does not use are
// absent.
type message struct {
	Type      string           `json:"type"`
	Signal    int              `json:"signal,omitempty"`    // number on x86-64
	All       bool             `json:"all,omitempty"`       // every process of the container
	Process   json.RawMessage  `json:"process,omitempty"`   // runtime-spec Process
	Rows      uint16           `json:"rows,omitempty"`      // characters
	Cols      uint16           `json:"cols,omitempty"`      // characters
	Extra     []inherit.Access `json:"extra,omitempty"`     // of the files behind stdio or terminal
	PID       int              `json:"pid,omitempty"`       // in the guest
	Status    int              `json:"status,omitempty"`    // exit status, or 128 + signal
	Error     string           `json:"error,omitempty"`     // one line
	Processes []Process        `json:"processes,omitempty"` // in order of pid
	Cgroup    *state.Cgroup    `json:"cgroup,omitempty"`    // the container's on the host
	Below     string           `json:"below,omitempty"`     // path of a cgroup below the container's in the guest
	Metrics   Metrics          `json:"metrics,omitempty"`
	Killed    uint64           `json:"killed,omitempty"` // processes, for want of memory
	Ended     bool             `json:"ended,omitempty"`  // the container has

	Resources *specs.LinuxResources `json:"resources,omitempty"`
}

// Metrics are files of the container's cgroup in the guest by their names, and its
// network namespace's /proc/net/dev as "net/dev".
type Metrics map[string]string

// Process is a process in the guest.
type Process struct {
	PID          int    `json:"pid"`          // in the guest's root pid namespace
	PPID         int    `json:"ppid"`         // the parent's, in the same namespace
	ContainerPID int    `json:"containerPid"` // in the container's pid namespace
	UID          uint32 `json:"uid"`          // in the guest's root user namespace
	Comm         string `json:"comm"`         // command name, at most 15 bytes
	Args         string `json:"args"`         // argument list, joined by spaces

	TTY       uint32 `json:"tty,omitempty"`       // number of the controlling terminal, proc_pid_stat(5) (7); 0: none
	ElapsedMs uint64 `json:"elapsedMs,omitempty"` // since its start
	CPUMs     uint64 `json:"cpuMs,omitempty"`     // used
	Stat      string `json:"stat,omitempty"`      // state and marks, as STAT of ps(1)
	Nice      int32  `json:"nice,omitempty"`
	Threads   uint32 `json:"threads,omitempty"`
	RSS       uint64 `json:"rss,omitempty"`    // bytes
	VSize     uint64 `json:"vsize,omitempty"`  // bytes
	Pgid      int    `json:"pgid,omitempty"`   // in the container's pid namespace
	Sid       int    `json:"sid,omitempty"`    // in the container's pid namespace
	Memory    uint32 `json:"memory,omitempty"` // RSS, thousandths of the guest's memory
}

// decode parses the JSON of a message.
func decode(b []byte) (message, error) {
	var m message
	if err := json.Unmarshal(b, &m); err != nil {
		return message{}, fmt.Errorf("parse control message: %w", err)
	}
	if m.Type == "" {
		return message{}, errors.New("parse control message: no type")
	}
	return m, nil
}

// send writes a message, its files along with the first byte.
func send(c *net.UnixConn, m message, files ...*os.File) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode control message: %w", err)
	}
	if len(b) > maxMessage {
		return fmt.Errorf("control message %q has %d bytes, more than %d", m.Type, len(b), maxMessage)
	}
	var head [4]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(b)))
	rest := append(head[:], b...)
	if len(files) > 0 {
		n, err := sendFiles(c, head[:], files)
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	_, err = c.Write(rest)
	return err
}

func sendFiles(c *net.UnixConn, head []byte, files []*os.File) (int, error) {
	fds := make([]int, len(files))
	for i, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			return 0, err
		}
		// Fd() would make the file blocking behind its owner's back.
		if err := raw.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
			return 0, err
		}
	}
	n, _, err := c.WriteMsgUnix(head, unix.UnixRights(fds...), nil)
	return n, err
}

// recv reads a message and what files came with it; they are the caller's. The
// error is io.EOF if the peer hung up between two messages.
func recv(c *net.UnixConn) (message, []*os.File, error) {
	size, files, err := recvHead(c)
	if err != nil {
		closeAll(files)
		return message{}, nil, err
	}
	if size > maxMessage {
		closeAll(files)
		return message{}, nil, fmt.Errorf("control message of %d bytes, more than %d", size, maxMessage)
	}
	var body bytes.Buffer // grows with what really comes
	if _, err := io.CopyN(&body, c, int64(size)); err != nil {
		closeAll(files)
		return message{}, nil, unexpected(err)
	}
	m, err := decode(body.Bytes())
	if err != nil {
		closeAll(files)
		return message{}, nil, err
	}
	return m, files, nil
}

func recvHead(c *net.UnixConn) (size uint32, files []*os.File, err error) {
	var head [4]byte
	oob := make([]byte, unix.CmsgSpace(maxFiles*4))
	for got := 0; got < len(head); {
		n, oobn, flags, _, err := c.ReadMsgUnix(head[got:], oob)
		if err == nil && n == 0 {
			err = io.EOF
		}
		if err != nil {
			if got > 0 {
				err = unexpected(err)
			}
			return 0, files, err
		}
		more, err := parseFiles(oob[:oobn])
		files = append(files, more...)
		if err != nil {
			return 0, files, err
		}
		if flags&unix.MSG_CTRUNC != 0 || len(files) > maxFiles {
			return 0, files, fmt.Errorf("control message with more than %d files", maxFiles)
		}
		got += n
	}
	return binary.LittleEndian.Uint32(head[:]), files, nil
}

func parseFiles(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, os.NewSyscallError("parse control message", err)
	}
	var files []*os.File
	for _, m := range msgs {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return files, os.NewSyscallError("parse unix rights", err)
		}
		for _, fd := range fds { // close-on-exec already: net asks for it
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// remoteError gives the words of the other side their sentinel back.
func remoteError(words string) error {
	for _, err := range []error{state.ErrRunning, state.ErrStopped, state.ErrNotRunning, state.ErrNotPaused, state.ErrNotExist} {
		if words == err.Error() {
			return err
		}
	}
	if words == "" {
		words = "the monitor gave no reason"
	}
	return errors.New(words)
}
