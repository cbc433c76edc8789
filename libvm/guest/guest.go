// Package guest is the host's view of one guest: the agent that dialed us, and
// the byte streams of the processes that it runs.
package guest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/status"

	"runv/agent/api"
	"runv/libvm/vm"
)

// The vsock ports on which the host listens.
const (
	ControlPort = 1024 // the agent's ttrpc connection, one for the life of the VM
	StreamPort  = 1025 // streams, each begins with its token
	// ResolverPort takes questions for the name server of the container's network
	// namespace. Any workload may ask, as it may under runc.
	ResolverPort = 1026
)

// TokenBytes is the length of a stream's token. A workload can open vsock
// connections too; without the token it cannot pose as somebody's stdin.
const TokenBytes = 16

// tokenTimeout is how long a connection may take to send its token. The agent
// sends it with the first packet.
const tokenTimeout = 10 * time.Second

// maxPending bounds the connections that have not sent their token yet, beyond as
// many as are waited for: the guest decides how many it opens.
const maxPending = 64

// Device is the VM's vsock device.
type Device interface {
	Listen(port uint32) (net.Listener, error)
}

// Guest is one running guest.
type Guest struct {
	control net.Listener
	streams net.Listener
	serving sync.WaitGroup

	mu      sync.Mutex
	pending map[net.Conn]bool         // have not sent their token yet
	want    map[string]chan net.Conn  // token → who waits for it
	taken   map[string]func(net.Conn) // token → who takes all of it
	closed  bool
	client  *ttrpc.Client
	agent   api.AgentService
}

// New begins to listen for the guest's agent and streams. Close frees it.
func New(l Device) (*Guest, error) {
	g := &Guest{pending: map[net.Conn]bool{}, want: map[string]chan net.Conn{}, taken: map[string]func(net.Conn){}}
	var err error
	if g.control, err = l.Listen(ControlPort); err != nil {
		return nil, fmt.Errorf("listen for the agent: %w", err)
	}
	if g.streams, err = l.Listen(StreamPort); err != nil {
		g.control.Close() //nolint:errcheck // nobody has dialed
		return nil, fmt.Errorf("listen for streams: %w", err)
	}
	g.serving.Go(g.accept)
	return g, nil
}

// Accept waits for the agent. Only the first connection is taken: the agent
// dials before it runs anything that could dial too.
func (g *Guest) Accept(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { g.control.Close() })
	conn, err := g.control.Accept()
	if !stop() && err == nil {
		conn.Close() //nolint:errcheck // too late to be of use
		err = ctx.Err()
	}
	g.control.Close() //nolint:errcheck // no second connection is wanted
	if err != nil {
		return fmt.Errorf("wait for the agent: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.client = ttrpc.NewClient(patient{conn})
	g.agent = api.NewAgentClient(g.client)
	return nil
}

// Agent returns the agent's calls; valid after Accept.
func (g *Guest) Agent() api.AgentService {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.agent
}

// Close ends everything: the agent's connection, the listeners and those who
// wait for a stream.
func (g *Guest) Close() {
	g.mu.Lock()
	g.closed = true
	client := g.client
	for token, c := range g.want {
		close(c)
		delete(g.want, token)
	}
	for c := range g.pending {
		c.Close() //nolint:errcheck // it never became one of ours
	}
	g.mu.Unlock()
	if client != nil {
		client.Close() //nolint:errcheck // the guest is gone
	}
	g.control.Close() //nolint:errcheck // as above
	g.streams.Close() //nolint:errcheck // as above
	g.serving.Wait()
}

// Stream is a connection that the agent has yet to open.
type Stream struct {
	Token []byte
	guest *Guest
	conn  chan net.Conn
}

// NewStream makes a token under which the agent may open one connection.
func (g *Guest) NewStream() *Stream {
	s := &Stream{Token: make([]byte, TokenBytes), guest: g, conn: make(chan net.Conn, 1)}
	rand.Read(s.Token) //nolint:errcheck // never fails
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		close(s.conn)
		return s
	}
	g.want[string(s.Token)] = s.conn
	return s
}

// Listener is a token by which the agent may open any number of connections.
type Listener struct {
	Token []byte
	guest *Guest
}

