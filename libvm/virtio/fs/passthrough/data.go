package passthrough

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Open opens a regular file. Everything else that has contents is opened by the
// guest's own kernel (FIFOs, sockets, devices) and never here.
func (s *Server) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if s.repeats(&in.InHeader) {
		return s.repeatOpen(in.NodeId, out)
	}
	n, code := s.node(in.NodeId)
	if !code.Ok() {
		return code
	}
	if !n.isReg() {
		if n.isDir() {
			return fuse.EISDIR
		}
		return fuse.Status(unix.ENXIO)
	}
	write := in.Flags&unix.O_ACCMODE != unix.O_RDONLY
	if (write || in.Flags&unix.O_TRUNC != 0) && n.vol.tree.readOnly {
		return fuse.EROFS
	}
	fd, err := s.openNode(n, int(in.Flags)&openFlags)
	if err != nil {
		return statusOf(err)
	}
	if in.Mode&fuse.OPEN_KILL_SUIDGID != 0 && in.Flags&unix.O_TRUNC != 0 {
		if err := s.killSUID(fd); err != nil {
			unix.Close(fd)
			return statusOf(err)
		}
	}
	f, err := s.addFile(n, fd, write)
	if err != nil {
		return statusOf(err)
	}
	*out = fuse.OpenOut{Fh: f.id, OpenFlags: s.openOutFlags(n, write)}
	if n.unchanged(fd) {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
	return fuse.OK
}

// openOutFlags says that close(2) need not be reported where it has no effect.
func (s *Server) openOutFlags(n *inode, write bool) uint32 {
	if write && n.vol.flush {
		return 0
	}
	return fuse.FOPEN_NOFLUSH
}

// settled is how old a change must be before the next one surely has another
// time stamp. The kernel's clock for time stamps ticks every 1 to 10 ms.
const settled = 50 * time.Millisecond

// unchanged reports whether the file behind fd is as it was when it was last
// opened, so that the guest may keep the pages it has. Otherwise an open drops
// them: what was written on the host before an open is read after it.
func (n *inode) unchanged(fd int) bool {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false
	}
	mtime, ctime := st.Mtim.Nano(), st.Ctim.Nano()
	h := uint64(mtime)*0x9e3779b97f4a7c15 ^ uint64(ctime)*0xbf58476d1ce4e5b9 ^ uint64(st.Size)*0x94d049bb133111eb
	h |= 1
	if time.Now().UnixNano()-max(mtime, ctime) < int64(settled) {
		h = 0
	}
	return n.seen.Swap(h) == h && h != 0
}

// readResult is a READ that is done when go-fuse has room for it: straight into
// the guest's memory.
type readResult struct {
	f    *file
	off  int64
	size int
}

// Size returns how many bytes are read at most.
func (r *readResult) Size() int { return r.size }

// Done ends the use of the file.
func (r *readResult) Done() { r.f.release() }

// Bytes reads into buf.
func (r *readResult) Bytes(buf []byte) ([]byte, fuse.Status) {
	n, code := r.Readv([][]byte{buf[:min(len(buf), r.size)]})
	return buf[:n], code
}

// maxIov is the most pieces that one system call takes (UIO_MAXIOV).
const maxIov = 1024

// Readv reads into dst, which go-fuse has cut to Size.
func (r *readResult) Readv(dst [][]byte) (int, fuse.Status) {
	n, err := inPieces(dst, r.off, func(dst [][]byte, off int64) (int, error) { return unix.Preadv(r.f.fd, dst, off) })
	return n, statusOf(err)
}

// inPieces moves parts, as many at a time as one system call takes, until there
// are no more or not all of a piece was moved. That an error came behind the
// first piece the next request will find out.
func inPieces(parts [][]byte, off int64, move func(parts [][]byte, off int64) (int, error)) (int, error) {
	total := 0
	for len(parts) > 0 {
		piece := parts[:min(len(parts), maxIov)]
		n, err := move(piece, off+int64(total))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			if total > 0 {
				break
			}
			return 0, err
		}
		total += n
		if n < size(piece) {
			break
		}
		parts = parts[len(piece):]
	}
	return total, nil
}

func size(parts [][]byte) (n int) {
	for _, p := range parts {
		n += len(p)
	}
	return n
}

