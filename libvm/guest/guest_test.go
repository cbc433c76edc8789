package guest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"runv/agent/api"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// ports plays the vsock device: a port is a Unix socket in a directory.
type ports struct{ dir string }

func (p ports) path(port uint32) string { return filepath.Join(p.dir, strconv.Itoa(int(port))) }

func (p ports) Listen(port uint32) (net.Listener, error) { return net.Listen("unix", p.path(port)) }

func (p ports) dial(t *testing.T, port uint32) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", p.path(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func newGuest(t *testing.T) (*Guest, ports) {
	t.Helper()
	p := ports{t.TempDir()}
	g, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g, p
}

func withPatience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// agent answers one call, with an error.
type agent struct{ api.AgentService }

func (agent) StartContainer(context.Context, *api.StartContainerRequest) (*api.Empty, error) {
	return nil, status.Error(codes.NotFound, `exec: "x": executable file not found in $PATH`)
}

func TestAgentIsTheFirstToDial(t *testing.T) {
	g, p := newGuest(t)
	conn := p.dial(t, ControlPort)
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	api.RegisterAgentService(server, agent{})
	go server.Serve(context.Background(), &one{conn: conn}) //nolint:errcheck // ends with the test
	t.Cleanup(func() { server.Close() })
	if err := g.Accept(withPatience(t)); err != nil {
		t.Fatal(err)
	}
	_, err = g.Agent().StartContainer(withPatience(t), &api.StartContainerRequest{Id: "x"})
	if got, want := Error(err).Error(), `exec: "x": executable file not found in $PATH`; got != want {
		t.Errorf("error of the agent: got %q, want %q", got, want)
	}
	if c, err := net.Dial("unix", p.path(ControlPort)); err == nil {
		c.Close()
		t.Error("a second connection to the control port was taken")
	}
}

// one is a listener with one connection.
type one struct {
	conn  net.Conn
	given bool
}

func (o *one) Accept() (net.Conn, error) {
	if o.given {
		var never chan struct{}
		<-never
	}
	o.given = true
	return o.conn, nil
}
func (o *one) Close() error   { return o.conn.Close() }
func (o *one) Addr() net.Addr { return o.conn.LocalAddr() }

func TestAcceptEndsWithItsContext(t *testing.T) {
	g, _ := newGuest(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.Accept(ctx); err == nil {
		t.Fatal("Accept: got no error although nobody dialed")
	}
}

func TestStreamGoesToItsToken(t *testing.T) {
	g, p := newGuest(t)
	a, b := g.NewStream(), g.NewStream()
	for _, s := range []*Stream{b, a} {
		c := p.dial(t, StreamPort)
		// In two pieces, as a hostile or a slow guest may send it.
		for _, part := range [][]byte{s.Token[:5], s.Token[5:], {'a' + s.Token[0]%7}} {
			if _, err := c.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
	}
	for _, s := range []*Stream{a, b} {
		c, err := s.Wait(withPatience(t))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil || len(got) != 1 || got[0] != 'a'+s.Token[0]%7 {
			t.Errorf("behind the token: got %q, %v", got, err)
		}
		c.Close()
	}
}

// TestManyStreamsAtOnce: as many connections as are waited for may be without their
// token at a time, and no more than maxPending beyond.
func TestManyStreamsAtOnce(t *testing.T) {
	ctx := withPatience(t)
	g, p := newGuest(t)
	const n = 3 * maxPending
	var streams [n]*Stream
	for i := range streams {
		streams[i] = g.NewStream()
	}
	var conns []net.Conn
	for range n + maxPending {
		conns = append(conns, p.dial(t, StreamPort))
	}
	for i, s := range streams {
		if _, err := conns[i].Write(s.Token); err != nil {
			t.Fatal(err)
		}
		c, err := s.Wait(ctx)
		if err != nil {
			t.Fatalf("stream %d of %d: %v", i, n, err)
		}
		c.Close()
	}
	// Those that are left are as many as may be: the next one is closed.
	c := p.dial(t, StreamPort)
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one too many: got %v, want EOF", err)
	}
}

func TestStreamOfAGuessIsClosed(t *testing.T) {
	g, p := newGuest(t)
	s := g.NewStream()
	for _, tt := range []struct {
		name  string
		token []byte
	}{
		{"a guess", make([]byte, TokenBytes)},
		{"a cancelled one", func() []byte { c := g.NewStream(); c.Cancel(); return c.Token }()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := p.dial(t, StreamPort)
			if _, err := c.Write(tt.token); err != nil {
				t.Fatal(err)
			}
			c.SetReadDeadline(time.Now().Add(patience)) //nolint:errcheck // the read tells
			if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %d bytes, %v, want the connection closed", n, err)
			}
		})
	}
	used := p.dial(t, StreamPort)
	used.Write(s.Token) //nolint:errcheck // Wait tells
	if _, err := s.Wait(withPatience(t)); err != nil {
		t.Fatal(err)
	}
	again := p.dial(t, StreamPort)
	again.Write(s.Token)                            //nolint:errcheck // the read tells
	again.SetReadDeadline(time.Now().Add(patience)) //nolint:errcheck // the read tells
	if n, err := again.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("second use of a token: got %d bytes, %v, want the connection closed", n, err)
	}
}

func TestCloseEndsThoseWhoWait(t *testing.T) {
	g, p := newGuest(t)
	s := g.NewStream()
	p.dial(t, StreamPort) // one that never says what it is
	done := make(chan error, 1)
	go func() {
		_, err := s.Wait(context.Background())
		done <- err
	}()
	g.Close()
	if err := <-done; !errors.Is(err, ErrLost) {
		t.Errorf("Wait after Close: got %v, want ErrLost", err)
	}
}

func TestErrorOfALostAgent(t *testing.T) {
	g, p := newGuest(t)
	conn := p.dial(t, ControlPort)
	if err := g.Accept(withPatience(t)); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	_, err := g.Agent().StartContainer(withPatience(t), &api.StartContainerRequest{Id: "x"})
	if err = Error(err); !errors.Is(err, ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Error(ctx.Err()); errors.Is(err, ErrLost) {
		t.Errorf("a call that was given up: got %v", err)
	}
}

// TestErrorOfAHostileAgent: its words do not reach a terminal as they are.
func TestErrorOfAHostileAgent(t *testing.T) {
	for _, tt := range []struct{ said, want string }{
		{"no such file", "no such file"},
		{"a\nlevel=error msg=forged\n", "a level=error msg=forged"},
		{"\x1b]0;owned\x07é", "?]0;owned?é"},
		{strings.Repeat("x", maxError+1), strings.Repeat("x", maxError) + " …"},
		{"", ""},
	} {
		if got := Error(status.Error(codes.Unknown, tt.said)).Error(); got != tt.want {
			t.Errorf("%.20q: got %.60q, want %.60q", tt.said, got, tt.want)
		}
	}
}

// full is a connection whose guest takes nothing.
type full struct {
	net.Conn
	deadline time.Time
	closed   bool
}

func (f *full) SetWriteDeadline(t time.Time) error { f.deadline = t; return nil }
func (f *full) Write([]byte) (int, error)          { return 0, os.ErrDeadlineExceeded }
func (f *full) Close() error                       { f.closed = true; return nil }

func TestGuestThatTakesNothingIsLost(t *testing.T) {
	f := &full{}
	if _, err := (patient{f}).Write([]byte("call")); err == nil {
		t.Error("got no error")
	}
	if f.deadline.IsZero() || !f.closed {
		t.Errorf("deadline %v, closed %v: want both", f.deadline, f.closed)
	}
}
