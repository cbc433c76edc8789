package passthrough

import (
	"strconv"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// statxMask is what is asked of each file: the birth time and the mount tell
// files apart that have the same number.
const statxMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME | unix.STATX_MNT_ID

// statusOf turns an error of this package, always an errno, into a status.
func statusOf(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	if e, ok := err.(unix.Errno); ok {
		return fuse.Status(e)
	}
	return fuse.EIO
}

// maxName is the longest file name, in bytes (NAME_MAX).
const maxName = 255

// validName reports whether name is one component that may be looked up: a
// slash or ".." would lead out of the directory.
func validName(name string) bool {
	if name == "" || name == "." || name == ".." || len(name) > maxName {
		return false
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return false
		}
	}
	return true
}

func checkName(name string) fuse.Status {
	if len(name) > maxName {
		return fuse.Status(unix.ENAMETOOLONG)
	}
	if !validName(name) {
		return fuse.EINVAL
	}
	return fuse.OK
}

func statxRaw(dir int, name *byte, flags int, st *unix.Statx_t) error {
	for {
		_, _, e := unix.Syscall6(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(name)),
			uintptr(flags|unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT), statxMask, uintptr(unsafe.Pointer(st)), 0)
		switch e {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return e
		}
	}
}

// statxFD is statx of the file behind fd.
func statxFD(fd int, st *unix.Statx_t) error {
	var empty byte
	return statxRaw(fd, &empty, unix.AT_EMPTY_PATH, st)
}

// statxAt is statx of name in dir, a symbolic link itself if it is one.
func statxAt(dir int, name string, st *unix.Statx_t) error {
	var buf [maxName + 1]byte
	if len(name) > maxName {
		return unix.ENAMETOOLONG
	}
	copy(buf[:], name)
	return statxRaw(dir, &buf[0], 0, st)
}

func devOf(st *unix.Statx_t) uint64 { return unix.Mkdev(st.Dev_major, st.Dev_minor) }

func mountOf(st *unix.Statx_t) uint64 {
	if st.Mask&unix.STATX_MNT_ID == 0 {
		return 0
	}
	return st.Mnt_id
}

func birth(st *unix.Statx_t) int64 {
	if st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
}

func openat(dir int, name string, flags int, mode uint32) (int, error) {
	var buf [maxName + 1]byte
	if len(name) > maxName {
		return -1, unix.ENAMETOOLONG
	}
	copy(buf[:], name)
	return openRaw(dir, &buf[0], flags, mode)
}

func openRaw(dir int, name *byte, flags int, mode uint32) (int, error) {
	for {
		fd, _, e := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(name)),
			uintptr(flags|unix.O_CLOEXEC), uintptr(mode), 0, 0)
		switch e {
		case 0:
			return int(fd), nil
		case unix.EINTR:
		default:
			return -1, e
		}
	}
}

// openPath opens name in dir for its identity only.
func openPath(dir int, name string) (int, error) {
	return openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
}

// number is fd as a name in /proc/self/fd.
type number [12]byte

func (b *number) set(fd int) *byte {
	s := strconv.AppendInt(b[:0], int64(fd), 10)
	b[len(s)] = 0
	return &b[0]
}

// openNumber opens what proc, a descriptor of /proc/self/fd, has under fd.
func openNumber(proc, fd, flags int) (int, error) {
	var b number
	return openRaw(proc, b.set(fd), flags, 0)
}

// chmodFD sets the mode of the file behind fd, which may be O_PATH.
func (s *Server) chmodFD(fd int, mode uint32) error {
	var b number
	_, _, e := unix.Syscall(unix.SYS_FCHMODAT, uintptr(s.proc), uintptr(unsafe.Pointer(b.set(fd))), uintptr(mode))
	if e != 0 {
		return e
	}
	return nil
}

// attr fills in a from st.
func (v *volume) attr(st *unix.Statx_t, a *fuse.Attr) {
	*a = fuse.Attr{
		Ino:       v.number(st.Ino),
		Size:      st.Size,
		Blocks:    st.Blocks,
		Atime:     uint64(st.Atime.Sec),
		Mtime:     uint64(st.Mtime.Sec),
		Ctime:     uint64(st.Ctime.Sec),
		Atimensec: st.Atime.Nsec,
		Mtimensec: st.Mtime.Nsec,
		Ctimensec: st.Ctime.Nsec,
		Mode:      uint32(st.Mode),
		Nlink:     st.Nlink,
		// new_encode_dev of the kernel, as FUSE has it.
		Rdev:    st.Rdev_minor&0xff | st.Rdev_major<<8 | (st.Rdev_minor&^0xff)<<12,
		Blksize: st.Blksize,
	}
	a.Uid, a.Gid, _ = v.ids.owner(st)
}

// probeHandles returns a readable descriptor on the mount of directory fd if
// file handles work there (a file system that encodes them, CAP_DAC_READ_SEARCH),
// or -1.
func probeHandles(fd int) int {
	h := fileHandle(fd)
	if h == "" {
		return -1
	}
	mount, err := openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1
	}
	p, err := openByHandle(mount, h)
	if err != nil {
		unix.Close(mount)
		return -1
	}
	unix.Close(p)
	return mount
}

// fileHandle returns the file handle of fd, or "" if it has none: its type in
// four bytes, then its bytes. Handles are ours alone; the guest never sees or
// makes one.
func fileHandle(fd int) string {
	h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return ""
	}
	t := uint32(h.Type())
	return string(append([]byte{byte(t), byte(t >> 8), byte(t >> 16), byte(t >> 24)}, h.Bytes()...))
}

func openByHandle(mount int, handle string) (int, error) {
	t := int32(uint32(handle[0]) | uint32(handle[1])<<8 | uint32(handle[2])<<16 | uint32(handle[3])<<24)
	return unix.OpenByHandleAt(mount, unix.NewFileHandle(t, []byte(handle[4:])), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
}

// String returns the number.
func (b *number) String() string {
	i := 0
	for b[i] != 0 {
		i++
	}
	return string(b[:i])
}
