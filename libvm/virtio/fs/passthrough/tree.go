package passthrough

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// tree is one shared tree.
type tree struct {
	key, name string
	readOnly  bool
	ids       *IDMap
	dir       *inode // the synthetic /<key>
	root      *inode
	rootVol   *volume
	// mount is a readable descriptor on the root's mount, for
	// open_by_handle_at, or nil where file handles do not work.
	mount   *pathFD
	removed atomic.Bool
	vols    atomic.Pointer[[]*volume] // copied on write, under Server.mu
}

// volume is a (device, mount) inside a tree. There are more than one when host
// mounts lie below the root.
type volume struct {
	tree  *tree
	dev   uint64 // st_dev
	mnt   uint64 // stx_mnt_id, 0 where the kernel does not say
	index uint64 // of dev, in inode numbers
	ids   *IDMap // nil: owners are those of the host
	// btime tells inodes apart whose number was used again. Not on overlayfs,
	// where it changes when a file is copied up.
	btime bool
	// flush says that close(2) can fail or has an effect (network file systems).
	flush bool
}

// File systems on which the last close writes back (statfs(2) magic numbers).
const (
	magicNFS  = 0x6969
	magicSMB2 = 0xfe534d42
	magicCIFS = 0xff534d42
	magicCeph = 0x00c36400
	magic9P   = 0x01021997
	magicAFS  = 0x5346414f
)

// TreeOptions are how a tree is shared.
type TreeOptions struct {
	ReadOnly bool   // every change is refused with EROFS
	IDs      *IDMap // of the owners; nil: they are those of the host
}

