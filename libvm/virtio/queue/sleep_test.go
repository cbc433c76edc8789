package queue_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
)

// dedicated returns the driver of a queue on which Wait blocks its thread.
func dedicated(t *testing.T) *queuetest.Driver {
	t.Helper()
	d := queuetest.New(t, 8, queue.Config{EventIdx: true})
	if err := d.Queue.Dedicate(); err != nil {
		t.Fatal(err)
	}
	return d
}

func waitFor(t *testing.T, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(patience):
		t.Fatal("Wait does not return")
		return nil
	}
}

// TestDedicatedWait has the driver notify while the device looks away, while it
// has just begun to wait, and after it has waited for long.
func TestDedicatedWait(t *testing.T) {
	d := dedicated(t)
	waited := make(chan error)
	serve := func() { waited <- d.Queue.Wait() }
	for i := range 50 {
		if i%2 == 0 {
			go serve()
		}
		if i%10 == 0 {
			select { // longer than Wait is hidden from the scheduler
			case err := <-waited:
				t.Fatalf("Wait returned without a notification: %v", err)
			case <-time.After(20 * time.Millisecond):
			}
		}
		d.Offer(queuetest.Buffer{Data: []byte("x")})
		if err := d.Notify(); err != nil {
			t.Fatal(err)
		}
		if i%2 != 0 {
			go serve()
		}
		if err := waitFor(t, waited); err != nil {
			t.Fatal(err)
		}
		d.Queue.Used(next(t, d), 0)
		d.Take(t, patience)
	}
}

// TestDedicatedClose ends a wait that has just begun, one that has lasted, and
// one to come, and leaves no descriptor.
func TestDedicatedClose(t *testing.T) {
	for _, after := range []time.Duration{0, 20 * time.Millisecond} {
		d := dedicated(t)
		waited := make(chan error)
		go func() { waited <- d.Queue.Wait() }()
		select {
		case err := <-waited:
			t.Fatalf("Wait returned without a notification: %v", err)
		case <-time.After(after):
		}
		before := openFDs(t)
		d.Queue.Close()
		if err := waitFor(t, waited); !errors.Is(err, queue.ErrClosed) {
			t.Errorf("Wait: %v, want ErrClosed", err)
		}
		if err := d.Queue.Wait(); !errors.Is(err, queue.ErrClosed) {
			t.Errorf("Wait after Close: %v, want ErrClosed", err)
		}
		// Of Wait: the epoll instance, the kick and the eventfd of Close.
		if got := openFDs(t); got != before-3 {
			t.Errorf("%d descriptors, want %d", got, before-3)
		}
	}
}

// TestDedicateClosed fails on a queue that is closed.
func TestDedicateClosed(t *testing.T) {
	d := queuetest.New(t, 8, queue.Config{})
	d.Queue.Close()
	if err := d.Queue.Dedicate(); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("Dedicate: %v, want ErrClosed", err)
	}
}

// TestNextQuiet: only Next asks the driver to notify.
func TestNextQuiet(t *testing.T) {
	d := queuetest.New(t, 8, queue.Config{EventIdx: true})
	for _, quiet := range []bool{true, false} {
		d.Offer(queuetest.Buffer{Data: []byte("x")})
		d.NeedsNotify()
		d.Queue.Used(next(t, d), 0)
		d.Take(t, patience)
		look := d.Queue.Next
		if quiet {
			look = d.Queue.NextQuiet
		}
		if c, err := look(); c != nil || err != nil {
			t.Fatalf("quiet %v: %v, %v", quiet, c, err)
		}
		d.Offer(queuetest.Buffer{Data: []byte("x")})
		if got := d.NeedsNotify(); got == quiet {
			t.Errorf("quiet %v: the driver is to notify: %v", quiet, got)
		}
		d.Queue.Used(next(t, d), 0)
		d.Take(t, patience)
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	l, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(l)
}