// Read returns the result that reads the file.
func (s *Server) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	f, code := s.file(in.Fh)
	if !code.Ok() {
		return nil, code
	}
	return &readResult{f: f, off: int64(in.Offset), size: min(int(in.Size), len(buf))}, fuse.OK
}

// Write writes to a file.
func (s *Server) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	return s.Writev(cancel, in, [][]byte{data})
}

// Writev writes to a file. data is the guest's memory.
func (s *Server) Writev(_ <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	f, code := s.file(in.Fh)
	if !code.Ok() {
		return 0, code
	}
	defer f.release()
	if !f.write {
		return 0, fuse.EBADF
	}
	s.didFile(f.n)
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		if err := s.killSUID(f.fd); err != nil {
			return 0, statusOf(err)
		}
	}
	// O_APPEND may have been set or cleared since the open, so it comes with each
	// write. The host's end of file counts: others may append, too.
	flags := 0
	if in.Flags&unix.O_APPEND != 0 && in.WriteFlags&fuse.WRITE_CACHE == 0 {
		flags = unix.RWF_APPEND
	}
	n, err := inPieces(data, int64(in.Offset), func(data [][]byte, off int64) (int, error) {
		return unix.Pwritev2(f.fd, data, off, flags)
	})
	return uint32(n), statusOf(err)
}

// Flush follows close(2) in the guest, on file systems where it means something.
func (s *Server) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	if in.Fh == syntheticFH {
		return fuse.OK
	}
	f, code := s.file(in.Fh)
	if !code.Ok() {
		return code
	}
	defer f.release()
	if !f.write || !f.n.vol.flush {
		return fuse.OK
	}
	fd, err := unix.FcntlInt(uintptr(f.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return statusOf(err)
	}
	return statusOf(unix.Close(fd))
}

// Fsync writes a file or directory back.
func (s *Server) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	f, code := s.file(in.Fh)
	if !code.Ok() {
		return code
	}
	defer f.release()
	if in.FsyncFlags&1 != 0 {
		return statusOf(unix.Fdatasync(f.fd))
	}
	return statusOf(unix.Fsync(f.fd))
}

// Fallocate changes the space of a file.
func (s *Server) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	f, code := s.file(in.Fh)
	if !code.Ok() {
		return code
	}
	defer f.release()
	if !f.write {
		return fuse.EBADF
	}
	if in.Uid != 0 { // the protocol has no flag for it here
		if err := s.killSUID(f.fd); err != nil {
			return statusOf(err)
		}
	}
	return statusOf(unix.Fallocate(f.fd, in.Mode, int64(in.Offset), int64(in.Length)))
}

// Lseek finds data and holes. The descriptor's own position is not used for
// anything else.
func (s *Server) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	if in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE {
		return fuse.EINVAL
	}
	f, code := s.file(in.Fh)
	if !code.Ok() {
		return code
	}
	defer f.release()
	if f.n.isDir() {
		return fuse.EINVAL
	}
	off, err := unix.Seek(f.fd, int64(in.Offset), int(in.Whence))
	if err != nil {
		return statusOf(err)
	}
	out.Offset = uint64(off)
	return fuse.OK
}

// maxCopy bounds how long one COPY_FILE_RANGE keeps a worker, in bytes; the
// caller goes on from where it stopped.
const maxCopy = 64 << 20

// CopyFileRange copies between two open files.
func (s *Server) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	from, code := s.file(in.FhIn)
	if !code.Ok() {
		return 0, code
	}
	defer from.release()
	to, code := s.file(in.FhOut)
	if !code.Ok() {
		return 0, code
	}
	defer to.release()
	if !to.write {
		return 0, fuse.EBADF
	}
	if in.Uid != 0 {
		if err := s.killSUID(to.fd); err != nil {
			return 0, statusOf(err)
		}
	}
	offIn, offOut := int64(in.OffIn), int64(in.OffOut)
	n, err := unix.CopyFileRange(from.fd, &offIn, to.fd, &offOut, int(min(in.Len, maxCopy)), int(in.Flags))
	if err != nil {
		return 0, statusOf(err)
	}
	return uint32(n), fuse.OK
}

// Ioctl is refused: file attributes such as immutable are the host's.
func (s *Server) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(unix.ENOTTY)
}
