package passthrough

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// IDMap gives the files of a tree other owners in the guest than they have on the
// host, as an id-mapped mount does (mount_setattr(2), MOUNT_ATTR_IDMAP), on any
// file system of the host: who is mapped owns his files, and makes new ones that
// are his; a file of anybody else is nobody's, and cannot be changed.
type IDMap struct {
	UID, GID []IDRange
	// Recursive is for what is mounted below the tree's root, too.
	Recursive bool
}

// IDRange is a range of ids. Ranges do not overlap.
type IDRange struct {
	File  uint32 // the first id, as the host's file system has it
	Guest uint32 // the first id, as the guest's kernel has it
	Size  uint32
}

// overflowID is nobody's: fs.overflowuid and fs.overflowgid.
const overflowID = 65534

// guestID returns what an owner on the host is in the guest.
func guestID(m []IDRange, id uint32) (uint32, bool) {
	for _, r := range m {
		if id >= r.File && id-r.File < r.Size {
			return r.Guest + (id - r.File), true
		}
	}
	return overflowID, false
}

// fileID returns what an id of the guest is on the host.
func fileID(m []IDRange, id uint32) (uint32, bool) {
	for _, r := range m {
		if id >= r.Guest && id-r.Guest < r.Size {
			return r.File + (id - r.Guest), true
		}
	}
	return 0, false
}

// owner returns the owner and group that the guest sees, and whether both are
// mapped. A nil map maps all ids to themselves.
func (m *IDMap) owner(st *unix.Statx_t) (uid, gid uint32, mapped bool) {
	if m == nil {
		return st.Uid, st.Gid, true
	}
	uid, ok := guestID(m.UID, st.Uid)
	gid, both := guestID(m.GID, st.Gid)
	return uid, gid, ok && both
}

// caller returns the ids on the host of a caller in the guest. The kernel lets
// nobody make a file who is not mapped.
func (m *IDMap) caller(uid, gid uint32) (uint32, uint32, error) {
	if m == nil {
		return uid, gid, nil
	}
	u, ok := fileID(m.UID, uid)
	g, both := fileID(m.GID, gid)
	if !ok || !both {
		return 0, 0, unix.EOVERFLOW
	}
	return u, g, nil
}

// mapped fails with want for a file that belongs to nobody in the guest.
func (s *Server) mapped(v *volume, fd int, name string, want error) error {
	if v.ids == nil {
		return nil
	}
	var st unix.Statx_t
	err := statxFD(fd, &st)
	if name != "" {
		err = statxAt(fd, name, &st)
	}
	if err != nil {
		return err
	}
	if _, _, ok := v.ids.owner(&st); !ok {
		return want
	}
	return nil
}

// Layout of the value of system.posix_acl_* (linux/posix_acl_xattr.h): a version
// of 4 bytes, then entries of tag u16, perm u16, id u32.
const (
	aclHeader = 4
	aclEntry  = 8
	aclUser   = 0x02
	aclGroup  = 0x08
)

// mapACL replaces the ids of an ACL, in place.
func (m *IDMap) mapACL(b []byte, convert func([]IDRange, uint32) (uint32, bool)) bool {
	all := true
	for at := aclHeader; at+aclEntry <= len(b); at += aclEntry {
		ranges := m.UID
		switch binary.LittleEndian.Uint16(b[at:]) {
		case aclUser:
		case aclGroup:
			ranges = m.GID
		default:
			continue
		}
		id, ok := convert(ranges, binary.LittleEndian.Uint32(b[at+4:]))
		all = all && ok
		binary.LittleEndian.PutUint32(b[at+4:], id)
	}
	return all
}

// Layout of the value of security.capability (struct vfs_ns_cap_data of
// linux/capability.h): revision in the top byte of the first word, two pairs of
// masks, and in revision 3 the id of the root for whom they are.
const (
	capsV2      = 20
	capsV3      = 24
	capsV2Magic = 0x02000000
	capsV3Magic = 0x03000000
	capsFlags   = 0x00ffffff
)

// mapCapability gives file capabilities the root that they are for on the other
// side: revision 2 is for root 0.
func (m *IDMap) mapCapability(b []byte, convert func([]IDRange, uint32) (uint32, bool)) ([]byte, bool) {
	if len(b) != capsV2 && len(b) != capsV3 {
		return b, true // of an older revision, or no value at all: the kernel's affair
	}
	var root uint32
	if len(b) == capsV3 {
		root = binary.LittleEndian.Uint32(b[capsV2:])
	}
	root, ok := convert(m.UID, root)
	if !ok {
		return nil, false
	}
	out := make([]byte, capsV3)
	copy(out, b[:capsV2])
	magic := binary.LittleEndian.Uint32(b) & capsFlags
	if root == 0 {
		binary.LittleEndian.PutUint32(out, magic|capsV2Magic)
		return out[:capsV2], true
	}
	binary.LittleEndian.PutUint32(out, magic|capsV3Magic)
	binary.LittleEndian.PutUint32(out[capsV2:], root)
	return out, true
}

// xattrToGuest converts a value that names ids.
func (m *IDMap) xattrToGuest(name string, b []byte) ([]byte, error) {
	switch {
	case m == nil:
	case name == aclAccess || name == aclDefault:
		m.mapACL(b, guestID)
	case name == capability:
		v, ok := m.mapCapability(b, guestID)
		if !ok {
			return nil, unix.EOVERFLOW
		}
		return v, nil
	}
	return b, nil
}

// xattrToFile converts a value that names ids, of which all must be mapped.
func (m *IDMap) xattrToFile(name string, b []byte) ([]byte, error) {
	ok := true
	switch {
	case m == nil:
	case name == aclAccess || name == aclDefault:
		b = append([]byte(nil), b...) // it is the guest's memory, or a reader's
		ok = m.mapACL(b, fileID)
	case name == capability:
		b, ok = m.mapCapability(b, fileID)
	}
	if !ok {
		return nil, unix.EINVAL
	}
	return b, nil
}

// namesIDs says whether the value of an attribute has to be converted.
func (m *IDMap) namesIDs(name string) bool {
	return m != nil && (name == aclAccess || name == aclDefault || name == capability)
}
