package vsock_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/mdlayher/vsock" // the peer: testdata/guest, which "go mod tidy" does not see

	"runv/libvm/qemu/qemutest"
	"runv/libvm/virtio/vsock"
)

// TestLinux has Linux's driver, in a guest under QEMU, at the other end.
func TestLinux(t *testing.T) {
	q := qemutest.New(t, qemutest.Build(t, "./testdata/guest"))
	q.Memory, q.CPUs = 512, 2
	d := vsock.New(3)
	l, err := d.Listen(1024)
	if err != nil {
		t.Fatal(err)
	}
	q.Attach("vhost-user-vsock-device", d)
	q.Start(context.Background())
	go func() {
		<-q.Done()
		l.Close() // nobody is to wait for the guest
	}()
	hello := accept(t, l)
	took, err := io.ReadAll(hello)
	if err != nil {
		t.Fatal(err)
	}
	hello.Close()
	t.Logf("the guest's first dial took %s µs", bytes.TrimSpace(took))
	m := &machine{dev: d}
	t.Run("dial", m.testDial)
	t.Run("refused", m.testRefused)
	t.Run("half close", m.testHalfClose)
	t.Run("broken pipe", m.testBrokenPipe)
	t.Run("bulk", m.testBulk)
	t.Run("close", m.testClose)
	t.Run("close with data unread", m.testUnread)
	t.Run("many from the guest", m.testManyFromGuest)
	t.Run("many from the host", m.testManyFromHost)
}

const timeout = 30 * time.Second

// accept waits for the next connection, which gets a deadline.
func accept(t *testing.T, l net.Listener) *vsock.Conn {
	t.Helper()
	timer := time.AfterFunc(timeout, func() { l.Close() })
	defer timer.Stop()
	c, err := l.Accept()
	if err != nil {
		t.Fatalf("the guest does not dial: %v", err)
	}
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		t.Fatal(err)
	}
	return c.(*vsock.Conn)
}

// machine is the guest that runs, and what talks to it.
type machine struct {
	dev  *vsock.Device
	port uint32 // last used for a report
}

// command dials the guest and sends it a command.
func (m *machine) command(t *testing.T, cmd byte, n uint64) *vsock.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	c, err := m.dev.Dial(ctx, 22)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(binary.LittleEndian.AppendUint64([]byte{cmd}, n)); err != nil {
		t.Fatal(err)
	}
	return c.(*vsock.Conn)
}

