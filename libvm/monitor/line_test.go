package monitor

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/guest"
	"runv/libvm/inherit"
)

// extra makes a relay of one further file and plays the agent for it.
func extra(t *testing.T, f *os.File, a inherit.Access) (*relay, *net.UnixConn) {
	t.Helper()
	p := ports{t.TempDir()}
	g, err := guest.New(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	r, err := newRelay(g, files{extra: []inherit.File{{Access: a, File: f}}})
	if err != nil {
		t.Fatal(err)
	}
	e := r.stdio().Extra
	if len(e) != 1 || e[0].Reads != a.Reads || e[0].Writes != a.Writes {
		t.Fatalf("the agent is told %v", e)
	}
	conn := p.open(t, e[0].Token)
	conn.SetDeadline(time.Now().Add(patience)) //nolint:errcheck // the test tells
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.start(ctx); err != nil {
		t.Fatal(err)
	}
	return r, conn
}

// sockets returns a socket for a relay, and its peer.
func sockets(t *testing.T) (*os.File, *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[1]), "peer")
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience)) //nolint:errcheck // the test tells
	return os.NewFile(uintptr(fds[0]), "socket"), c.(*net.UnixConn)
}

var both = inherit.Access{Reads: true, Writes: true}

func TestRelaySocketHalfCloses(t *testing.T) {
	f, peer := sockets(t)
	r, conn := extra(t, f, both)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	go func() { peer.Write(big); peer.CloseWrite() }()     //nolint:errcheck // the reader tells
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, big) {
		t.Errorf("to the guest: %d bytes of %d, %v", len(got), len(big), err)
	}
	go func() { conn.Write(big); conn.CloseWrite() }() //nolint:errcheck // the reader tells
	if got, err := io.ReadAll(peer); err != nil || !bytes.Equal(got, big) {
		t.Errorf("to the host: %d bytes of %d, %v", len(got), len(big), err)
	}
	within(t, "finished", r.finished)
	within(t, "close", r.close)
}

// The guest ends its direction, and closes later: the peer learns both at once.
func TestRelaySocketGuestEndsFirst(t *testing.T) {
	f, peer := sockets(t)
	r, conn := extra(t, f, both)
	conn.CloseWrite() //nolint:errcheck // the peer tells
	if got, err := io.ReadAll(peer); err != nil || len(got) != 0 {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := peer.Write([]byte("more")); err != nil {
		t.Error(err)
	}
	b := make([]byte, 16)
	if n, err := conn.Read(b); err != nil || string(b[:n]) != "more" {
		t.Errorf("got %q, %v", b[:n], err)
	}
	conn.Close()
	within(t, "finished", r.finished)
	if _, err := peer.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write to a closed socket: %v", err)
	}
	within(t, "close", r.close)
}

// A close by the guest does not shut down what others on the host have open.
func TestRelaySocketIsShared(t *testing.T) {
	f, peer := sockets(t)
	dup, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	mine := os.NewFile(uintptr(dup), "copy")
	defer mine.Close()
	r, conn := extra(t, f, both)
	conn.Write([]byte("one ")) //nolint:errcheck // the peer tells
	conn.Close()
	within(t, "finished", r.finished)
	mine.Write([]byte("two")) //nolint:errcheck // the peer tells
	mine.Close()
	if got, err := io.ReadAll(peer); err != nil || string(got) != "one two" {
		t.Errorf("got %q, %v", got, err)
	}
	within(t, "close", r.close)
}

func TestRelaySocketPeerCloses(t *testing.T) {
	f, peer := sockets(t)
	r, conn := extra(t, f, both)
	peer.Write([]byte("bye")) //nolint:errcheck // the guest tells
	peer.Close()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "bye" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := conn.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the guest's write: %v, want EPIPE", err)
	}
	within(t, "finished", r.finished)
	within(t, "close", r.close)
}

// A pipe that the guest reads is let go with its last reader there, though the
// host's writer is silent.
func TestRelayExtraInputEnds(t *testing.T) {
	inR, inW := pipe(t)
	r, conn := extra(t, inR, inherit.Access{Reads: true})
	inW.Write([]byte("x")) //nolint:errcheck // the guest tells
	if n, err := conn.Read(make([]byte, 8)); n != 1 || err != nil {
		t.Errorf("got %d bytes, %v", n, err)
	}
	r.endInput()           // the process has ended, its children may read on
	inW.Write([]byte("y")) //nolint:errcheck // the guest tells
	if n, err := conn.Read(make([]byte, 8)); n != 1 || err != nil {
		t.Errorf("got %d bytes, %v", n, err)
	}
	conn.Close()
	within(t, "finished", r.finished)
	if _, err := inW.Write([]byte("z")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the host's write: %v, want EPIPE", err)
	}
	within(t, "close", r.close)
}

func TestRelayExtraOutputIsCounted(t *testing.T) {
	outR, outW := pipe(t)
	r, conn := extra(t, outW, inherit.Access{Writes: true})
	conn.Write([]byte("four")) //nolint:errcheck // the reader tells
	within(t, "delivered", func() { r.delivered(t.Context(), 0, 0, 4) })
	// A guest that counts more descriptors than it has changes nothing.
	within(t, "delivered of a lie", func() { r.delivered(t.Context(), 0, 0, 4, 1<<40, 1<<40) })
	conn.Close()
	within(t, "drained", func() { r.drained(t.Context()) })
	if got, err := io.ReadAll(outR); err != nil || string(got) != "four" {
		t.Errorf("got %q, %v", got, err)
	}
	within(t, "close", r.close)
}
