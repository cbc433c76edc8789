package fs

import (
	"bytes"
	"encoding/binary"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"runv/libvm/virtio/queue"
)

// Limits of one request, in bytes. Descriptors of one chain may overlap, so that
// their sum bounds neither memory nor time; go-fuse allocates what a request
// says it wants.
const (
	// maxWrite is the most that one READ or WRITE moves.
	maxWrite = 1 << 20
	// maxIn bounds what is copied of every other request: an extended attribute
	// of 64 KiB with its name is the longest.
	maxIn = 68 << 10
	// maxReply bounds the variable part of every reply but READ's. A longer
	// READDIR is answered short, and no attribute is longer.
	maxReply = 64 << 10
	// smallIn and smallReply are what nearly all requests stay below.
	smallIn    = 1 << 10
	smallReply = 8 << 10
)

// session is what INIT negotiated.
type session struct {
	protocol *fuse.ProtocolServer
	setxattr int // least size of a SETXATTR
}

// buffer is private memory for one request and its reply.
type buffer struct {
	in  []byte
	out []byte
	inv [2][]byte // the request, and for WRITE the first piece of data
}

var (
	smallBuffers = sync.Pool{New: func() any {
		return &buffer{in: make([]byte, smallIn), out: make([]byte, sizeofOutHeader+maxOutArgs+smallReply)}
	}}
	largeBuffers = sync.Pool{New: func() any {
		return &buffer{in: make([]byte, maxIn), out: make([]byte, sizeofOutHeader+maxOutArgs+maxReply)}
	}}
)

// request serves one chain and returns how many bytes it wrote to it. Apart from
// the data of READ and WRITE, go-fuse and the file server see copies only, so
// that nothing changes between a check and its use.
func (d *Device) request(c *queue.Chain) uint32 {
	total, room := c.ReadableLen(), c.WritableLen()
	var first [sizeofWriteIn]byte
	n := gather(first[:], c.Readable, 0)
	if n < sizeofInHeader {
		return 0 // no unique number to answer to
	}
	h := header{
		opcode: binary.LittleEndian.Uint32(first[4:]),
		unique: binary.LittleEndian.Uint64(first[8:]),
		nodeid: binary.LittleEndian.Uint64(first[16:]),
	}
	least := inSize(h.opcode)
	switch {
	case h.opcode == FUSE_FORGET:
		if n >= least {
			d.forget(h.nodeid, binary.LittleEndian.Uint64(first[offsetofForgetNlookup:]))
		}
		return 0
	case h.opcode == FUSE_INTERRUPT, h.opcode == FUSE_NOTIFY_REPLY:
		return 0 // neither has a reply; nothing here can be interrupted, or asked for
	case least == 0:
		return fail(c, &h, unix.ENOSYS)
	case total < least:
		return fail(c, &h, unix.EIO)
	case h.nodeid == pollHackNode:
		return fail(c, &h, unix.ESTALE)
	case h.opcode == FUSE_WRITE:
		return d.write(c, &h, &first, total)
	case h.opcode == FUSE_READ:
		return d.read(c, &h, &first, room)
	case h.opcode == FUSE_IOCTL:
		return fail(c, &h, unix.ENOTTY)
	case total > maxIn:
		return fail(c, &h, unix.EIO)
	}
	return d.copied(c, &h, &first, total, room)
}

// copied serves a request that is copied as a whole, as is its reply.
func (d *Device) copied(c *queue.Chain, h *header, first *[sizeofWriteIn]byte, total, room int) uint32 {
	reply := 0
	switch h.opcode {
	case FUSE_READDIR, FUSE_READDIRPLUS:
		reply = clamp(first[offsetofSize:], room)
	case FUSE_GETXATTR, FUSE_LISTXATTR:
		reply = clamp(first[offsetofXattrSize:], room)
	}
	pool := &smallBuffers
	if total > smallIn || reply > smallReply {
		pool = &largeBuffers
	}
	b := pool.Get().(*buffer)
	defer pool.Put(b)
	in := b.in[:total]
	copy(in, first[:])
	if total > len(first) {
		gather(in[len(first):], c.Readable, len(first))
	}
	b.inv[0] = in
	n := d.dispatch(h, in, b.inv[:1], b.out)
	if n == 0 {
		return 0
	}
	if n > room {
		return fail(c, h, unix.EIO)
	}
	scatter(c.Writable, b.out[:n])
	return uint32(n)
}

// clamp bounds a size that the guest asks for, in p, and returns what it is then.
func clamp(p []byte, room int) int {
	n := min(int(binary.LittleEndian.Uint32(p)), maxReply, max(room-sizeofOutHeader, 0))
	binary.LittleEndian.PutUint32(p, uint32(n))
	return n
}

