package vhostuser

import (
	"bytes"
	"io"
	"testing"

	"runv/libvm/virtio/console"
	"runv/libvm/virtio/queue/queuetest"
)

// TestConsole has a device with a configuration and two queues behind the
// protocol; QEMU 7.2 has no front-end for it.
func TestConsole(t *testing.T) {
	var out bytes.Buffer
	in, w := io.Pipe()
	d := console.New(console.Options{In: in, Out: &out, Cols: 132, Rows: 50})
	f := newFrontend(t, d)
	f.connect(2)
	if got := f.call(VHOST_USER_GET_CONFIG, configMessage(0, 4, 0, make([]byte, 4)))[configBytes:]; !bytes.Equal(got, []byte{132, 0, 50, 0}) {
		t.Errorf("size is % x, want 132 and 50", got)
	}
	f.boot(defaultFeatures|1<<console.VIRTIO_CONSOLE_F_SIZE, 2, 0)
	f.request(1, f.calls[1], queuetest.Buffer{Data: []byte("login: ")})
	if _, err := w.Write([]byte("root\n")); err != nil {
		t.Fatal(err)
	}
	if u := f.request(0, f.calls[0], room(80)); u.Len != 5 || string(u.Data[0][:5]) != "root\n" {
		t.Errorf("guest read %d bytes %q", u.Len, u.Data[0][:5])
	}
	w.Close() //nolint:errcheck // a pipe's
	if at := f.halt(2); at[0] != 1 || at[1] != 1 {
		t.Errorf("rings stopped at %v, want 1 and 1", at)
	}
	d.Close()
	if got := out.String(); got != "login: " {
		t.Errorf("output is %q", got)
	}
}
