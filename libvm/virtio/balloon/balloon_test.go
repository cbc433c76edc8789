package balloon

import (
	"bytes"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
)

const patience = 10 * time.Second

// start starts a device on three queues, with the features.
func start(t *testing.T, d *Device, features uint64) []*queuetest.Driver {
	t.Helper()
	var drivers []*queuetest.Driver
	var qs []*queue.Queue
	for range queues {
		drv := queuetest.New(t, queueSize, queue.Config{Indirect: true})
		drivers, qs = append(drivers, drv), append(qs, drv.Queue)
	}
	if err := d.Start(features|1<<virtio.FVersion1, qs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, q := range qs {
			q.Close()
		}
		if err := d.Wait(); err != nil {
			t.Error(err)
		}
	})
	return drivers
}

func offer(t *testing.T, drv *queuetest.Driver, bufs ...queuetest.Buffer) {
	t.Helper()
	drv.Offer(bufs...)
	if err := drv.Notify(); err != nil {
		t.Fatal(err)
	}
	drv.Take(t, patience)
}

func room(n int) queuetest.Buffer { return queuetest.Buffer{Data: make([]byte, n), Write: true} }

// TestReports: of each range the whole pages are given back, and of no other queue.
func TestReports(t *testing.T) {
	page := os.Getpagesize()
	var freed []int
	d := New()
	d.discard = func(b []byte) error {
		freed = append(freed, len(b))
		return unix.EINVAL // not the end of the device
	}
	drivers := start(t, d, 1<<fReporting)
	offer(t, drivers[reportingQueue], room(4*page), room(3*page+1), room(page-1))
	want := func(freed []int) bool {
		// Where a buffer begins within a page is the driver's choice.
		return len(freed) == 2 && freed[0] >= 3*page && freed[0] <= 4*page && freed[1] >= 2*page && freed[1] <= 3*page
	}
	if !want(freed) {
		t.Errorf("given back: %v", freed)
	}
	before := slices.Clone(freed)
	offer(t, drivers[inflateQueue], queuetest.Buffer{Data: []byte{1, 0, 0, 0}})
	offer(t, drivers[deflateQueue], room(4*page))
	if !slices.Equal(freed, before) {
		t.Errorf("given back by other queues: %v", freed)
	}
}

// TestNotNegotiated: a driver that does not know of reports may use the queue's
// number for something else.
func TestNotNegotiated(t *testing.T) {
	d := New()
	d.discard = func([]byte) error {
		t.Error("pages were given back")
		return nil
	}
	drivers := start(t, d, 0)
	offer(t, drivers[reportingQueue], room(4*os.Getpagesize()))
}

// TestDiscard: pages of a memfd are gone, and read as zeros.
func TestDiscard(t *testing.T) {
	page := os.Getpagesize()
	fd, err := unix.MemfdCreate("ram", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd) //nolint:errcheck // a memfd
	if err := unix.Ftruncate(fd, int64(8*page)); err != nil {
		t.Fatal(err)
	}
	b, err := unix.Mmap(fd, 0, 8*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b) //nolint:errcheck // a mapping
	for i := range b {
		b[i] = 1
	}
	blocks := func() int64 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks
	}
	full := blocks()
	New().free(b[1 : 5*page+1])
	if got := blocks(); got >= full {
		t.Errorf("%d blocks, before %d", got, full)
	}
	if !bytes.Equal(b[page:5*page], make([]byte, 4*page)) || b[page-1] != 1 || b[5*page] != 1 {
		t.Error("what is gone are not the whole pages of the range")
	}
}