// dispatch serves the request in, which is private, and returns how much of out
// is its reply.
func (d *Device) dispatch(h *header, in []byte, inv [][]byte, out []byte) int {
	switch h.opcode {
	case FUSE_INIT:
		return d.init(h, in, inv, out)
	case FUSE_DESTROY:
		d.reset()
		return status(out, h, 0)
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	s := d.session
	switch {
	case s == nil:
		return status(out, h, unix.EIO)
	case h.opcode == FUSE_SETXATTR && len(in) < s.setxattr:
		return status(out, h, unix.EIO)
	case h.opcode == FUSE_SYNCFS:
		return status(out, h, errno(d.server.SyncFS()))
	case h.nodeid == rootNode && namesPollHack(h.opcode, in):
		return status(out, h, unix.ENOENT)
	}
	n, code := s.protocol.HandleRequest(inv, [][]byte{out})
	if n == 0 && !code.Ok() {
		return status(out, h, unix.EIO)
	}
	return n
}

// namesPollHack reports whether a request begins with the name that go-fuse
// treats specially in the root.
func namesPollHack(opcode uint32, in []byte) bool {
	return bytes.HasPrefix(in[inSize(opcode):], []byte(pollHackName))
}

// init begins a session, and ends the one before: no other request is in
// progress then.
func (d *Device) init(h *header, in []byte, inv [][]byte, out []byte) int {
	major := binary.LittleEndian.Uint32(in[offsetofInitMajor:])
	minor := binary.LittleEndian.Uint32(in[offsetofInitMinor:])
	if major != fuseKernelVersion || minor < minMinor {
		return status(out, h, unix.EPROTO)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.server.Reset()
	d.session = nil
	s := &session{protocol: fuse.NewProtocolServer(d.server, d.server.MountOptions()), setxattr: sizeofSetxattrInCompat}
	n, code := s.protocol.HandleRequest(inv, [][]byte{out})
	if !code.Ok() || n < offsetofInitOutFlags+4 || binary.LittleEndian.Uint32(out[4:]) != 0 {
		return status(out, h, unix.EIO)
	}
	if binary.LittleEndian.Uint32(out[offsetofInitOutFlags:])&fuseSetxattrExt != 0 {
		s.setxattr = sizeofSetxattrIn
	}
	d.session = s
	return n
}

func (d *Device) forget(nodeid, nlookup uint64) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.session != nil {
		d.server.Forget(nodeid, nlookup)
	}
}

// read serves READ, straight into the guest's memory.
func (d *Device) read(c *queue.Chain, h *header, first *[sizeofWriteIn]byte, room int) uint32 {
	if size := int(binary.LittleEndian.Uint32(first[offsetofSize:])); size > maxWrite || size > room-sizeofOutHeader {
		return fail(c, h, unix.EIO)
	}
	return d.direct(c, h, [][]byte{first[:]}, c.Writable)
}

// write serves WRITE, straight from the guest's memory.
func (d *Device) write(c *queue.Chain, h *header, first *[sizeofWriteIn]byte, total int) uint32 {
	size := int(binary.LittleEndian.Uint32(first[offsetofSize:]))
	if size > maxWrite || size != total-sizeofWriteIn {
		return fail(c, h, unix.EIO)
	}
	in := make([][]byte, 1, len(c.Readable)+1)
	in[0] = first[:]
	skip := sizeofWriteIn
	for _, p := range c.Readable {
		k := min(skip, len(p))
		skip -= k
		if k < len(p) {
			in = append(in, p[k:])
		}
	}
	return d.direct(c, h, in, c.Writable)
}

func (d *Device) direct(c *queue.Chain, h *header, in, out [][]byte) uint32 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.session == nil {
		return fail(c, h, unix.EIO)
	}
	n, code := d.session.protocol.HandleRequest(in, out)
	if n == 0 && !code.Ok() {
		return fail(c, h, unix.EIO)
	}
	return uint32(n)
}

// errno is what a server's error is to the guest.
func errno(err error) unix.Errno {
	if err == nil {
		return 0
	}
	if e, ok := err.(unix.Errno); ok {
		return e
	}
	return unix.EIO
}

// status writes a reply that is only a status.
func status(out []byte, h *header, e unix.Errno) int {
	binary.LittleEndian.PutUint32(out, sizeofOutHeader)
	binary.LittleEndian.PutUint32(out[4:], uint32(-int32(e)))
	binary.LittleEndian.PutUint64(out[8:], h.unique)
	return sizeofOutHeader
}

// fail answers the chain with a status, if it has room for one and the request
// has a reply.
func fail(c *queue.Chain, h *header, e unix.Errno) uint32 {
	if h.opcode == FUSE_BATCH_FORGET || c.WritableLen() < sizeofOutHeader {
		return 0
	}
	var out [sizeofOutHeader]byte
	status(out[:], h, e)
	scatter(c.Writable, out[:])
	return sizeofOutHeader
}

// gather copies the bytes of parts from offset off to dst and returns how many.
func gather(dst []byte, parts [][]byte, off int) int {
	n := 0
	for _, p := range parts {
		if off >= len(p) {
			off -= len(p)
			continue
		}
		if n += copy(dst[n:], p[off:]); n == len(dst) {
			break
		}
		off = 0
	}
	return n
}

// scatter copies src to the beginning of parts.
func scatter(parts [][]byte, src []byte) {
	for _, p := range parts {
		if len(src) == 0 {
			return
		}
		src = src[copy(p, src):]
	}
}