// AddTree shares root, an O_PATH (or other) descriptor of a directory, regular
// file or socket, as /<key>/<name>. It may be called while a guest is running. The server
// keeps its own duplicate of root.
//
// A source that a guest is to see in two places is one tree, bound twice there:
// two trees over the same files do not share a page cache.
func (s *Server) AddTree(key, name string, root *os.File, o TreeOptions) error {
	for _, n := range []string{key, name} {
		if !validName(n) || strings.HasPrefix(n, pollHackPrefix) {
			return fmt.Errorf("shared tree %q/%q: bad name", key, name)
		}
	}
	fd, err := unix.FcntlInt(root.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if err := s.addTree(&tree{key: key, name: name, readOnly: o.ReadOnly, ids: o.IDs}, fd); err != nil {
		unix.Close(fd)
		return fmt.Errorf("shared tree %q/%q: %w", key, name, err)
	}
	return nil
}

// pollHackPrefix begins a name that go-fuse treats specially in the root.
const pollHackPrefix = ".go-fuse-"

func (s *Server) addTree(t *tree, fd int) error {
	var st unix.Statx_t
	if err := statxFD(fd, &st); err != nil {
		return os.NewSyscallError("statx", err)
	}
	typ := uint32(st.Mode) & unix.S_IFMT
	if typ != unix.S_IFDIR && typ != unix.S_IFREG && typ != unix.S_IFSOCK {
		return fmt.Errorf("file type %#o: not a directory, a regular file or a socket", typ)
	}
	t.vols.Store(&[]*volume{})
	tr := traitsOf(fd)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trees[t.key] != nil {
		return ErrTreeExists
	}
	t.rootVol = s.addVolume(t, &st, tr)
	t.dir = &inode{kind: kindKey, typ: unix.S_IFDIR, permanent: true, vol: &volume{tree: t}}
	t.root = newInode(t.rootVol, &st)
	t.root.permanent = true
	p := &pathFD{fd: fd, owner: t.root}
	p.refs.Store(1)
	t.root.fd.Store(p)
	if err := s.table.add(t.dir); err != nil {
		return err
	}
	if err := s.table.add(t.root); err != nil {
		s.table.remove(t.dir)
		return err
	}
	if typ == unix.S_IFDIR {
		if m := probeHandles(fd); m >= 0 {
			t.mount = &pathFD{fd: m}
			t.mount.refs.Store(1)
		}
	}
	s.trees[t.key] = t
	s.order = append(s.order, t)
	return nil
}

// RemoveTree ends the sharing of the tree with the given key. What the guest has
// open in it is closed, and every request for it fails with ESTALE.
func (s *Server) RemoveTree(key string) error {
	s.mu.Lock()
	t := s.trees[key]
	if t == nil {
		s.mu.Unlock()
		return fmt.Errorf("%q: %w", key, ErrTreeNotExist)
	}
	t.removed.Store(true)
	delete(s.trees, key)
	for i := range s.order {
		if s.order[i] == t {
			s.order = append(s.order[:i:i], s.order[i+1:]...)
			break
		}
	}
	files := s.files.takeAll(func(f *file) bool { return f.n.vol != nil && f.n.vol.tree == t })
	for _, f := range files {
		s.unlistFile(f)
	}
	s.table.remove(t.dir)
	s.table.remove(t.root)
	inodes := s.table.ofTree(t)
	s.mu.Unlock()
	for _, f := range files {
		f.close()
	}
	for _, n := range append(inodes, t.root) {
		s.dropFD(n)
	}
	if t.mount != nil {
		t.mount.release()
	}
	return nil
}

// volumeOf returns the volume of t that st is on; name in dir (or dir itself, if
// name is empty) is a file there.
func (s *Server) volumeOf(t *tree, st *unix.Statx_t, dir int, name string) *volume {
	dev, mnt := devOf(st), mountOf(st)
	if v := t.rootVol; v.dev == dev && v.mnt == mnt {
		return v
	}
	for _, v := range *t.vols.Load() {
		if v.dev == dev && v.mnt == mnt {
			return v
		}
	}
	fd := dir
	if name != "" {
		var err error
		if fd, err = openPath(dir, name); err != nil {
			fd = -1
		} else {
			defer unix.Close(fd)
		}
	}
	tr := traitsOf(fd)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range *t.vols.Load() {
		if v.dev == dev && v.mnt == mnt {
			return v
		}
	}
	v := s.addVolume(t, st, tr)
	vols := append((*t.vols.Load())[:len(*t.vols.Load()):len(*t.vols.Load())], v)
	t.vols.Store(&vols)
	return v
}

// traits are what the type of a file system says about it.
type traits struct{ btime, flush bool }

// traitsOf asks the file system of fd, or of nothing if fd is -1, which may take
// as long as a dead server does: no lock is held.
func traitsOf(fd int) traits {
	var f unix.Statfs_t
	if fd < 0 || unix.Fstatfs(fd, &f) != nil {
		return traits{flush: true}
	}
	switch uint32(f.Type) {
	case magicNFS, magicSMB2, magicCIFS, magicCeph, magic9P, magicAFS, unix.FUSE_SUPER_MAGIC:
		return traits{flush: true}
	case unix.OVERLAYFS_SUPER_MAGIC:
		return traits{}
	}
	return traits{btime: true}
}

// addVolume makes the volume of st. Called with s.mu.
func (s *Server) addVolume(t *tree, st *unix.Statx_t, tr traits) *volume {
	v := &volume{tree: t, dev: devOf(st), mnt: mountOf(st), btime: tr.btime, flush: tr.flush}
	index, ok := s.devs[v.dev]
	if !ok {
		index = uint64(len(s.devs))
		s.devs[v.dev] = index
	}
	v.index = index
	if t.ids != nil && (t.ids.Recursive || t.rootVol == nil || v.mnt != 0 && v.mnt == t.rootVol.mnt) {
		v.ids = t.ids
	}
	return v
}

// number maps an inode number of the volume into the one number space that the
// guest sees: the index of the device above 48 bits of number, so that the first
// tree's numbers are the host's. Numbers that need more bits are hashed.
func (v *volume) number(ino uint64) uint64 {
	const bits = 48
	if ino>>bits == 0 && v.index < 1<<14 {
		return v.index<<bits | ino
	}
	h := ino ^ v.index*0x9e3779b97f4a7c15
	h ^= h >> 31
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 29
	return h | 1<<63
}
