package ctl

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"runv/libvm/state"
)

// fake is a monitor whose processes copy stdin to stdout and end on SIGTERM
// (status 143), on the end of stdin (0), or when closed.
type fake struct {
	mu      sync.Mutex
	calls   []string
	started bool
	closed  chan string // one entry a session that was closed
	ended   chan string // one entry an Exec whose context ended
}

func (f *fake) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

func (f *fake) Start(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.started {
		return state.ErrRunning
	}
	f.started = true
	return nil
}

func (f *fake) Signal(_ context.Context, sig int, all bool) error {
	f.note("signal %d %v", sig, all)
	if sig == 99 {
		return errors.New("odd signal")
	}
	return nil
}

func (f *fake) Processes(context.Context) ([]Process, error) {
	return []Process{{PID: 300, ContainerPID: 1, UID: 5, Comm: "sh", Args: "sh -c x"}}, nil
}

func (f *fake) Exec(ctx context.Context, r ExecRequest) (ExecSession, error) {
	var name string
	if err := json.Unmarshal(r.Process, &name); err != nil {
		return nil, err
	}
	switch name {
	case "missing":
		closeAll([]*os.File{r.Stdin, r.Stdout, r.Stderr, r.TTY})
		return nil, errors.New(`exec: "missing": executable file not found in $PATH`)
	case "slow":
		<-ctx.Done()
		f.ended <- name
		return nil, context.Cause(ctx)
	}
	s := &fakeSession{fake: f, name: name, status: make(chan int, 8), request: r}
	if r.Stdin != nil {
		go func() {
			_, _ = io.Copy(r.Stdout, r.Stdin)
			s.status <- 0
		}()
	}
	return s, nil
}

type fakeSession struct {
	fake    *fake
	name    string
	request ExecRequest
	status  chan int
	once    sync.Once
}

func (s *fakeSession) PID() int { return 77 }

func (s *fakeSession) Signal(_ context.Context, sig int) error {
	s.status <- 128 + sig
	return nil
}

func (s *fakeSession) Resize(_ context.Context, rows, cols uint16) error {
	s.fake.note("resize %s %d %d", s.name, rows, cols)
	return nil
}

func (s *fakeSession) Wait(ctx context.Context) (int, error) {
	select {
	case n := <-s.status:
		return n, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (s *fakeSession) Close() error {
	s.once.Do(func() {
		closeAll([]*os.File{s.request.Stdin, s.request.Stdout, s.request.Stderr, s.request.TTY})
		s.status <- 137
		s.fake.closed <- s.name
	})
	return nil
}

// serve starts a server in a directory whose path no socket address can hold.
func serve(t *testing.T) (*fake, *os.File) {
	t.Helper()
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 150))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(long)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{closed: make(chan string, 100), ended: make(chan string, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, f) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Serve did not return")
		}
		_ = dir.Close()
	})
	return f, dir
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func dial(t *testing.T, dir *os.File) *Client {
	t.Helper()
	c, err := Dial(testContext(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// await reads one value, or fails.
func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: nothing came", what)
		panic("unreachable")
	}
}

func TestCalls(t *testing.T) {
	f, dir := serve(t)
	ctx := testContext(t)
	c := dial(t, dir)
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(ctx); !errors.Is(err, state.ErrRunning) {
		t.Errorf("second start: got %v", err)
	}
	if err := c.Signal(ctx, 15, true); err != nil {
		t.Error(err)
	}
	if err := c.Signal(ctx, 99, false); err == nil || err.Error() != "odd signal" {
		t.Errorf("got %v", err)
	}
	ps, err := c.Processes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Process{{PID: 300, ContainerPID: 1, UID: 5, Comm: "sh", Args: "sh -c x"}}, ps); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"signal 15 true", "signal 99 false"}, f.calls); diff != "" {
		t.Error(diff)
	}
	if pid, err := c.MonitorPID(); err != nil || pid != os.Getpid() {
		t.Errorf("MonitorPID: got %d, %v", pid, err)
	}
}

