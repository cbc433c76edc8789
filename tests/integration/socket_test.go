package integration

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

// reverser is a server of the host that answers as testdata/unixsock does: the
// user's ids, and what it was sent, reversed.
func reverser(t *testing.T, kind, path string) net.Listener {
	t.Helper()
	l, err := net.Listen(kind, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) //nolint:errcheck // it may be closed
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go reverse(c.(*net.UnixConn), kind)
		}
	}()
	return l
}

func reverse(c *net.UnixConn, kind string) {
	defer c.Close() //nolint:errcheck // answered
	raw, _ := c.SyscallConn()
	raw.Control(func(fd uintptr) { //nolint:errcheck // the client tells
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			fmt.Fprintf(c, "%d %d\n", cred.Uid, cred.Gid) //nolint:errcheck // as above
		}
	})
	if kind != "unix" {
		buf := make([]byte, 1<<18)
		for {
			n, err := c.Read(buf)
			if err != nil || n == 0 {
				return
			}
			c.Write(backwards(buf[:n])) //nolint:errcheck // the client tells
		}
	}
	all, _ := io.ReadAll(c)
	c.Write(backwards(all)) //nolint:errcheck // the client tells
}

func backwards(b []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[len(b)-1-i] = b[i]
	}
	return out
}

// socketBundle is a bundle with the probe, and a directory of the host at /shared.
func socketBundle(t *testing.T, r *harness.Runtime, changes ...harness.Change) (*harness.Bundle, string) {
	t.Helper()
	dir := filepath.Join(r.Dir, "shared-"+r.NewID())
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	share := func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind(dir, "/shared", "rbind")) }
	return withProbe(t, r.NewBundle(append([]harness.Change{share, harness.Args("sleep", "1000")}, changes...)...), "unixsock"), dir
}

