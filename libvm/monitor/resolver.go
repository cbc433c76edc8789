package monitor

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// resolver hands questions of the guest on to the name server that Docker has at
// 127.0.0.11:53 of a container's network namespace, in which the monitor is.
// agent/network/resolver.go says what comes on a connection.
type resolver struct {
	listener net.Listener
	serving  sync.WaitGroup
	places   chan struct{} // one for each question that is being asked

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// nameServer is Docker's.
const nameServer = "127.0.0.11:53"

// Bounds of the resolver.
const (
	maxQuestions = 64               // at the same time; others are closed unheard
	questionTime = 10 * time.Second // for one, with its answer
	maxDNS       = 1<<16 - 1        // bytes of a DNS message (RFC 1035, 4.2.2)
)

// newResolver begins to serve; close ends it.
func newResolver(l net.Listener) *resolver {
	r := &resolver{listener: l, places: make(chan struct{}, maxQuestions), conns: map[net.Conn]bool{}}
	r.serving.Go(r.accept)
	return r
}

func (r *resolver) accept() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		select {
		case r.places <- struct{}{}:
		default:
			c.Close() //nolint:errcheck // a flood
			continue
		}
		r.serving.Go(func() {
			r.serve(c)
			<-r.places
		})
	}
}

// hold notes a connection, so that close ends it.
func (r *resolver) hold(c net.Conn) (release func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns == nil {
		c.Close() //nolint:errcheck // too late
		return nil, false
	}
	r.conns[c] = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.conns, c)
		c.Close() //nolint:errcheck // both directions have ended
	}, true
}

// serve answers what comes on one connection of the guest.
func (r *resolver) serve(c net.Conn) {
	release, ok := r.hold(c)
	if !ok {
		return
	}
	defer release()
	c.SetDeadline(time.Now().Add(questionTime)) //nolint:errcheck // a closed connection fails the read
	var kind [1]byte
	if _, err := io.ReadFull(c, kind[:]); err != nil {
		return
	}
	network := map[byte]string{'u': "udp4", 't': "tcp4"}[kind[0]]
	if network == "" {
		return
	}
	s, err := net.DialTimeout(network, nameServer, questionTime)
	if err != nil {
		return // the guest's resolver tells its user
	}
	releaseServer, ok := r.hold(s)
	if !ok {
		return
	}
	defer releaseServer()
	s.SetDeadline(time.Now().Add(questionTime)) //nolint:errcheck // as above
	if network == "udp4" {
		question(c, s)
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		io.Copy(s, c)                 //nolint:errcheck // its end is what counts
		s.(*net.TCPConn).CloseWrite() //nolint:errcheck // as above
	})
	io.Copy(c, s) //nolint:errcheck // as above
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		w.CloseWrite() //nolint:errcheck // as above
	}
	both.Wait()
}

// question asks the server one question, and gives the guest the answer.
func question(c, s net.Conn) {
	var head [2]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return
	}
	b := make([]byte, binary.BigEndian.Uint16(head[:]), maxDNS)
	if _, err := io.ReadFull(c, b); err != nil {
		return
	}
	if _, err := s.Write(b); err != nil {
		return
	}
	b = b[:maxDNS]
	n, err := s.Read(b)
	if err != nil {
		return
	}
	c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(n)), b[:n]...)) //nolint:errcheck // it asks again
}

func (r *resolver) close() {
	r.listener.Close() //nolint:errcheck // nobody is left
	r.mu.Lock()
	for c := range r.conns {
		c.Close() //nolint:errcheck // as above
	}
	r.conns = nil
	r.mu.Unlock()
	r.serving.Wait()
}

// maxResolvConf bounds what is read of resolv.conf, in bytes.
const maxResolvConf = 64 << 10

// openResolvConf opens the file of the host that the container has as its
// /etc/resolv.conf; nil if that is its own. Engines write into it later, too.
func openResolvConf(bundle string, spec *specs.Spec) *os.File {
	for _, m := range spec.Mounts {
		if path.Clean(m.Destination) != "/etc/resolv.conf" {
			continue
		}
		source := m.Source
		if !path.IsAbs(source) {
			source = path.Join(bundle, source)
		}
		st, err := os.Stat(source)
		if err != nil || !st.Mode().IsRegular() {
			return nil // who mounts it says so
		}
		f, err := os.Open(source)
		if err != nil {
			return nil
		}
		return f
	}
	return nil
}

// wantsResolver says whether a resolv.conf names Docker's name server.
func wantsResolver(f *os.File) bool {
	if f == nil {
		return false
	}
	b := make([]byte, maxResolvConf)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return false
	}
	host, _, _ := strings.Cut(nameServer, ":")
	for line := range bytes.Lines(b[:n]) {
		if w := bytes.Fields(line); len(w) >= 2 && string(w[0]) == "nameserver" && string(w[1]) == host {
			return true
		}
	}
	return false
}
