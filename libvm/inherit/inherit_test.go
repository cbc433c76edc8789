package inherit

import (
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// open returns a descriptor that the test closes.
func open(t *testing.T, fd int, err error) int {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func openPath(t *testing.T, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
	return open(t, fd, err)
}

func socket(t *testing.T, typ int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, typ, 0)
	return open(t, fd, err)
}

func pair(t *testing.T, typ int) int {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, typ, 0)
	open(t, fds[1], err)
	return open(t, fds[0], err)
}

func TestInspect(t *testing.T) {
	dir := t.TempDir()
	file, fifo, sock := filepath.Join(dir, "file"), filepath.Join(dir, "fifo"), filepath.Join(dir, "sock")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tcp, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	listening := socket(t, unix.SOCK_STREAM)
	if err := unix.Bind(listening, &unix.SockaddrUnix{Name: sock}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(listening, 1); err != nil {
		t.Fatal(err)
	}
	memfd, err := unix.MemfdCreate("m", 0)
	open(t, memfd, err)
	epoll, err := unix.EpollCreate1(0)
	open(t, epoll, err)
	ptmx := openPath(t, "/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY)
	if err := unix.IoctlSetPointerInt(ptmx, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(ptmx, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	pts := "/dev/pts/" + strconv.Itoa(n)

	r, w, rw, null := Access{Reads: true}, Access{Writes: true}, Access{true, true}, Access{}
	for _, tt := range []struct {
		name string
		fd   int
		want Access
		err  string // empty: none
	}{
		{"pipe", open(t, p[0], nil), r, ""},
		{"pipe to write", open(t, p[1], nil), w, ""},
		{"fifo", openPath(t, fifo, unix.O_RDONLY|unix.O_NONBLOCK), r, ""},
		{"fifo both", openPath(t, fifo, unix.O_RDWR), null, "is a pipe or FIFO opened for both reading and writing"},
		{"file", openPath(t, file, unix.O_RDONLY), r, ""},
		{"file to write", openPath(t, file, unix.O_WRONLY), w, ""},
		{"file to append", openPath(t, file, unix.O_WRONLY|unix.O_APPEND), w, ""},
		{"file both", openPath(t, file, unix.O_RDWR), null, "opened for both reading and writing, which cannot be passed into a virtual machine (open it for one"},
		{"path", openPath(t, file, unix.O_PATH), null, "is an O_PATH descriptor"},
		{"null", openPath(t, os.DevNull, unix.O_RDWR), null, ""},
		{"null to read", openPath(t, os.DevNull, unix.O_RDONLY), null, ""},
		{"zero", openPath(t, "/dev/zero", unix.O_RDONLY), null, `is the device "/dev/zero"`},
		{"directory", openPath(t, "/etc", unix.O_RDONLY), null, `is the directory "/etc", which cannot be passed into a virtual machine (bind mount it)`},
		{"terminal", openPath(t, pts, unix.O_RDWR|unix.O_NOCTTY), null, "is the terminal"},
		{"terminal to write", openPath(t, pts, unix.O_WRONLY|unix.O_NOCTTY), w, ""},
		{"socket pair", pair(t, unix.SOCK_STREAM), rw, ""},
		{"tcp", int(tcp.Fd()), rw, ""},
		{"datagrams", pair(t, unix.SOCK_DGRAM), null, "is a socket that does not carry a stream"},
		{"packets", pair(t, unix.SOCK_SEQPACKET), null, "is a socket that does not carry a stream"},
		{"listening", listening, null, "is a listening socket"},
		{"unconnected", socket(t, unix.SOCK_STREAM), null, "is a socket that is not connected"},
		{"memfd", memfd, null, "is a memory file"},
		{"epoll", epoll, null, "is no file but a kernel object"},
		{"closed", 1 << 20, null, "bad file descriptor"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Inspect(tt.fd)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
			if err != nil && !strings.Contains(err.Error(), "file descriptor "+strconv.Itoa(tt.fd)) {
				t.Errorf("%v does not name the number %d", err, tt.fd)
			}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestFiles(t *testing.T) {
	for _, tt := range []struct {
		listen, preserve, open int
		want                   string
	}{
		{0, 5, 3, "unable to stat preserved-fd 3 (of 5): stat /proc/self/fd/6: no such file or directory (check that file descriptor 6 is open)"},
		{2, 5, 3, "unable to stat preserved-fd 1 (of 5): stat /proc/self/fd/6: no such file or directory"},
		{1, math.MaxInt, 3, "unable to stat preserved-fd 2 (of 9223372036854775807)"},
		{math.MaxInt, 1, 3, "LISTEN_FDS is 9223372036854775807, but file descriptor 6 is not open"},
		{2, 0, 1, "LISTEN_FDS is 2, but file descriptor 4 is not open"},
		{0, 251, 1000, "cannot pass on 251 file descriptors, more than 250"},
	} {
		_, err := Files(tt.listen, tt.preserve, tt.open)
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%+v: got %v", tt, err)
		}
	}
	for _, n := range []int{0, -1} {
		if f, err := Files(0, n, 0); err != nil || f != nil {
			t.Errorf("%d: got %v, %v", n, f, err)
		}
	}
}

func TestListenFDs(t *testing.T) {
	for _, tt := range []struct {
		fds, pid string
		want     int
	}{
		{"2", "7", 2}, {"2", "8", 0}, {"2", "", 0}, {"", "7", 0}, {"x", "7", 0}, {"-1", "7", 0},
	} {
		env := map[string]string{"LISTEN_FDS": tt.fds, "LISTEN_PID": tt.pid}
		if got := ListenFDs(func(k string) string { return env[k] }, 7); got != tt.want {
			t.Errorf("%+v: got %d", tt, got)
		}
	}
}
