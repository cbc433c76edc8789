package notifyfd

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"runv/agent/wire"
)

func open(t *testing.T) (listener *os.File, agent net.Conn) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root (try: sudo make test)")
	}
	f, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	host, agent := net.Pipe()
	file, err := f.Open(host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close(); agent.Close() })
	return file, agent
}

func ioctl(fd uintptr, cmd uintptr, p unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, fd, cmd, uintptr(p)); e != 0 {
		return e
	}
	return nil
}

// call is a notification with an id and a pid.
func call(id uint64) []byte {
	b := make([]byte, wire.NotifSize)
	binary.LittleEndian.PutUint64(b, id)
	binary.LittleEndian.PutUint32(b[8:], 4242)
	binary.LittleEndian.PutUint32(b[16:], 83)
	return b
}

// TestOpenAtOnce: execs that start together get their listeners together.
func TestOpenAtOnce(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root (try: sudo make test)")
	}
	f, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	var all sync.WaitGroup
	for range 32 {
		host, agent := net.Pipe()
		all.Go(func() {
			file, err := f.Open(host)
			if err != nil {
				t.Error(err)
				return
			}
			file.Close()
			if _, err := agent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("the stream of a closed listener: %v, want EOF", err)
			}
		})
	}
	all.Wait()
}

func TestListener(t *testing.T) {
	file, agent := open(t)
	fd := file.Fd()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 50); n != 0 || err != nil {
		t.Fatalf("poll without a call: %d, %v", n, err)
	}
	go agent.Write(wire.NotifyMessage{Kind: wire.NotifyCall, Data: call(7)}.Bytes()) //nolint:errcheck // RECV tells
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000); n != 1 || err != nil {
		t.Fatalf("poll: %d, %v", n, err)
	}
	var got [wire.NotifSize]byte
	if err := ioctl(fd, wire.NotifRecv, unsafe.Pointer(&got)); err != nil {
		t.Fatal(err)
	}
	want := call(7)
	clear(want[8:12])
	if string(got[:]) != string(want) {
		t.Errorf("got %x, want %x", got, want)
	}
	answers := make(chan wire.NotifyMessage, 2)
	go func() {
		for _, errno := range []uint32{0, uint32(unix.ENOENT)} {
			m, err := wire.ReadNotify(agent)
			if err != nil {
				return
			}
			answers <- m
			agent.Write(wire.ResultMessage(errno).Bytes()) //nolint:errcheck // the ioctl tells
		}
	}()
	id := uint64(7)
	if err := ioctl(fd, wire.NotifIDValid, unsafe.Pointer(&id)); err != nil {
		t.Errorf("ID_VALID: %v", err)
	}
	resp := [wire.RespSize]byte{7, 16: 1}
	if err := ioctl(fd, wire.NotifSend, unsafe.Pointer(&resp)); !errors.Is(err, unix.ENOENT) {
		t.Errorf("SEND: %v", err)
	}
	if a, b := <-answers, <-answers; a.Kind != wire.NotifyValid || b.Kind != wire.NotifyRespond || string(b.Data) != string(resp[:]) {
		t.Errorf("the agent got %v, %v", a, b)
	}
	var addfd [24]byte
	if err := ioctl(fd, 1<<30|24<<16|'!'<<8|3, unsafe.Pointer(&addfd)); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("ADDFD: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- ioctl(fd, wire.NotifRecv, unsafe.Pointer(&got)) }()
	time.Sleep(20 * time.Millisecond)
	agent.Close()
	if err := <-done; !errors.Is(err, unix.ENOENT) {
		t.Errorf("RECV at the end: %v", err)
	}
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(p, 5000); n != 1 || err != nil || p[0].Revents&unix.POLLHUP == 0 {
		t.Errorf("poll at the end: %d, %v, %#x", n, err, p[0].Revents)
	}
}

// TestSupervisorGoes: the stream ends with the last copy of the descriptor.
func TestSupervisorGoes(t *testing.T) {
	file, agent := open(t)
	file.Close()
	agent.SetReadDeadline(time.Now().Add(5 * time.Second)) //nolint:errcheck // the read tells
	if _, err := agent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want EOF", err)
	}
}
