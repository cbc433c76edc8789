package rng

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
)

const patience = 10 * time.Second

// start returns a started device and its driver.
func start(t *testing.T, d *Device) *queuetest.Driver {
	t.Helper()
	drv := queuetest.New(t, queueSize, queue.Config{Indirect: true})
	if err := d.Start(1<<virtio.FVersion1, []*queue.Queue{drv.Queue}); err != nil {
		t.Fatal(err)
	}
	return drv
}

func room(n int) queuetest.Buffer { return queuetest.Buffer{Data: make([]byte, n), Write: true} }

func ask(t *testing.T, drv *queuetest.Driver, bufs ...queuetest.Buffer) queuetest.Used {
	t.Helper()
	drv.Offer(bufs...)
	if err := drv.Notify(); err != nil {
		t.Fatal(err)
	}
	return drv.Take(t, patience)
}

func TestRequests(t *testing.T) {
	d := New()
	drv := start(t, d)
	tests := []struct {
		name string
		bufs []queuetest.Buffer
		want uint32 // bytes
	}{
		{"one byte", []queuetest.Buffer{room(1)}, 1},
		{"a page", []queuetest.Buffer{room(4096)}, 4096},
		{"three parts", []queuetest.Buffer{room(100), room(1), room(1000)}, 1101},
		{"more than the bound", []queuetest.Buffer{room(60 << 10), room(60 << 10)}, maxRequest},
		{"one part of more than the bound", []queuetest.Buffer{room(1 << 20), room(1)}, maxRequest},
		{"nothing to write", []queuetest.Buffer{{Data: []byte("x")}}, 0},
		{"a readable part first", []queuetest.Buffer{{Data: []byte("x")}, room(64)}, 64},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := ask(t, drv, tt.bufs...)
			if u.Len != tt.want {
				t.Errorf("%d bytes, want %d", u.Len, tt.want)
			}
			if got := bytes.Join(u.Data, nil); len(got) >= 64 && bytes.Equal(got, make([]byte, len(got))) {
				t.Error("the bytes are all zero")
			}
		})
	}
	drv.Queue.Close()
	if err := d.Wait(); err != nil {
		t.Errorf("Wait: %v", err)
	}
}

// TestBytesComeFromTheSource has a source that can be recognised, and starts the
// device twice: the second driver is served as the first.
func TestBytesComeFromTheSource(t *testing.T) {
	d := &Device{source: bytes.NewReader([]byte("abcdefgh"))}
	for _, want := range []string{"abc", "def"} {
		drv := start(t, d)
		if u := ask(t, drv, room(3)); string(u.Data[0]) != want {
			t.Errorf("got %q, want %q", u.Data[0], want)
		}
		drv.Queue.Close()
		if err := d.Wait(); err != nil {
			t.Errorf("Wait: %v", err)
		}
	}
}

func TestFailures(t *testing.T) {
	d := New()
	drv := start(t, d)
	drv.PutAvail(queueSize) // no such descriptor
	if err := drv.Notify(); err != nil {
		t.Fatal(err)
	}
	if err := d.Wait(); !errors.Is(err, queue.ErrBadRing) {
		t.Errorf("Wait = %v, want ErrBadRing", err)
	}

	d = &Device{source: bytes.NewReader(nil)}
	drv = start(t, d)
	drv.Offer(room(1))
	if err := drv.Notify(); err != nil {
		t.Fatal(err)
	}
	if err := d.Wait(); !errors.Is(err, io.EOF) {
		t.Errorf("Wait = %v, want EOF of the source", err)
	}
}