// listen listens on a port of its own.
func (m *machine) listen(t *testing.T) (net.Listener, uint32) {
	t.Helper()
	m.port++
	l, err := m.dev.Listen(5000 + m.port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, 5000 + m.port
}

func readAll(t *testing.T, c io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// testDial takes the time of dial, of a round trip, and of the end.
func (m *machine) testDial(t *testing.T) {
	var dials, trips []time.Duration
	for range 20 {
		start := time.Now()
		c := m.command(t, 'e', 0)
		dials = append(dials, time.Since(start))
		start = time.Now()
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		trips = append(trips, time.Since(start))
		c.Close()
	}
	slices.Sort(dials)
	slices.Sort(trips)
	t.Logf("median dial from the host %v, round trip %v", dials[10], trips[10])

	l, port := m.listen(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	var took int // the guest's clock is coarse: take the mean of many
	if _, err := fmt.Fscan(m.command(t, 't', 500<<32|uint64(port)), &took); err != nil {
		t.Fatal(err)
	}
	t.Logf("mean dial and close in the guest %d µs", took)
}

func (m *machine) testRefused(t *testing.T) {
	if _, err := m.dev.Dial(t.Context(), 4711); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("host dials: got %v, want %v", err, syscall.ECONNREFUSED)
	}
	l, port := m.listen(t)
	l.Close()
	c := m.command(t, 'd', 10<<32|uint64(port))
	var failed, mean int
	if _, err := fmt.Fscan(c, &failed, &mean); err != nil || failed != 10 || mean > 1_000_000 {
		t.Errorf("guest dials a closed listener: %d of 10 failed, after %d µs, %v", failed, mean, err)
	}
}

// testHalfClose ends each direction on its own, from both sides.
func (m *machine) testHalfClose(t *testing.T) {
	c := m.command(t, 'e', 0)
	want := bytes.Repeat([]byte("tail"), 10_000)
	if _, err := c.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, c); got != string(want) {
		t.Errorf("host ends first: got %d bytes, want %d", len(got), len(want))
	}
	c.Close()

	l, port := m.listen(t)
	c = m.command(t, 'h', uint64(port))
	if got := readAll(t, c); len(got) != int(port) {
		t.Errorf("guest ends first: got %d bytes, want %d", len(got), port)
	}
	if _, err := c.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if got, want := readAll(t, accept(t, l)), "answer 0"; got != want {
		t.Errorf("guest ends first: it saw %q, want %q", got, want)
	}

	c = m.command(t, 'r', 100_000)
	if got := readAll(t, c); len(got) != 100_000 {
		t.Errorf("guest does not receive: got %d bytes", len(got))
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("guest does not receive: got %v, want %v", err, syscall.EPIPE)
	}
}

// testBrokenPipe: a writer in the guest gets EPIPE once nobody reads.
func (m *machine) testBrokenPipe(t *testing.T) {
	for i := range 20 {
		name, end := "CloseRead", (*vsock.Conn).CloseRead
		if i%2 == 0 {
			name, end = "Close", (*vsock.Conn).Close
		}
		l, port := m.listen(t)
		c := m.command(t, 'p', uint64(port))
		if _, err := io.ReadFull(c, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if err := end(c); err != nil {
			t.Fatal(err)
		}
		if got, want := readAll(t, accept(t, l)), fmt.Sprintf(" %d", syscall.EPIPE); got != want {
			t.Errorf("%s: the guest's write got %q, want %q", name, got, want)
		}
	}
}

// testBulk moves 100 MB each way.
func (m *machine) testBulk(t *testing.T) {
	total := 100 << 20
	if testing.Short() {
		total = 10 << 20
	}
	start := time.Now()
	c := m.command(t, 'g', uint64(total))
	sum := &counter{}
	if _, err := io.Copy(sum, c); err != nil || sum.n != total || sum.bad {
		t.Errorf("from the guest: got %d bytes, %v, want %d", sum.n, err, total)
	}
	t.Logf("from the guest: %.0f MB/s", float64(total)/1e6/time.Since(start).Seconds())
	c.Close()

	start = time.Now()
	c = m.command(t, 's', 0)
	p := make([]byte, 64<<10)
	for left := total; left > 0; left -= len(p) {
		if _, err := c.Write(p[:min(left, len(p))]); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, want := readAll(t, c), fmt.Sprint(total); got != want {
		t.Errorf("to the guest: it got %s bytes, want %s", got, want)
	}
	t.Logf("to the guest: %.0f MB/s", float64(total)/1e6/time.Since(start).Seconds())
}

// counter checks what give of testdata/guest writes.
type counter struct {
	n   int
	bad bool
}

func (w *counter) Write(p []byte) (int, error) {
	for i, b := range p {
		if b != byte((w.n+i)%(64<<10)*7) {
			w.bad = true
		}
	}
	w.n += len(p)
	return len(p), nil
}

// testClose: the guest's close is answered at once, though nobody has read.
func (m *machine) testClose(t *testing.T) {
	l, port := m.listen(t)
	c := m.command(t, 'l', 100_000<<32|uint64(port))
	var took, errno int
	if _, err := fmt.Fscan(accept(t, l), &took, &errno); err != nil || errno != 0 || took > 1_000_000 {
		t.Errorf("close took %d µs, errno %d, %v, want less than a second", took, errno, err)
	}
	t.Logf("close with linger took %d µs", took)
	if got := len(readAll(t, c)); got != 100_000 {
		t.Errorf("got %d bytes, want 100000", got)
	}
}

// testUnread: the guest has closed, and we read the tail only then.
func (m *machine) testUnread(t *testing.T) {
	const n = 200_000 // less than the receive buffer: the guest does not wait
	c := m.command(t, 'g', n)
	deadline := time.Now().Add(timeout)
	for {
		_, err := c.Write([]byte("x"))
		if errors.Is(err, syscall.EPIPE) { // it has closed
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the guest does not close: %v", err)
		}
	}
	if got := len(readAll(t, c)); got != n {
		t.Errorf("got %d bytes, want %d", got, n)
	}
}

func (m *machine) testManyFromGuest(t *testing.T) {
	const n = 200
	l, port := m.listen(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range n {
			c := accept(t, l)
			wg.Go(func() {
				defer c.Close()
				if _, err := io.Copy(io.Discard, c); err != nil {
					t.Error(err)
				}
			})
		}
	})
	c := m.command(t, 'd', n<<32|uint64(port))
	var failed, mean int
	if _, err := fmt.Fscan(c, &failed, &mean); err != nil || failed != 0 {
		t.Errorf("%d of %d dials failed, %v", failed, n, err)
	}
	t.Logf("mean dial of the guest, %d at once: %d µs", n, mean)
	if !t.Failed() {
		wg.Wait()
	}
}

func (m *machine) testManyFromHost(t *testing.T) {
	const n = 500
	conns := make([]*vsock.Conn, n)
	for i := range conns {
		conns[i] = m.command(t, 'e', 0)
	}
	for i, c := range conns {
		if _, err := fmt.Fprintf(c, "connection %d", i); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range conns {
		if got, want := readAll(t, c), fmt.Sprintf("connection %d", i); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		c.Close()
	}
}
