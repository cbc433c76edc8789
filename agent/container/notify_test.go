package container

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func sendTo(t *testing.T, path, text string, fds ...int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendmsg(fd, []byte(text), unix.UnixRights(fds...), &unix.SockaddrUnix{Name: path}, 0); err != nil {
		t.Fatal(err)
	}
}

func TestNotifySocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 90)) // longer than sun_path with its parents
	n, err := listenNotify(dir)
	if err != nil {
		t.Fatal(err)
	}
	// As a container's process sees it: below another, short path.
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	link := filepath.Join(t.TempDir(), "n")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(link, notifyName)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	sendTo(t, path, "")
	sendTo(t, path, "STATUS=READY=1\nREADY=0")
	sendTo(t, path, "BARRIER=1", int(w.Fd()))
	w.Close()
	if _, err := r.Read(make([]byte, 1)); err == nil { // EOF: the descriptor was dropped
		t.Error("the barrier's pipe has something to read")
	}
	select {
	case <-n.ready:
		t.Fatal("ready before it was said")
	default:
	}
	if err := n.last(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("last: got %v", err)
	}
	sendTo(t, path, "STATUS=up\nREADY=1\nMAINPID=5")
	if err := n.last(); err != nil {
		t.Errorf("last: got %v", err)
	}
	select {
	case <-n.ready:
	case <-time.After(10 * time.Second):
		t.Fatal("not ready")
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o777 {
		t.Errorf("socket: %v, %v", st, err)
	}
	if err := n.close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory is left")
	}
}
