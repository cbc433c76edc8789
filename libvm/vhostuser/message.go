package vhostuser

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// message is one request of the front-end.
type message struct {
	header
	payload []byte
	fds     []int // close-on-exec; closeFDs closes those that nobody took
}

func (m *message) closeFDs() {
	for _, fd := range m.fds {
		unix.Close(fd) //nolint:errcheck // it was only received
	}
	m.fds = nil
}

// readMessage reads the next request. io.EOF says that the front-end closed the
// connection between two messages. When it fails no descriptor is left open.
func readMessage(conn *net.UnixConn) (*message, error) {
	m := &message{}
	if err := m.read(conn); err != nil {
		m.closeFDs()
		return nil, err
	}
	return m, nil
}

func (m *message) read(conn *net.UnixConn) error {
	// Room for one descriptor more than a message may have: so many are received
	// and refused. If there are still more, the kernel drops them and says so.
	oob := make([]byte, unix.CmsgSpace(4*(VHOST_USER_MAX_RAM_SLOTS+1)))
	var head [headerBytes]byte
	for got := 0; got < len(head); {
		n, oobn, flags, _, err := conn.ReadMsgUnix(head[got:], oob)
		if err == nil && n == 0 {
			err = io.EOF
		}
		if ferr := m.receive(oob[:oobn]); ferr != nil {
			return ferr
		}
		if err != nil {
			if got > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if flags&unix.MSG_CTRUNC != 0 || len(m.fds) > VHOST_USER_MAX_RAM_SLOTS {
			return fmt.Errorf("message with more than %d descriptors", VHOST_USER_MAX_RAM_SLOTS)
		}
		got += n
	}
	m.header = parseHeader(head[:])
	if m.flags&VHOST_USER_VERSION_MASK != VHOST_USER_VERSION || m.flags&VHOST_USER_REPLY_MASK != 0 {
		return fmt.Errorf("request %d: flags %#x", m.request, m.flags)
	}
	if m.size > maxPayload {
		return fmt.Errorf("request %d: payload of %d bytes", m.request, m.size)
	}
	m.payload = make([]byte, m.size)
	// Descriptors come with the first byte. The kernel closes any that are
	// attached to a later one, because a plain read does not ask for them.
	if _, err := io.ReadFull(conn, m.payload); err != nil {
		return fmt.Errorf("request %d: payload: %w", m.request, noEOF(err))
	}
	return nil
}

// noEOF makes the end inside a message an error.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// receive takes the descriptors of one recvmsg, all of them, whatever else it
// finds.
func (m *message) receive(oob []byte) error {
	if len(oob) == 0 {
		return nil
	}
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return os.NewSyscallError("recvmsg", err)
	}
	for _, c := range cmsgs {
		if c.Header.Level != unix.SOL_SOCKET || c.Header.Type != unix.SCM_RIGHTS {
			continue // credentials, if our own side asked for them
		}
		fds, err := unix.ParseUnixRights(&c)
		if err != nil {
			return os.NewSyscallError("recvmsg", err)
		}
		m.fds = append(m.fds, fds...)
	}
	return nil
}

// writeReply answers request with payload.
func writeReply(conn *net.UnixConn, request uint32, payload []byte) error {
	h := header{request: request, flags: VHOST_USER_VERSION | VHOST_USER_REPLY_MASK, size: uint32(len(payload))}
	if _, err := conn.Write(append(h.append(make([]byte, 0, headerBytes+len(payload))), payload...)); err != nil {
		return fmt.Errorf("reply to request %d: %w", request, err)
	}
	return nil
}
