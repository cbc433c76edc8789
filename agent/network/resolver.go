package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Docker has a name server for each container of a user-defined network, in the
// container's network namespace, at 127.0.0.11:53. That of the guest is another
// one: here listens who hands the questions on. Each is a connection to the host:
//
//	workload ── UDP ──► resolver ── 'u', length u16, question ──► host ── UDP ──► name server
//	workload ── TCP ──► resolver ── 't', then as it comes ──────► host ── TCP ──► name server
const (
	overUDP = 'u'
	overTCP = 't'
)

// Where Docker's name server is. The port is where it is asked, and not ours (redirect.go).
var resolverAddress = [4]byte{127, 0, 0, 11}

const dnsPort = 53

// Bounds of the resolver. A question over UDP without an answer in time is asked
// again by whoever asked.
const (
	maxQuestions = 64               // at the same time; more are dropped
	answerTime   = 10 * time.Second // for one
	maxMessage   = 1<<16 - 1        // bytes of a DNS message (RFC 1035, 4.2.2)
)

// Conn is a connection to the host.
type Conn interface {
	io.ReadWriteCloser
	SetDeadline(t time.Time) error
	CloseWrite() error
}

// resolver listens on the sockets of a name server.
type resolver struct {
	udp, tcp *os.File
	port     uint16
	asked    atomic.Int32
}

// listenTries bounds the ports of UDP that are tried until the same of TCP is free.
const listenTries = 20

// listen makes the sockets in the network namespace of the calling thread, for the
// processes below the cgroup that is at path.
func listen(path string) (*resolver, error) {
	var r *resolver
	var err error
	for range listenTries {
		if r, err = listenAt(0); !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	cookie, err := cookieOf(r.udp)
	if err == nil {
		err = redirect(path, cookie, resolverAddress, r.port)
	}
	if err == nil {
		return r, nil
	}
	// A kernel without such programs (CONFIG_CGROUP_BPF) has it where it is asked, and
	// nobody else may have that port.
	r.close()
	return listenAt(dnsPort)
}

// listenAt makes the sockets at a port, or at 0 at one that is free.
func listenAt(port uint16) (*resolver, error) {
	r := &resolver{}
	var err error
	if r.udp, r.port, err = bound(unix.SOCK_DGRAM, port); err != nil {
		return nil, err
	}
	if r.tcp, _, err = bound(unix.SOCK_STREAM, r.port); err != nil {
		r.udp.Close()
		return nil, err
	}
	return r, nil
}

func (r *resolver) close() {
	r.udp.Close()
	r.tcp.Close()
}

// bound makes a socket, and returns its port.
func bound(kind int, port uint16) (f *os.File, at uint16, err error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, 0, os.NewSyscallError("socket", err)
	}
	f = os.NewFile(uintptr(fd), "resolver")
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(port), Addr: resolverAddress})
	}
	if err == nil && kind == unix.SOCK_STREAM {
		err = unix.Listen(fd, maxQuestions)
	}
	var name unix.Sockaddr
	if err == nil {
		name, err = unix.Getsockname(fd)
	}
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("listen at 127.0.0.11, port %d: %w", port, err)
	}
	return f, uint16(name.(*unix.SockaddrInet4).Port), nil
}

// serve hands questions on, for as long as the guest is.
func (r *resolver) serve(dial func() (Conn, error)) {
	go r.serveUDP(dial)
	go r.serveTCP(dial)
}

// admit says whether one more question can be asked, and counts it.
func (r *resolver) admit() bool {
	if r.asked.Add(1) > maxQuestions {
		r.asked.Add(-1)
		return false
	}
	return true
}

func (r *resolver) serveUDP(dial func() (Conn, error)) {
	raw, err := r.udp.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, maxMessage)
	for {
		var n int
		var from unix.Sockaddr
		rerr := raw.Read(func(fd uintptr) bool {
			n, from, err = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
		})
		if rerr != nil {
			return
		}
		if err != nil || !r.admit() {
			continue // an error is an earlier answer's that nobody took
		}
		question := append([]byte(nil), buf[:n]...)
		go func() {
			defer r.asked.Add(-1)
			answer, err := ask(dial, question)
			if err != nil {
				return
			}
			_ = raw.Control(func(fd uintptr) { _ = unix.Sendto(int(fd), answer, 0, from) })
		}()
	}
}

// ask asks the host one question.
func ask(dial func() (Conn, error), question []byte) ([]byte, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return nil, err
	}
	b := append(make([]byte, 0, 3+len(question)), overUDP)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(question))), question...)
	if _, err := c.Write(b); err != nil {
		return nil, err
	}
	var head [2]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, err
	}
	answer := make([]byte, binary.BigEndian.Uint16(head[:]))
	_, err = io.ReadFull(c, answer)
	return answer, err
}

func (r *resolver) serveTCP(dial func() (Conn, error)) {
	raw, err := r.tcp.SyscallConn()
	if err != nil {
		return
	}
	for {
		var client int
		rerr := raw.Read(func(fd uintptr) bool {
			client, _, err = unix.Accept4(int(fd), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
		})
		if rerr != nil {
			return
		}
		if err != nil {
			continue // the client has gone again
		}
		f := os.NewFile(uintptr(client), "resolver")
		if !r.admit() {
			f.Close()
			continue
		}
		go func() {
			defer r.asked.Add(-1)
			relay(dial, f)
		}()
	}
}

// relay copies between a client and the host until both directions have ended.
func relay(dial func() (Conn, error), client *os.File) {
	defer client.Close()
	c, err := dial()
	if err != nil {
		return
	}
	defer c.Close()
	end := time.Now().Add(answerTime)
	if c.SetDeadline(end) != nil || client.SetDeadline(end) != nil {
		return
	}
	if _, err := c.Write([]byte{overTCP}); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		pump(c, client)
		_ = c.CloseWrite()
	})
	pump(client, c)
	_ = unix.Shutdown(int(client.Fd()), unix.SHUT_WR)
	both.Wait()
}

// pump copies until an end. io.Copy would bring splice(2) and sendfile(2) along.
func pump(to io.Writer, from io.Reader) {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
