package passthrough

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"runv/agent/wire"
)

// repeats says whether a request comes from the thread of the agent that repeats
// changes of the host: whatever it asks for, nothing is changed on the host.
func (s *Server) repeats(h *fuse.InHeader) bool {
	t := s.watch.thread.Load()
	return t != 0 && t == h.Pid
}

// fakeLookup answers what the thread is to find under a name, if that is not what
// is there.
func (s *Server) fakeLookup(h *fuse.InHeader, name string, out *fuse.EntryOut) (code fuse.Status, ok bool) {
	s.watch.mu.Lock()
	typ, ok := s.watch.fakes[nameIn{h.NodeId, name}]
	s.watch.mu.Unlock()
	if !ok {
		return fuse.OK, false
	}
	*out = fuse.EntryOut{} // may not be remembered
	if typ == 0 {
		return fuse.ENOENT, true
	}
	tree := &tree{}
	if n, code := s.node(h.NodeId); code.Ok() {
		tree = n.vol.tree
	}
	n := &inode{kind: kindGhost, typ: typ, vol: &volume{tree: tree}, nlookup: 1}
	s.mu.Lock()
	err := s.table.add(n)
	s.mu.Unlock()
	if err != nil {
		return statusOf(err), true
	}
	out.NodeId, out.Attr = n.id, ghostAttr(n)
	return fuse.OK, true
}

// ghostAttr are the attributes of a file that is on the host no more.
func ghostAttr(n *inode) fuse.Attr {
	links := uint32(1)
	if n.isDir() {
		links = 2
	}
	return fuse.Attr{Ino: keyIno + uint64(uint32(n.id)), Mode: n.typ | 0o700, Nlink: links, Blksize: 4096}
}

// repeatMake answers for the making of a file that is there already.
func (s *Server) repeatMake(h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir, p, code := s.dirOf(h.NodeId, name, false)
	if !code.Ok() {
		return code
	}
	defer p.release()
	return statusOf(s.enter(dir, p, name, out))
}

// repeatSetAttr answers with what the attributes are.
func (s *Server) repeatSetAttr(id uint64, out *fuse.AttrOut) fuse.Status {
	n, code := s.node(id)
	if !code.Ok() {
		return code
	}
	return s.attrOf(n, out)
}

// repeatOpen opens nothing.
func (s *Server) repeatOpen(id uint64, out *fuse.OpenOut) fuse.Status {
	n, code := s.node(id)
	if !code.Ok() {
		return code
	}
	if !n.isReg() {
		return fuse.Status(unix.ENXIO)
	}
	out.Fh = syntheticFH
	return fuse.OK
}

// Repeat prepares for the agent making a change: what its thread is to find. The
// caller calls done when the agent is done. ok is false if there is nothing to make.
func (s *Server) Repeat(c *Change) (done func(), ok bool) {
	w := &s.watch
	fakes := map[nameIn]uint32{}
	switch c.Kind {
	case wire.Created, wire.MovedHere:
		var st unix.Statx_t
		if s.statIn(c.dir, c.Name, &st) != nil {
			return nil, false // it is gone already
		}
		c.Mode = uint32(st.Mode) & unix.S_IFMT
		fakes[nameIn{c.dir, c.Name}] = 0
		if c.Kind == wire.MovedHere {
			fakes[nameIn{fuse.FUSE_ROOT_ID, wire.GhostName}] = c.Mode
		}
	case wire.Deleted:
		fakes[nameIn{c.dir, c.Name}] = c.Mode
	case wire.Moved:
		fakes[nameIn{c.dir, c.Name}] = c.Mode
		fakes[nameIn{c.toDir, c.To}] = 0
	case wire.CloseWrite:
		c.Mode = unix.S_IFREG
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, v := range fakes {
		w.fakes[k] = v
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		clear(w.fakes)
	}, true
}

// statIn is statx of a name in a directory.
func (s *Server) statIn(dir uint64, name string, st *unix.Statx_t) error {
	_, p, code := s.dirOf(dir, name, false)
	if !code.Ok() {
		return unix.Errno(code)
	}
	defer p.release()
	return statxAt(p.fd, name, st)
}
