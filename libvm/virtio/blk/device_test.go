package blk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
)

const (
	patience    = 10 * time.Second
	testSectors = 2048
)

var testContent = sync.OnceValue(func() []byte {
	content := make([]byte, testSectors*sectorBytes)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = byte(r.Uint32())
	}
	return content
})

// open returns a device over a file of random bytes, and these.
func open(t testing.TB, flags int, readOnly bool) (*Device, string, []byte) {
	t.Helper()
	content := bytes.Clone(testContent())
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|flags, 0)
	if errors.Is(err, unix.EINVAL) {
		t.Skipf("no O_DIRECT here: %v (try: TMPDIR on ext4)", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDisk(f, readOnly, "serial-1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return New(d), path, content
}

func start(t testing.TB, d *Device) *queuetest.Driver {
	t.Helper()
	drv := queuetest.New(t, queueSize, queue.Config{Indirect: true})
	if err := d.Start(1<<virtio.FVersion1, []*queue.Queue{drv.Queue}); err != nil {
		t.Fatal(err)
	}
	return drv
}

func head(kind uint32, sector uint64) queuetest.Buffer {
	b := binary.LittleEndian.AppendUint32(nil, kind)
	b = binary.LittleEndian.AppendUint32(b, 0)
	return queuetest.Buffer{Data: binary.LittleEndian.AppendUint64(b, sector)}
}

func out(b []byte) queuetest.Buffer { return queuetest.Buffer{Data: b} }

func room(n int) queuetest.Buffer { return queuetest.Buffer{Data: make([]byte, n), Write: true} }

func extentOf(sector uint64, sectors, flags uint32) queuetest.Buffer {
	b := binary.LittleEndian.AppendUint64(nil, sector)
	b = binary.LittleEndian.AppendUint32(b, sectors)
	return out(binary.LittleEndian.AppendUint32(b, flags))
}

// ask sends a request and returns the answer and its status.
func ask(t testing.TB, drv *queuetest.Driver, bufs ...queuetest.Buffer) (queuetest.Used, byte) {
	t.Helper()
	drv.OfferIndirect(bufs...)
	if err := drv.Notify(); err != nil {
		t.Fatal(err)
	}
	u := drv.Take(t, patience)
	last := u.Data[len(u.Data)-1]
	return u, last[len(last)-1]
}

func TestReadAndWrite(t *testing.T) {
	for name, flags := range map[string]int{"page cache": 0, "direct": unix.O_DIRECT} {
		t.Run(name, func(t *testing.T) {
			d, path, content := open(t, flags, false)
			drv := start(t, d)
			u, status := ask(t, drv, head(VIRTIO_BLK_T_IN, 3), room(512), room(100), room(924), room(1))
			if status != VIRTIO_BLK_S_OK || u.Len != 3*512+1 || !bytes.Equal(bytes.Join(u.Data[1:4], nil), content[3*512:6*512]) {
				t.Errorf("read in odd parts: status %d, %d bytes", status, u.Len)
			}
			// The header and the data in one part, the data and the status in another.
			u, status = ask(t, drv, head(VIRTIO_BLK_T_IN, testSectors-1), room(513))
			if status != VIRTIO_BLK_S_OK || !bytes.Equal(u.Data[1][:512], content[len(content)-512:]) {
				t.Errorf("read of the last sector: status %d", status)
			}
			text := bytes.Repeat([]byte("0123456789abcdef"), 64*1024/16)
			one := append(head(VIRTIO_BLK_T_OUT, 10).Data, text[:1000]...)
			if _, status := ask(t, drv, out(one[:5]), out(one[5:]), out(text[1000:]), room(1)); status != VIRTIO_BLK_S_OK {
				t.Errorf("write: status %d", status)
			}
			copy(content[10*512:], text)
			if _, status := ask(t, drv, head(VIRTIO_BLK_T_FLUSH, 0), room(1)); status != VIRTIO_BLK_S_OK {
				t.Errorf("flush: status %d", status)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
				t.Errorf("the file is not what was written: %v", err)
			}
			// More than the buffer for memory that is not aligned.
			big := make([]byte, 600<<10)
			u, status = ask(t, drv, head(VIRTIO_BLK_T_IN, 0), queuetest.Buffer{Data: big[:7], Write: true}, queuetest.Buffer{Data: big[7:], Write: true}, room(1))
			if status != VIRTIO_BLK_S_OK || !bytes.Equal(bytes.Join(u.Data[1:3], nil), content[:len(big)]) {
				t.Errorf("large read: status %d", status)
			}
			drv.Queue.Close()
			if err := d.Wait(); err != nil {
				t.Errorf("Wait: %v", err)
			}
		})
	}
}

// TestRefused: requests that a disk cannot serve are answered so, and change
// nothing.
func TestRefused(t *testing.T) {
	const ioerr, unsupp = VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP
	data := out(make([]byte, 512))
	for _, readOnly := range []bool{false, true} {
		d, path, content := open(t, 0, readOnly)
		drv := start(t, d)
		type request struct {
			name string
			bufs []queuetest.Buffer
			want byte
		}
		tests := []request{
			{"read past the end", []queuetest.Buffer{head(VIRTIO_BLK_T_IN, testSectors), room(513)}, ioerr},
			{"read across the end", []queuetest.Buffer{head(VIRTIO_BLK_T_IN, testSectors-1), room(1025)}, ioerr},
			{"read at the end of all numbers", []queuetest.Buffer{head(VIRTIO_BLK_T_IN, ^uint64(0)), room(513)}, ioerr},
			{"read where bytes overflow", []queuetest.Buffer{head(VIRTIO_BLK_T_IN, 1<<55), room(513)}, ioerr},
			{"read of nothing", []queuetest.Buffer{head(VIRTIO_BLK_T_IN, 0), room(1)}, ioerr},
			{"read of half a sector", []queuetest.Buffer{head(VIRTIO_BLK_T_IN, 0), room(257)}, ioerr},
			{"read with data", []queuetest.Buffer{head(VIRTIO_BLK_T_IN, 0), data, room(513)}, ioerr},
			{"write past the end", []queuetest.Buffer{head(VIRTIO_BLK_T_OUT, testSectors), data, room(1)}, ioerr},
			{"write of nothing", []queuetest.Buffer{head(VIRTIO_BLK_T_OUT, 0), room(1)}, ioerr},
			{"write with room", []queuetest.Buffer{head(VIRTIO_BLK_T_OUT, 0), data, room(513)}, ioerr},
			{"id without room", []queuetest.Buffer{head(VIRTIO_BLK_T_GET_ID, 0), room(10)}, ioerr},
			{"discard past the end", []queuetest.Buffer{head(VIRTIO_BLK_T_DISCARD, 0), extentOf(testSectors-1, 2, 0), room(1)}, ioerr},
			{"discard of nothing", []queuetest.Buffer{head(VIRTIO_BLK_T_DISCARD, 0), extentOf(0, 0, 0), room(1)}, ioerr},
			{"discard of too much", []queuetest.Buffer{head(VIRTIO_BLK_T_DISCARD, 0), extentOf(0, ^uint32(0), 0), room(1)}, ioerr},
			{"discard without a range", []queuetest.Buffer{head(VIRTIO_BLK_T_DISCARD, 0), room(1)}, ioerr},
			{"two ranges", []queuetest.Buffer{head(VIRTIO_BLK_T_DISCARD, 0), extentOf(0, 1, 0), extentOf(2, 1, 0), room(1)}, ioerr},
			{"unknown", []queuetest.Buffer{head(99, 0), room(1)}, unsupp},
		}
		if readOnly {
			tests = append(tests,
				request{"write", []queuetest.Buffer{head(VIRTIO_BLK_T_OUT, 0), data, room(1)}, ioerr},
				request{"zeros", []queuetest.Buffer{head(VIRTIO_BLK_T_WRITE_ZEROES, 0), extentOf(0, 1, 1), room(1)}, ioerr},
				request{"discard", []queuetest.Buffer{head(VIRTIO_BLK_T_DISCARD, 0), extentOf(0, 1, 0), room(1)}, ioerr})
		} else {
			tests = append(tests,
				request{"discard with unmap", []queuetest.Buffer{head(VIRTIO_BLK_T_DISCARD, 0), extentOf(0, 1, 1), room(1)}, unsupp},
				request{"zeros with a flag", []queuetest.Buffer{head(VIRTIO_BLK_T_WRITE_ZEROES, 0), extentOf(0, 1, 2), room(1)}, unsupp})
		}
		for _, tt := range tests {
			if _, status := ask(t, drv, tt.bufs...); status != tt.want {
				t.Errorf("%s: status %d, want %d", tt.name, status, tt.want)
			}
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
			t.Errorf("the disk has changed: %v", err)
		}
		drv.Queue.Close()
		if err := d.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestZeroesAndID(t *testing.T) {
	d, path, content := open(t, 0, false)
	drv := start(t, d)
	for _, tt := range []struct {
		kind          uint32
		sector        uint64
		sectors, flag uint32
	}{{VIRTIO_BLK_T_WRITE_ZEROES, 1, 9, 0}, {VIRTIO_BLK_T_WRITE_ZEROES, 100, 16, 1}, {VIRTIO_BLK_T_DISCARD, 200, 64, 0}} {
		_, status := ask(t, drv, head(tt.kind, 0), extentOf(tt.sector, tt.sectors, tt.flag), room(1))
		if status == VIRTIO_BLK_S_UNSUPP {
			t.Skip("the file system has no fallocate(2) (try: TMPDIR on ext4)")
		}
		if status != VIRTIO_BLK_S_OK {
			t.Errorf("request %d: status %d", tt.kind, status)
		}
		clear(content[tt.sector*512 : (tt.sector+uint64(tt.sectors))*512])
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("not what was zeroed: %v", err)
	}
	u, status := ask(t, drv, head(VIRTIO_BLK_T_GET_ID, 0), room(7), room(13), room(1))
	if got := string(bytes.TrimRight(bytes.Join(u.Data[1:3], nil), "\x00")); got != "serial-1" || status != VIRTIO_BLK_S_OK || u.Len != idBytes+1 {
		t.Errorf("id %q, status %d, %d bytes", got, status, u.Len)
	}
}

// TestBroken: a request that cannot be answered ends the device.
func TestBroken(t *testing.T) {
	for name, bufs := range map[string][]queuetest.Buffer{
		"no status":    {head(VIRTIO_BLK_T_FLUSH, 0)},
		"half a head":  {out(make([]byte, 15)), room(1)},
		"only a place": {room(600)},
	} {
		d, _, _ := open(t, 0, false)
		drv := start(t, d)
		drv.Offer(bufs...)
		if err := drv.Notify(); err != nil {
			t.Fatal(err)
		}
		if err := d.Wait(); !errors.Is(err, queue.ErrBadRing) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfig(t *testing.T) {
	d, _, _ := open(t, 0, false)
	c := d.Config()
	if got := binary.LittleEndian.Uint64(c[offCapacity:]); got != testSectors || len(c) != configBytes {
		t.Errorf("capacity %d, %d bytes", got, len(c))
	}
	if d.Features()&(1<<VIRTIO_BLK_F_RO) != 0 {
		t.Error("read-only")
	}
	ro, _, _ := open(t, 0, true)
	if f := ro.Features(); f&(1<<VIRTIO_BLK_F_RO) == 0 || f&(1<<VIRTIO_BLK_F_DISCARD) != 0 {
		t.Errorf("features %#x of a read-only disk", f)
	}
	if _, err := NewDisk(os.Stdin, false, ""); err == nil {
		if st, _ := os.Stdin.Stat(); !st.Mode().IsRegular() {
			t.Error("a disk of what is none")
		}
	}
}

// TestShrunk: a disk that has become smaller is an error of the request.
func TestShrunk(t *testing.T) {
	d, path, _ := open(t, 0, false)
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	drv := start(t, d)
	if _, status := ask(t, drv, head(VIRTIO_BLK_T_IN, 100), room(513)); status != VIRTIO_BLK_S_IOERR {
		t.Errorf("status %d", status)
	}
}

// FuzzRequest: whatever a driver sends, each request is answered, or the device
// ends, and nothing outside of the disk is touched.
func FuzzRequest(f *testing.F) {
	f.Add(uint32(VIRTIO_BLK_T_IN), uint64(0), []byte{}, uint16(513))
	f.Add(uint32(VIRTIO_BLK_T_OUT), uint64(2047), make([]byte, 512), uint16(1))
	f.Add(uint32(VIRTIO_BLK_T_DISCARD), uint64(0), extentOf(0, 1, 0).Data, uint16(1))
	f.Add(uint32(VIRTIO_BLK_T_GET_ID), uint64(0), []byte{}, uint16(21))
	f.Fuzz(func(t *testing.T, kind uint32, sector uint64, data []byte, n uint16) {
		d, path, _ := open(t, 0, false)
		drv := start(t, d)
		drv.Offer(head(kind, sector), out(data), room(int(n)))
		if err := drv.Notify(); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			u := drv.Take(t, patience)
			if u.Len == 0 || u.Len > uint32(n) {
				t.Errorf("%d bytes of %d", u.Len, n)
			}
		} else if err := d.Wait(); !errors.Is(err, queue.ErrBadRing) {
			t.Error(err)
		}
		if st, err := os.Stat(path); err != nil || st.Size() != testSectors*sectorBytes {
			t.Errorf("the disk is another: %v", err)
		}
	})
}