// TestSocketOfHost: a process of the guest connects to servers of the host, in a
// directory that is bound and by a bind of the socket itself, before and after the
// container was made.
func TestSocketOfHost(t *testing.T) {
	r := newRuntime(t)
	single := filepath.Join(r.Dir, "single.sock")
	reverser(t, "unix", single)
	b, dir := socketBundle(t, r, func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, bind(single, "/run/single.sock", "bind"), bind(r.Dir, "/ro", "bind", "ro"))
	})
	reverser(t, "unix", filepath.Join(dir, "before"))
	c := r.Create(b).Start()
	defer c.End()
	for _, tt := range []struct{ name, script, want string }{
		{"a socket that is bound", "printf abc | unixsock dial unix /run/single.sock", "0 0\ncba"},
		{"in a directory", "printf abc | unixsock dial unix /shared/before", "0 0\ncba"},
		{"again", "for i in 1 2 3; do printf abc | unixsock dial unix /shared/before; done", "0 0\ncba0 0\ncba0 0\ncba"},
		{"read-only", "printf abc | unixsock dial unix /ro/single.sock", "0 0\ncba"},
		{"as it looks", "stat -c %F-%a /run/single.sock", "socket-666"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.In(t)
			if got := c.Output(tt.script); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("made later", func(t *testing.T) {
		r.In(t)
		if got := c.Exec("unixsock dial unix /shared/later"); !strings.Contains(got.Stdout, "no such file") {
			t.Errorf("before: got %+v", got)
		}
		reverser(t, "unix", filepath.Join(dir, "later"))
		harness.Within(t, 2*time.Second, "the socket is seen", func() bool { return c.Exec("test -S /shared/later").Status == 0 })
		if got := c.Output("printf xy | unixsock dial unix /shared/later"); got != "0 0\nyx" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("server restarts", func(t *testing.T) {
		r.In(t)
		path := filepath.Join(dir, "restarts")
		first := reverser(t, "unix", path)
		first.(*net.UnixListener).SetUnlinkOnClose(false)
		if got := c.Output("printf 1 | unixsock dial unix /shared/restarts"); got != "0 0\n1" {
			t.Errorf("got %q", got)
		}
		first.Close() //nolint:errcheck // the test tells
		if got := c.Exec("unixsock dial unix /shared/restarts"); !strings.Contains(got.Stdout, "connection refused") {
			t.Errorf("nobody listens: got %+v", got)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		reverser(t, "unix", path)
		if got := c.Output("printf 2 | unixsock dial unix /shared/restarts"); got != "0 0\n2" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("much", func(t *testing.T) {
		r.In(t)
		// 16 MiB there, and the same back.
		got := c.Output("head -c 16777216 /dev/zero | tr '\\0' a | unixsock dial unix /shared/before | tail -c +5 | sha256sum")
		want := fmt.Sprintf("%x  -", sha256.Sum256(bytes.Repeat([]byte("a"), 16<<20)))
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("another user", func(t *testing.T) {
		r.In(t)
		if got := r.Run("exec", "--user", "1000:1001", c.ID, "sh", "-c", "printf abc | unixsock dial unix /shared/before"); got.Stdout != "1000 1001\ncba" {
			t.Errorf("got %+v", got)
		}
		if err := os.Chmod(filepath.Join(dir, "before"), 0o600); err != nil {
			t.Fatal(err)
		}
		harness.Within(t, 3*time.Second, "permission denied", func() bool {
			return strings.Contains(r.Run("exec", "--user", "1000:1001", c.ID, "unixsock", "dial", "unix", "/shared/before").Stdout, "permission denied")
		})
	})
	t.Run("packets", func(t *testing.T) {
		r.In(t)
		reverser(t, "unixpacket", filepath.Join(dir, "packets"))
		if got := c.Output("printf 'one\\nthree\\n' | unixsock dial unixpacket /shared/packets"); got != "4: 0 0\n\n3: eno\n5: eerht" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("datagrams", func(t *testing.T) {
		r.In(t)
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "log"), Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()                                  //nolint:errcheck // the test's end
		l.SetReadDeadline(time.Now().Add(harness.Limit)) //nolint:errcheck // the read tells
		c.Output("printf 'one\\nthree\\n' | unixsock dial unixgram /shared/log")
		for _, want := range []string{"one", "three"} {
			buf := make([]byte, 100)
			n, err := l.Read(buf)
			if err != nil || string(buf[:n]) != want {
				t.Errorf("got %q, %v, want %q", buf[:n], err, want)
			}
		}
	})
}

// TestSocketWrittenLast: what a workload sent before it ended is delivered.
func TestSocketWrittenLast(t *testing.T) {
	r := newRuntime(t)
	b, dir := socketBundle(t, r, harness.Shell("head -c 1000000 /dev/zero | unixsock dial unix /shared/sink"))
	l, err := net.Listen("unix", filepath.Join(dir, "sink"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // the test's end
	got := make(chan int, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.(*net.UnixConn).CloseWrite() //nolint:errcheck // the client goes when all is sent
		n, _ := io.Copy(io.Discard, c)
		got <- int(n)
	}()
	if res := r.Run("run", "--bundle", b.Dir, r.NewID()); res.Status != 0 {
		t.Fatalf("got %+v", res)
	}
	select {
	case n := <-got:
		if n != 1000000 {
			t.Errorf("got %d bytes", n)
		}
	case <-time.After(harness.Limit):
		t.Error("no connection, or it did not end")
	}
}

// TestSocketOfGuest: what a process of the guest binds in a shared directory is
// connectable on the host, and in the guest as ever.
func TestSocketOfGuest(t *testing.T) {
	r := newRuntime(t)
	b, dir := socketBundle(t, r, harness.Shell("umask 007; unixsock serve unix /shared/guest & unixsock serve unixpacket /shared/packets & unixsock serve unixgram /shared/log >/shared/got & wait"))
	c := r.Create(b).Start()
	defer c.End()
	for _, name := range []string{"guest", "packets", "log"} {
		harness.Within(t, harness.Limit, name+" is bound", func() bool {
			fi, err := os.Lstat(filepath.Join(dir, name))
			return err == nil && fi.Mode()&os.ModeSocket != 0
		})
	}
	fi, err := os.Lstat(filepath.Join(dir, "guest"))
	if err != nil || fi.Mode().Perm() != 0o770 {
		t.Errorf("mode: got %v, %v", fi.Mode(), err)
	}
	harness.Within(t, harness.Limit, "the guest listens", func() bool {
		return c.Exec("printf 1 | unixsock dial unix /shared/guest").Stdout == "0 0\n1"
	})
	dial := func(t *testing.T, kind, name string) *net.UnixConn {
		t.Helper()
		conn, err := net.Dial(kind, filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })              //nolint:errcheck // it may be closed
		conn.SetDeadline(time.Now().Add(harness.Limit)) //nolint:errcheck // the test tells
		return conn.(*net.UnixConn)
	}
	for range 3 {
		conn := dial(t, "unix", "guest")
		conn.Write([]byte("question")) //nolint:errcheck // the answer tells
		conn.CloseWrite()              //nolint:errcheck // as above
		if got, err := io.ReadAll(conn); string(got) != "0 0\nnoitseuq" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	t.Run("packets", func(t *testing.T) {
		conn := dial(t, "unixpacket", "packets")
		buf := make([]byte, 100)
		for _, p := range []string{"", "one", "three"} {
			want := string(backwards([]byte(p)))
			if p == "" {
				want = "0 0\n"
			} else if _, err := conn.Write([]byte(p)); err != nil {
				t.Fatal(err)
			}
			if n, err := conn.Read(buf); err != nil || string(buf[:n]) != want {
				t.Errorf("got %q, %v, want %q", buf[:n], err, want)
			}
		}
	})
	t.Run("datagrams", func(t *testing.T) {
		conn := dial(t, "unixgram", "log")
		for _, p := range []string{"one", "three"} {
			if _, err := conn.Write([]byte(p)); err != nil {
				t.Fatal(err)
			}
		}
		harness.Within(t, harness.Limit, "both arrive", func() bool {
			got, _ := os.ReadFile(filepath.Join(dir, "got"))
			return string(got) == "bound\n3: one\n5: three\n"
		})
	})
	t.Run("closed", func(t *testing.T) {
		r.In(t)
		cmd := r.Command("exec", c.ID, "unixsock", "bind", "unix", "/shared/closes")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "bound\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		path := filepath.Join(dir, "closes")
		if _, err := net.Dial("unix", path); err != nil {
			t.Error(err)
		}
		if err := os.Rename(path, path+".moved"); err != nil {
			t.Fatal(err)
		}
		in.Close() //nolint:errcheck // the probe ends
		cmd.Wait() //nolint:errcheck // as above
		harness.Within(t, harness.Limit, "nobody listens any more", func() bool {
			c, err := net.Dial("unix", path+".moved")
			if err == nil {
				c.Close() //nolint:errcheck // it was accepted for the last time
			}
			return errors.Is(err, unix.ECONNREFUSED)
		})
	})
	t.Run("unlinked", func(t *testing.T) {
		r.In(t)
		c.Output("rm /shared/guest")
		if _, err := net.Dial("unix", filepath.Join(dir, "guest")); !errors.Is(err, unix.ENOENT) {
			t.Errorf("got %v", err)
		}
	})
}
