package blk

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Disk is a block device, or a regular file, of the host.
type Disk struct {
	file      *os.File
	size      int64  // bytes
	BlockSize uint32 // the smallest unit of data, in bytes: 512 to 64 KiB
	physical  uint32 // the unit that the disk writes at best, in bytes
	ReadOnly  bool   // nothing is written, whatever the guest does
	Serial    string // what GET_ID answers, at most 20 bytes

	mu      sync.Mutex // guards aligned
	aligned []byte     // bounceBytes, or nil
}

// maxBlock bounds the block size: requests are made of whole blocks.
const maxBlock = 64 << 10 // bytes

// NewDisk returns a disk of an open file, which it closes with Close. The page
// cache of the host is not used if the file was opened with O_DIRECT.
func NewDisk(f *os.File, readOnly bool, serial string) (*Disk, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	d := &Disk{file: f, size: st.Size, BlockSize: sectorBytes, physical: sectorBytes, ReadOnly: readOnly, Serial: serial}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFBLK:
		if err := d.measure(); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
	default:
		return nil, fmt.Errorf("%s is neither a block device nor a file", f.Name())
	}
	if b := d.BlockSize; b < sectorBytes || b > maxBlock || bits.OnesCount32(b) != 1 {
		return nil, fmt.Errorf("%s: blocks of %d bytes", f.Name(), b)
	}
	return d, nil
}

// measure asks a block device for what it is.
func (d *Disk) measure() error {
	var size uint64
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, d.file.Fd(), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size))); e != 0 {
		return os.NewSyscallError("ioctl BLKGETSIZE64", e)
	}
	d.size = int64(size)
	for _, q := range []struct {
		name string
		req  uint
		dst  *uint32
	}{{"BLKSSZGET", unix.BLKSSZGET, &d.BlockSize}, {"BLKPBSZGET", unix.BLKPBSZGET, &d.physical}} {
		v, err := unix.IoctlGetUint32(int(d.file.Fd()), q.req)
		if err != nil {
			return fmt.Errorf("ioctl %s: %w", q.name, err)
		}
		*q.dst = v
	}
	ro, err := unix.IoctlGetUint32(int(d.file.Fd()), unix.BLKROGET)
	if err != nil {
		return fmt.Errorf("ioctl BLKROGET: %w", err)
	}
	d.ReadOnly = d.ReadOnly || ro != 0
	return nil
}

// Size returns the disk's size, in bytes.
func (d *Disk) Size() int64 { return d.size }

// Close closes the file. No device may use the disk any more.
func (d *Disk) Close() error { return d.file.Close() }

// sectors returns the size of all whole blocks, in sectors.
func (d *Disk) sectors() uint64 {
	return uint64(d.size) / uint64(d.BlockSize) * uint64(d.BlockSize) / sectorBytes
}

// physicalExp returns the log2 of the logical blocks in a physical one.
func (d *Disk) physicalExp() uint8 {
	if d.physical <= d.BlockSize || bits.OnesCount32(d.physical) != 1 {
		return 0
	}
	return uint8(bits.TrailingZeros32(d.physical / d.BlockSize))
}

// errShort says that a disk ended before its end: it was made smaller.
var errShort = errors.New("disk is shorter than it was")

// transfer reads into or writes from all of parts, which are guest memory, at an
// offset in bytes.
func (d *Disk) transfer(write bool, parts [][]byte, off int64) error {
	call := unix.Preadv
	if write {
		call = unix.Pwritev
	}
	for n := 0; ; {
		parts = behind(parts, n)
		if len(parts) == 0 {
			return nil
		}
		var err error
		n, err = call(int(d.file.Fd()), parts, off)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			n = 0
		case err == unix.EINVAL:
			// With O_DIRECT memory has to be aligned. A guest's mostly is.
			return d.bounce(write, parts, off)
		case err != nil:
			return err
		case n == 0:
			return errShort
		}
		off += int64(n)
	}
}

// behind returns parts without their first n bytes, and without empty ones.
func behind(parts [][]byte, n int) [][]byte {
	for len(parts) > 0 && n >= len(parts[0]) {
		n -= len(parts[0])
		parts = parts[1:]
	}
	if n > 0 {
		parts = append([][]byte{parts[0][n:]}, parts[1:]...)
	}
	return parts
}

// bounceBytes is the size of the buffer for memory that is not aligned: a disk has
// one, whatever a guest asks for.
const bounceBytes = 4 * maxBlock

// bounce is transfer through a buffer that is aligned.
func (d *Disk) bounce(write bool, parts [][]byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.aligned == nil {
		room := make([]byte, bounceBytes+maxBlock)
		skip := int(-uintptr(unsafe.Pointer(&room[0])) % maxBlock)
		d.aligned = room[skip : skip+bounceBytes]
	}
	for len(parts) > 0 {
		n := 0
		for _, p := range parts {
			if write {
				n += copy(d.aligned[n:], p)
			} else {
				n += min(len(p), len(d.aligned)-n)
			}
		}
		if err := d.whole(write, d.aligned[:n], off); err != nil {
			return err
		}
		if !write {
			b := d.aligned[:n]
			for _, p := range parts {
				b = b[copy(p, b):]
			}
		}
		parts, off = behind(parts, n), off+int64(n)
	}
	return nil
}

// whole reads or writes all of b.
func (d *Disk) whole(write bool, b []byte, off int64) error {
	call := unix.Pread
	if write {
		call = unix.Pwrite
	}
	for len(b) > 0 {
		n, err := call(int(d.file.Fd()), b, off)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			n = 0
		case err != nil:
			return err
		case n == 0:
			return errShort
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// flush has all that was written reach the disk.
func (d *Disk) flush() error {
	if d.ReadOnly {
		return nil
	}
	return unix.Fdatasync(int(d.file.Fd()))
}

// zero makes a range read as zeros, and gives its space back if unmap.
func (d *Disk) zero(unmap bool, off, n int64) error {
	mode := uint32(unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE)
	if unmap {
		mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	}
	for {
		if err := unix.Fallocate(int(d.file.Fd()), mode, off, n); err != unix.EINTR {
			return err
		}
	}
}

// statusOf turns an error into what the driver is told.
func statusOf(err error) byte {
	switch err {
	case nil:
		return VIRTIO_BLK_S_OK
	case unix.EOPNOTSUPP, unix.ENOSYS:
		return VIRTIO_BLK_S_UNSUPP
	}
	return VIRTIO_BLK_S_IOERR
}
