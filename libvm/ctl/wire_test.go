package ctl

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/inherit"
)

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
	many := make([]int, maxFiles) // as many as one send may have
	for i := range many {
		many[i] = int(null.Fd())
	}
	for _, n := range []int{1, 20, maxFiles} {
		// They come along with two bytes of a header, too many together.
		for i, fds := range [][]int{many, many[:n]} {
			if _, _, err := a.WriteMsgUnix([]byte{byte(i)}, unix.UnixRights(fds...), nil); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := recv(b); err == nil {
			t.Errorf("%d files: no error", maxFiles+n)
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
	// Fewer, if a finalizer closed what another test had left.
	if after := openFiles(t); after > before {
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

// The files behind stdio, or behind a terminal, get the access that was said.
func TestExecRequestFiles(t *testing.T) {
	a, b := inherit.Access{Reads: true}, inherit.Access{Writes: true}
	for _, tt := range []struct {
		name  string
		files int
		extra []inherit.Access
		err   bool
	}{
		{"stdio", 3, nil, false},
		{"stdio and more", 5, []inherit.Access{a, b}, false},
		{"terminal and more", 3, []inherit.Access{a, b}, false},
		{"none", 0, nil, true},
		{"two", 2, nil, true},
		{"four", 4, nil, true},
		{"too few", 1, []inherit.Access{a, b}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var files []*os.File
			for range tt.files {
				f, err := os.Open(os.DevNull)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				files = append(files, f)
			}
			r, err := execRequest(message{Extra: tt.extra}, files)
			if (err != nil) != tt.err {
				t.Fatalf("got %v", err)
			}
			if err != nil {
				return
			}
			if (r.TTY == nil) == (r.Stdin == nil) || len(r.Extra) != len(tt.extra) {
				t.Errorf("got %+v", r)
			}
			for i, f := range r.Extra {
				if f.Access != tt.extra[i] || f.File != files[len(files)-len(tt.extra)+i] {
					t.Errorf("file %d: got %+v", i, f)
				}
			}
		})
	}
}
