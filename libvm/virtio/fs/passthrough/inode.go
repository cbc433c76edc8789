package passthrough

import (
	"math"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

type kind uint8

const (
	kindFile  kind = iota // a file of a tree, of any type
	kindKey               // /<key>
	kindGhost             // what the agent removes again, after the host did
)

// inode is a file that the guest references. It has an O_PATH descriptor only
// while it is in use or in the cache; what brings it back is the name under
// which it was last seen in its parent, or its file handle.
type inode struct {
	id        uint64
	vol       *volume
	ino       uint64
	btime     int64 // ns, 0 if the volume's is not to be trusted
	typ       uint32
	kind      kind
	permanent bool // lives as long as its tree, whatever the guest forgets

	fd   atomic.Pointer[pathFD]
	gone atomic.Bool   // not in the table any more: cache no descriptor
	seen atomic.Uint64 // fingerprint of the content when last opened, 0 unknown
	acl  atomic.Int64  // when the default ACL was looked for (directories)

	// Guarded by Server.mu.
	parent  *inode
	name    string // in parent; "" if it has none that we know
	handle  string // file handle: type, then bytes; "" if not taken
	nlookup uint64
	kids    uint32 // inodes whose parent this is: they keep it in the table
	files   *file  // open files
}

func newInode(v *volume, st *unix.Statx_t) *inode {
	n := &inode{vol: v, ino: st.Ino, typ: uint32(st.Mode) & unix.S_IFMT}
	if v.btime {
		n.btime = birth(st)
	}
	return n
}

func (n *inode) isDir() bool { return n.typ == unix.S_IFDIR }
func (n *inode) isReg() bool { return n.typ == unix.S_IFREG }

// is reports whether st describes n.
func (n *inode) is(st *unix.Statx_t) bool {
	return n.ino == st.Ino && n.vol.dev == devOf(st) && n.vol.mnt == mountOf(st) &&
		n.typ == uint32(st.Mode)&unix.S_IFMT && (!n.vol.btime || n.btime == birth(st))
}

type inodeKey struct {
	vol *volume
	ino uint64
}

// inodeTable holds the inodes by node id and by identity. A node id is a slot
// with, in the upper half, how often the slot was used before, so that an id
// that the guest has forgotten never names another inode.
type inodeTable struct {
	max   int
	slots []inodeSlot
	free  []uint32
	byKey map[inodeKey]*inode
}

type inodeSlot struct {
	n   *inode
	gen uint32
}

// firstSlot is behind 0, which is no node, and fuse.FUSE_ROOT_ID.
const firstSlot = 2

func (t *inodeTable) init(n int) {
	t.max = n
	t.slots = make([]inodeSlot, firstSlot)
	t.byKey = map[inodeKey]*inode{}
}

// add gives n an id. It fails with ENOMEM when the table is full: a guest that
// looks up and never forgets must not take all of the host's memory. ENOMEM,
// because a kernel that is told anything else while it revalidates a name
// detaches what is mounted there.
func (t *inodeTable) add(n *inode) error {
	var slot uint32
	switch {
	case len(t.free) > 0:
		slot = t.free[len(t.free)-1]
		t.free = t.free[:len(t.free)-1]
	case len(t.slots) < t.max+firstSlot && len(t.slots) < math.MaxUint32:
		slot = uint32(len(t.slots))
		t.slots = append(t.slots, inodeSlot{})
	default:
		return unix.ENOMEM
	}
	t.slots[slot].n = n
	n.id = uint64(t.slots[slot].gen&math.MaxInt32)<<32 | uint64(slot)
	if n.kind == kindFile {
		t.byKey[inodeKey{n.vol, n.ino}] = n
	}
	return nil
}

func (t *inodeTable) get(id uint64) *inode {
	slot := uint64(uint32(id))
	if slot >= uint64(len(t.slots)) || t.slots[slot].n == nil || t.slots[slot].n.id != id {
		return nil
	}
	return t.slots[slot].n
}

func (t *inodeTable) remove(n *inode) {
	if t.get(n.id) != n {
		return
	}
	slot := uint32(n.id)
	t.slots[slot].n = nil
	t.slots[slot].gen++
	t.free = append(t.free, slot)
	if k := (inodeKey{n.vol, n.ino}); t.byKey[k] == n {
		delete(t.byKey, k)
	}
	n.gone.Store(true)
}

// takeAll removes and returns all inodes that are not permanent.
func (t *inodeTable) takeAll() []*inode {
	var all []*inode
	for _, s := range t.slots {
		if s.n == nil {
			continue
		}
		if s.n.permanent {
			s.n.kids = 0
			continue
		}
		all = append(all, s.n)
	}
	for _, n := range all {
		t.remove(n)
	}
	return all
}

func (t *inodeTable) ofTree(tr *tree) []*inode {
	var all []*inode
	for _, s := range t.slots {
		if s.n != nil && s.n.vol.tree == tr {
			all = append(all, s.n)
		}
	}
	return all
}

// reap removes n, and then its parents, as far as nothing references them, and
// returns what it removed. Called with Server.mu.
func (s *Server) reap(n *inode, dead []*inode) []*inode {
	for n != nil && n.nlookup == 0 && n.kids == 0 && n.files == nil && !n.permanent && !n.gone.Load() {
		s.table.remove(n)
		dead = append(dead, n)
		p := n.parent
		n.parent, n.name = nil, ""
		if p != nil && p.kids > 0 {
			p.kids--
		}
		n = p
	}
	return dead
}

// Forget drops nlookup references of the guest to a node. Too many, or ones to
// a node that it does not have, are ignored.
func (s *Server) Forget(nodeid, nlookup uint64) {
	var room [4]*inode
	s.mu.Lock()
	n := s.table.get(nodeid)
	if n == nil || n.permanent {
		s.mu.Unlock()
		return
	}
	n.nlookup -= min(nlookup, n.nlookup)
	dead := s.reap(n, room[:0])
	s.mu.Unlock()
	for _, n := range dead {
		s.dropFD(n)
	}
}

// node returns the inode of a node id other than the root's.
func (s *Server) node(id uint64) (*inode, fuse.Status) {
	s.mu.Lock()
	n := s.table.get(id)
	s.mu.Unlock()
	if n == nil || n.vol.tree.removed.Load() {
		return nil, fuse.Status(unix.ESTALE)
	}
	return n, fuse.OK
}

// setLink records that n is name in parent. Called with Server.mu; what is
// returned has lost its last reference.
func (s *Server) setLink(n, parent *inode, name string) []*inode {
	if n.parent == parent && n.name == name || n.permanent || n == parent {
		return nil
	}
	old := n.parent
	if parent != nil && parent != old {
		parent.kids++
	}
	n.parent, n.name = parent, name
	if old == nil || old == parent {
		return nil
	}
	if old.kids > 0 {
		old.kids--
	}
	return s.reap(old, nil)
}

// ref finds or makes the inode that st describes, which is name in parent, and
// counts one lookup of it.
func (s *Server) ref(v *volume, st *unix.Statx_t, parent *inode, name string) (*inode, error) {
	var dead []*inode
	s.mu.Lock()
	n := s.table.byKey[inodeKey{v, st.Ino}]
	if n != nil && !n.is(st) {
		// The number was used again for another file.
		delete(s.table.byKey, inodeKey{v, st.Ino})
		n = nil
	}
	if n == nil {
		n = newInode(v, st)
		if err := s.table.add(n); err != nil {
			s.mu.Unlock()
			return nil, err
		}
	}
	n.nlookup++
	dead = s.setLink(n, parent, name)
	s.mu.Unlock()
	for _, d := range dead {
		s.dropFD(d)
	}
	return n, nil
}

// find returns the inode that st describes if the guest references it.
func (s *Server) find(v *volume, st *unix.Statx_t) *inode {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.table.byKey[inodeKey{v, st.Ino}]
	if n == nil || !n.is(st) {
		return nil
	}
	return n
}

// relink is setLink with the locking and the closing.
func (s *Server) relink(n, parent *inode, name string) {
	s.mu.Lock()
	dead := s.setLink(n, parent, name)
	s.mu.Unlock()
	for _, d := range dead {
		s.dropFD(d)
	}
}