// Listen makes a token; take is called with each connection that is opened by it,
// which is its own, in a goroutine that Guest.Close waits for.
func (g *Guest) Listen(take func(net.Conn)) *Listener {
	l := &Listener{Token: make([]byte, TokenBytes), guest: g}
	rand.Read(l.Token) //nolint:errcheck // never fails
	g.mu.Lock()
	defer g.mu.Unlock()
	g.taken[string(l.Token)] = take
	return l
}

// Close ends the token. Connections go on.
func (l *Listener) Close() {
	l.guest.mu.Lock()
	defer l.guest.mu.Unlock()
	delete(l.guest.taken, string(l.Token))
}

// ErrLost says that the guest's agent cannot be reached any more, or will not
// open a stream: the VM has ended, or is about to.
var ErrLost = errors.New("the guest's agent has gone")

// Wait returns the connection once the agent has opened it.
func (s *Stream) Wait(ctx context.Context) (net.Conn, error) {
	select {
	case c, ok := <-s.conn:
		if !ok {
			return nil, ErrLost
		}
		return c, nil
	case <-ctx.Done():
		s.Cancel()
		return nil, ctx.Err()
	}
}

// Cancel gives the stream up, opened or not.
func (s *Stream) Cancel() {
	s.guest.mu.Lock()
	_, waiting := s.guest.want[string(s.Token)]
	delete(s.guest.want, string(s.Token))
	if waiting {
		close(s.conn)
	}
	s.guest.mu.Unlock()
	for c := range s.conn {
		c.Close() //nolint:errcheck // unwanted
	}
}

// accept takes connections and hands each to whoever waits for its token.
func (g *Guest) accept() {
	for {
		conn, err := g.streams.Accept()
		if err != nil {
			return // closed
		}
		if !g.admit(conn) {
			conn.Close() //nolint:errcheck // a flood; the agent waits for none of them
			continue
		}
		g.serving.Go(func() { g.match(conn) })
	}
}

// admit notes a connection that has yet to send its token, within the bound.
func (g *Guest) admit(conn net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	// Execs that start together open their streams together.
	if g.closed || len(g.pending) >= maxPending+len(g.want) {
		return false
	}
	g.pending[conn] = true
	return true
}

// match reads the token and delivers the connection, or closes it.
func (g *Guest) match(conn net.Conn) {
	var token [TokenBytes]byte
	conn.SetReadDeadline(time.Now().Add(tokenTimeout)) //nolint:errcheck // a closed connection fails the read
	_, err := io.ReadFull(conn, token[:])
	conn.SetReadDeadline(time.Time{}) //nolint:errcheck // as above

	g.mu.Lock()
	delete(g.pending, conn)
	if take := g.taken[string(token[:])]; take != nil && err == nil && !g.closed {
		g.mu.Unlock()
		take(conn)
		return
	}
	defer g.mu.Unlock()
	c, ok := g.want[string(token[:])]
	if err != nil || !ok {
		conn.Close() //nolint:errcheck // not one of ours, or a guess
		return
	}
	delete(g.want, string(token[:]))
	c <- conn // has room for the one that a token allows
	close(c)
}

// patient is the agent's connection. The guest decides when it takes what is
// written, and a call that is being sent cannot be cancelled: a guest that takes
// nothing for so long is lost.
type patient struct{ net.Conn }

// sendTimeout is how long a guest may leave a call unread, after it has filled
// the connection's buffer.
const sendTimeout = 30 * time.Second

func (p patient) Write(b []byte) (int, error) {
	p.SetWriteDeadline(time.Now().Add(sendTimeout)) //nolint:errcheck // a closed connection fails the write
	n, err := p.Conn.Write(b)
	if err != nil {
		p.Close() //nolint:errcheck // half of a message may be out
	}
	return n, err
}

// Error turns an error of the agent's service into the words that the agent
// said, without the wrapping of the protocol, or into ErrLost.
func Error(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok {
		return errors.New(oneLine(s.Message()))
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w (%w)", ErrLost, err)
}

// maxError is the most of an agent's error that is shown, in bytes.
const maxError = 4 << 10

// oneLine is an agent's text as it may be shown: a guest that took its agent over
// writes what it likes.
func oneLine(text string) string {
	shown := strings.Join(strings.FieldsFunc(vm.Printable([]byte(text[:min(len(text), maxError)])), func(r rune) bool { return r == '\n' }), " ")
	if len(text) > maxError {
		shown += " …"
	}
	return shown
}