func TestDialNobody(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := Dial(testContext(t), dir); !errors.Is(err, state.ErrNotRunning) {
		t.Errorf("no socket: got %v", err)
	}
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if _, err := Dial(testContext(t), dir); !errors.Is(err, state.ErrNotRunning) {
		t.Errorf("nobody listens: got %v", err)
	}
	l, err = Listen(dir) // over the stale socket
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

// pipes makes the stdio of an exec.
func pipes(t *testing.T) (in, out *os.File, r ExecRequest) {
	t.Helper()
	inR, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r = ExecRequest{Process: json.RawMessage(`"cat"`), Stdin: inR, Stdout: outW, Stderr: outW}
	t.Cleanup(func() { closeAll([]*os.File{inR, in, out, outW}) })
	return in, out, r
}

func TestExecPassesFiles(t *testing.T) {
	_, dir := serve(t)
	ctx := testContext(t)
	in, out, r := pipes(t)
	s, err := dial(t, dir).Exec(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	if s.PID() != 77 {
		t.Errorf("pid: got %d", s.PID())
	}
	if _, err := in.WriteString("through the guest"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("through the guest"))
	if _, err := io.ReadFull(out, got); err != nil || string(got) != "through the guest" {
		t.Errorf("got %q, %v", got, err)
	}
	_ = in.Close()
	if status, err := s.Wait(ctx); err != nil || status != 0 {
		t.Errorf("got %d, %v", status, err)
	}
}

func TestExecTerminal(t *testing.T) {
	f, dir := serve(t)
	ctx := testContext(t)
	_, out, r := pipes(t)
	s, err := dial(t, dir).Exec(ctx, ExecRequest{Process: json.RawMessage(`"tty"`), TTY: r.Stdout, Rows: 3, Cols: 4})
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Stdout.Close()
	if err := s.Resize(ctx, 24, 80); err != nil {
		t.Error(err)
	}
	if err := s.Signal(ctx, 15); err != nil {
		t.Error(err)
	}
	if status, err := s.Wait(ctx); err != nil || status != 143 {
		t.Errorf("got %d, %v", status, err)
	}
	if name := await(t, "close", f.closed); name != "tty" {
		t.Errorf("closed %q", name)
	}
	if diff := cmp.Diff([]string{"resize tty 24 80"}, f.calls); diff != "" {
		t.Error(diff)
	}
	// Nobody but the server had the other end by then.
	if b, err := io.ReadAll(out); err != nil || len(b) != 0 {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestExecError(t *testing.T) {
	_, dir := serve(t)
	_, _, r := pipes(t)
	r.Process = json.RawMessage(`"missing"`)
	_, err := dial(t, dir).Exec(testContext(t), r)
	if want := `exec: "missing": executable file not found in $PATH`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// A client that hangs up ends its process, wherever it is.
func TestHangUp(t *testing.T) {
	f, dir := serve(t)
	ctx := testContext(t)
	_, _, r := pipes(t)
	s, err := dial(t, dir).Exec(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	await(t, "close of a running process", f.closed)

	_, _, r = pipes(t)
	r.Process = json.RawMessage(`"slow"`)
	c := dial(t, dir)
	limited, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := c.Exec(limited, r); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	_ = c.Close()
	await(t, "end of an exec in progress", f.ended)
}

// A session goes on in another holder of its connection; the first may close.
func TestResume(t *testing.T) {
	_, dir := serve(t)
	ctx := testContext(t)
	_, _, r := pipes(t)
	s, err := dial(t, dir).Exec(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	file, err := s.File()
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	s2, err := Resume(file, s.PID())
	if err != nil {
		t.Fatal(err)
	}
	defer s2.Close()
	if err := s2.Signal(ctx, 9); err != nil {
		t.Fatal(err)
	}
	if status, err := s2.Wait(ctx); err != nil || status != 137 {
		t.Errorf("got %d, %v", status, err)
	}
}

func TestServerEnds(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{closed: make(chan string, 1), ended: make(chan string, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, f) }()
	_, _, r := pipes(t)
	s, err := dial(t, dir).Exec(testContext(t), r)
	if err != nil {
		t.Fatal(err)
	}
	idle := dial(t, dir)
	cancel()
	if err := await(t, "Serve", done); err != nil {
		t.Error(err)
	}
	if _, err := s.Wait(testContext(t)); !errors.Is(err, ErrGone) {
		t.Errorf("Wait: got %v, want %v", err, ErrGone)
	}
	if err := idle.Start(testContext(t)); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want %v", err, ErrGone)
	}
	await(t, "close", f.closed)
}

// lastCall ends its server before it answers.
type lastCall struct {
	*fake
	end context.CancelFunc
}

func (l *lastCall) Start(ctx context.Context) error {
	l.end()
	return ctx.Err()
}

// A workload that ends at once ends its monitor; its start is answered still.
func TestLastWords(t *testing.T) {
	for range 50 {
		dir, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		l, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- Serve(ctx, l, &lastCall{&fake{}, cancel}) }()
		c := dial(t, dir)
		if err := c.Start(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if err := await(t, "Serve", done); err != nil {
			t.Fatal(err)
		}
		_, _ = c.Close(), dir.Close()
	}
}

func TestConcurrent(t *testing.T) {
	_, dir := serve(t)
	ctx := testContext(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			c, err := Dial(ctx, dir)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if i%2 == 0 {
				if _, err := c.Processes(ctx); err != nil {
					t.Error(err)
				}
			}
			in, _, r := pipes(t)
			s, err := c.Exec(ctx, r)
			if err != nil {
				t.Error(err)
				return
			}
			_ = in.Close()
			if status, err := s.Wait(ctx); err != nil || status != 0 {
				t.Errorf("got %d, %v", status, err)
			}
		})
	}
	wg.Wait()
}

func frame(size uint32, body string) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, size), body...)
}

// What breaks the protocol ends its connection, and nothing else.
func TestGarbage(t *testing.T) {
	_, dir := serve(t)
	for name, b := range map[string][]byte{
		"oversized":  frame(1<<31, "{}"),
		"just over":  frame(maxMessage+1, "{}"),
		"not json":   frame(3, "xyz"),
		"no type":    frame(2, "{}"),
		"cut header": {1, 2},
		"cut body":   frame(100, "{"),
		"http":       []byte("GET / HTTP/1.1\r\n\r\n"),
	} {
		c := dial(t, dir)
		if _, err := c.conn.Write(b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_ = c.conn.CloseWrite()
		_ = c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if rest, err := io.ReadAll(c.conn); len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: got %q, %v", name, rest, err)
		}
	}
	if err := dial(t, dir).Start(testContext(t)); err != nil {
		t.Errorf("after the garbage: %v", err)
	}
}

func TestUnknownTypeIsAnswered(t *testing.T) {
	_, dir := serve(t)
	_, err := dial(t, dir).call(testContext(t), message{Type: "frobnicate"})
	if err == nil || !strings.Contains(err.Error(), "frobnicate") {
		t.Errorf("got %v", err)
	}
}

func socketPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		conns[i] = c.(*net.UnixConn)
		t.Cleanup(func() { _ = c.Close() })
	}
	return conns[0], conns[1]
}

func openFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func TestFilesAreBoundedAndNeverLost(t *testing.T) {
	a, b := socketPair(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	before := openFiles(t)
	for _, n := range []int{4, 20, 200} {
		files := make([]*os.File, n)
		for i := range files {
			files[i] = null
		}
		if err := send(a, message{Type: typeExec}, files...); err != nil {
			t.Fatal(err)
		}
		if _, _, err := recv(b); err == nil {
			t.Errorf("%d files: no error", n)
		}
		// The rest of the message is still there; a server hangs up.
		a, b = socketPair(t)
		before += 2
	}
	// Good files with a bad body, and files in the middle of a header.
	head := frame(2, "{}")
	if _, _, err := a.WriteMsgUnix(head, unix.UnixRights(int(null.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := recv(b); err == nil {
		t.Error("no type: no error")
	}
	head = frame(16, `{"type":"start"}`)
	for i := range head {
		var oob []byte
		if i == 2 {
			oob = unix.UnixRights(int(null.Fd()))
		}
		if _, _, err := a.WriteMsgUnix(head[i:i+1], oob, nil); err != nil {
			t.Fatal(err)
		}
	}
	m, files, err := recv(b)
	if err != nil || m.Type != typeStart || len(files) != 1 {
		t.Errorf("byte by byte: got %+v, %d files, %v", m, len(files), err)
	}
	flags, err := unix.FcntlInt(files[0].Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("received file is not close-on-exec (%v)", err)
	}
	closeAll(files)
	if after := openFiles(t); after != before {
		t.Errorf("open files: got %d, want %d", after, before)
	}
}

func TestTooLargeToSend(t *testing.T) {
	a, _ := socketPair(t)
	big, _ := json.Marshal(strings.Repeat("x", maxMessage))
	if err := send(a, message{Type: typeExec, Process: big}); err == nil {
		t.Error("no error")
	}
}

// What decodes also encodes, and to the same again.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"type":"exec","process":{"args":["x"]},"rows":3,"cols":65535}`))
	f.Add([]byte(`{"type":"ok","processes":[{"pid":1}]}`))
	f.Add([]byte(`{"type":"signal","signal":-1,"all":true}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatalf("encode %+v: %v", m, err)
		}
		m2, err := decode(again)
		if err != nil {
			t.Fatalf("decode %s: %v", again, err)
		}
		third, _ := json.Marshal(m2)
		if string(third) != string(again) {
			t.Errorf("got %s, want %s", third, again)
		}
	})
}

// A stream of any bytes makes no panic, no hang, and no message longer than
// what was sent.
func FuzzRecv(f *testing.F) {
	f.Add(frame(16, `{"type":"start"}`))
	f.Add(frame(1<<31, ""))
	f.Add([]byte{0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, c := socketPair(t)
		go func() {
			_, _ = a.Write(b)
			_ = a.Close()
		}()
		for {
			_, files, err := recv(c)
			closeAll(files)
			if err != nil {
				return
			}
		}
	})
}
