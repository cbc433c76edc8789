package notifyfd

import (
	"encoding/binary"
	"fmt"
	"os"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is used of linux/fuse.h, protocol 7.31.
const (
	opGetattr   = 3
	opOpen      = 14
	opRelease   = 18
	opFlush     = 25
	opInit      = 26
	opInterrupt = 36
	opIoctl     = 39
	opPoll      = 40
	opForget    = 2
	opBatch     = 42 // FUSE_BATCH_FORGET

	notifyPoll   = 1 // FUSE_NOTIFY_POLL
	pollSchedule = 1 // FUSE_POLL_SCHEDULE_NOTIFY
	directIO     = 1 // FOPEN_DIRECT_IO
	nonSeekable  = 4 // FOPEN_NONSEEKABLE

	bufferSize = 16 << 10 // bytes; the kernel wants 8 KiB at least
)

// inHeader lays out struct fuse_in_header.
type inHeader struct {
	_               structs.HostLayout
	len, opcode     uint32
	unique, node    uint64
	uid, gid        uint32
	pid, extensions uint32
}

// outHeader lays out struct fuse_out_header.
type outHeader struct {
	_      structs.HostLayout
	len    uint32
	error  int32
	unique uint64
}

// ioctlIn lays out struct fuse_ioctl_in.
type ioctlIn struct {
	_               structs.HostLayout
	fh              uint64
	flags, cmd      uint32
	arg             uint64
	inSize, outSize uint32
}

// pollIn lays out struct fuse_poll_in.
type pollIn struct {
	_             structs.HostLayout
	fh, kh        uint64
	flags, events uint32
}

const (
	sizeofInHeader  = unsafe.Sizeof(inHeader{})
	sizeofOutHeader = unsafe.Sizeof(outHeader{})
	sizeofIoctlIn   = unsafe.Sizeof(ioctlIn{})
	sizeofPollIn    = unsafe.Sizeof(pollIn{})
)

// mount makes a FUSE file system whose root is a regular file, mounted nowhere.
func mount() (dev *os.File, root int, err error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, -1, &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	fail := func(op string, err error) (*os.File, int, error) {
		unix.Close(fd) //nolint:errcheck // unused
		return nil, -1, os.NewSyscallError(op, err)
	}
	fs, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fail("fsopen", err)
	}
	defer unix.Close(fs)
	for _, o := range [][2]string{
		{"source", "seccomp"}, {"fd", fmt.Sprint(fd)}, {"rootmode", "100600"}, {"user_id", "0"}, {"group_id", "0"},
	} {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return fail("fsconfig "+o[0], err)
		}
	}
	// Whoever gets the descriptor may use it.
	if err := unix.FsconfigSetFlag(fs, "allow_other"); err != nil {
		return fail("fsconfig allow_other", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fail("fsconfig", err)
	}
	if root, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC); err != nil {
		return fail("fsmount", err)
	}
	// Only now: before, the kernel has nothing to poll.
	return os.NewFile(uintptr(fd), "/dev/fuse"), root, nil
}

// reply answers a request with an errno, or with data.
func (f *FS) reply(unique uint64, errno unix.Errno, data []byte) {
	h := outHeader{len: uint32(sizeofOutHeader), error: -int32(errno), unique: unique}
	if errno == 0 {
		h.len += uint32(len(data))
	} else {
		data = nil
	}
	f.write(h, data)
}

func (f *FS) write(h outHeader, data []byte) {
	b := binary.NativeEndian.AppendUint32(nil, h.len)
	b = binary.NativeEndian.AppendUint32(b, uint32(h.error))
	b = binary.NativeEndian.AppendUint64(b, h.unique)
	f.dev.Write(append(b, data...)) //nolint:errcheck // ENOENT: who asked has been interrupted
}

// initReply is struct fuse_init_out.
func initReply() []byte {
	b := make([]byte, 64)
	binary.NativeEndian.PutUint32(b[0:], 7)
	binary.NativeEndian.PutUint32(b[4:], 31)
	binary.NativeEndian.PutUint32(b[20:], 4096) // max_write
	return b
}

// attrReply is struct fuse_attr_out of the one file.
func attrReply() []byte {
	b := make([]byte, 104)
	attr := b[16:]
	binary.NativeEndian.PutUint64(attr[0:], 1)                   // ino
	binary.NativeEndian.PutUint32(attr[60:], unix.S_IFREG|0o600) // mode
	binary.NativeEndian.PutUint32(attr[64:], 1)                  // nlink
	binary.NativeEndian.PutUint32(attr[80:], 4096)               // blksize
	return b
}

// openReply is struct fuse_open_out.
func openReply(fh uint64) []byte {
	b := binary.NativeEndian.AppendUint64(nil, fh)
	b = binary.NativeEndian.AppendUint32(b, directIO|nonSeekable)
	return binary.NativeEndian.AppendUint32(b, 0)
}

// ioctlReply is struct fuse_ioctl_out with what the call writes.
func ioctlReply(result int32, data []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(result))
	return append(append(b, make([]byte, 12)...), data...)
}

func pollReply(events uint32) []byte {
	return binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, events), 0)
}
