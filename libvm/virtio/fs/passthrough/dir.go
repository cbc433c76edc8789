package passthrough

import (
	"bytes"
	"encoding/binary"
	"sync"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// dirBytes is the size of one getdents64 buffer. An open directory keeps one
// while it is read, and not a byte more, however many the guest opens.
const dirBytes = 8 << 10

var dirBuffers = sync.Pool{New: func() any { return new([dirBytes]byte) }}

// Layout of struct linux_dirent64, in bytes: d_ino u64, d_off s64, d_reclen u16,
// d_type u8, d_name.
const (
	direntOff    = 8
	direntReclen = 16
	direntType   = 18
	direntName   = 19
)

// OpenDir opens a directory.
func (s *Server) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	var n *inode
	if in.NodeId != fuse.FUSE_ROOT_ID {
		var code fuse.Status
		if n, code = s.node(in.NodeId); !code.Ok() {
			return code
		}
	}
	if n == nil || n.kind == kindKey {
		out.Fh = syntheticFH
		return fuse.OK
	}
	if !n.isDir() {
		return fuse.ENOTDIR
	}
	fd, err := s.openNode(n, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return statusOf(err)
	}
	f, err := s.addFile(n, fd, false)
	if err != nil {
		return statusOf(err)
	}
	out.Fh = f.id
	return fuse.OK
}

// syntheticFH is the handle of the directories that are not on the host.
const syntheticFH = 1<<64 - 1

// dirent is one entry of an open directory.
type dirent struct {
	ino  uint64
	next int64  // the cookie behind it
	typ  uint8  // DT_*
	name []byte // with its NUL, inside the stream's buffer
}

// peek returns the next entry at cookie off, without consuming it. ok is false
// at the end. Called with f.dir.mu.
func (f *file) peek(off int64) (e dirent, ok bool, err error) {
	d := &f.dir
	if d.closed {
		return e, false, unix.EBADF
	}
	if d.off != off {
		d.free()
		if _, err := unix.Seek(f.fd, off, unix.SEEK_SET); err != nil {
			return e, false, err
		}
		d.off = off
	}
	if d.at == d.n {
		if d.buf == nil {
			d.buf = dirBuffers.Get().(*[dirBytes]byte)
		}
		d.at = 0
		if d.n, err = unix.Getdents(f.fd, d.buf[:]); err != nil || d.n <= 0 {
			d.free()
			return e, false, err
		}
	}
	b := d.buf[d.at:d.n]
	reclen := int(binary.NativeEndian.Uint16(b[direntReclen:]))
	e = dirent{
		ino:  binary.NativeEndian.Uint64(b),
		next: int64(binary.NativeEndian.Uint64(b[direntOff:])),
		typ:  b[direntType],
		name: b[direntName:reclen],
	}
	e.name = e.name[:bytes.IndexByte(e.name, 0)+1]
	return e, true, nil
}

// skip consumes the entry that peek returned.
func (f *file) skip(e dirent) {
	d := &f.dir
	d.at += int(binary.NativeEndian.Uint16(d.buf[d.at+direntReclen:]))
	d.off = e.next
}

// ReadDir lists a directory.
func (s *Server) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return s.readDir(in, out, false)
}

// ReadDirPlus lists a directory with the attributes of each entry.
func (s *Server) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return s.readDir(in, out, true)
}

func (s *Server) readDir(in *fuse.ReadIn, out *fuse.DirEntryList, plus bool) fuse.Status {
	if in.Fh == syntheticFH {
		return s.readSynthetic(in, out, plus)
	}
	f, code := s.file(in.Fh)
	if !code.Ok() {
		return code
	}
	defer f.release()
	if !f.n.isDir() {
		return fuse.ENOTDIR
	}
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	off, filled := int64(in.Offset), false
	for {
		e, ok, err := f.peek(off)
		if err != nil && !filled {
			return statusOf(err)
		}
		if err != nil || !ok {
			return fuse.OK
		}
		if !s.list(f, e, out, plus) {
			return fuse.OK
		}
		filled = true
		f.skip(e)
		off = e.next
	}
}

// list adds e to out, and reports whether it had room.
func (s *Server) list(f *file, e dirent, out *fuse.DirEntryList, plus bool) bool {
	name := string(e.name[:len(e.name)-1])
	d := fuse.DirEntry{Name: name, Ino: f.n.vol.number(e.ino), Off: uint64(e.next), Mode: uint32(e.typ) << 12}
	if name == ".." && f.n.permanent {
		d.Ino = keyIno // what is above the tree on the host is not told
	}
	if !plus {
		return out.AddDirEntry(d)
	}
	slot := out.AddDirLookupEntry(d)
	if slot == nil {
		return false
	}
	if name == "." || name == ".." {
		return true
	}
	// An entry that cannot be looked up now (it vanished, a limit was hit) is
	// listed without: the guest asks again when it needs it, and gets the error.
	var st unix.Statx_t
	if statxRaw(f.fd, unsafe.SliceData(e.name), 0, &st) != nil {
		return true
	}
	if st.Mode&unix.S_IFMT == unix.S_IFSOCK && s.socks.relay != nil {
		return true // it is looked up when it is used
	}
	n, err := s.ref(s.volumeOf(f.n.vol.tree, &st, f.fd, name), &st, f.n, name)
	if err != nil {
		return true
	}
	s.entry(n, &st, slot)
	out.FixMode(uint32(st.Mode))
	return true
}

// readSynthetic lists / or a /<key>. The offsets are positions.
func (s *Server) readSynthetic(in *fuse.ReadIn, out *fuse.DirEntryList, plus bool) fuse.Status {
	type item struct {
		name string
		ino  uint64
	}
	items := []item{{".", rootIno}, {"..", rootIno}}
	s.mu.Lock()
	if in.NodeId == fuse.FUSE_ROOT_ID {
		for _, t := range s.order {
			items = append(items, item{t.key, keyIno + uint64(uint32(t.dir.id))})
		}
	} else if n := s.table.get(in.NodeId); n != nil && n.kind == kindKey {
		t := n.vol.tree
		items[0].ino = keyIno + uint64(uint32(n.id))
		items = append(items, item{t.name, t.rootVol.number(t.root.ino)})
	} else {
		s.mu.Unlock()
		return fuse.EBADF
	}
	s.mu.Unlock()
	for i := in.Offset; i < uint64(len(items)); i++ {
		d := fuse.DirEntry{Name: items[i].name, Ino: items[i].ino, Mode: unix.S_IFDIR, Off: i + 1}
		if i >= 2 && in.NodeId != fuse.FUSE_ROOT_ID {
			d.Mode = 0 // a tree may be a file
		}
		if plus && out.AddDirLookupEntry(d) == nil || !plus && !out.AddDirEntry(d) {
			break
		}
	}
	return fuse.OK
}

// FsyncDir writes a directory back.
func (s *Server) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if in.Fh == syntheticFH {
		return fuse.OK
	}
	return s.Fsync(cancel, in)
}
