package passthrough

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestInodeMemory holds what Options.MaxInodes says a referenced inode costs.
func TestInodeMemory(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "runv")
	if err != nil {
		t.Skip("no /dev/shm (try: mount -t tmpfs tmpfs /dev/shm)")
	}
	defer os.RemoveAll(dir)
	const n = 20000
	for i := range n {
		if err := unix.Mknod(fmt.Sprintf("%s/a file with number %d", dir, i), unix.S_IFREG|0o644, 0); err != nil {
			t.Fatal(err)
		}
	}
	s := newServer(t, Options{})
	share(t, s, dir, false)
	r := newRaw(t, s)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	nodes := make([]uint64, 0, n)
	for i := range n {
		e, code := r.lookup(r.tree, fmt.Sprintf("a file with number %d", i))
		if !code.Ok() {
			t.Fatal(code)
		}
		nodes = append(nodes, e.NodeId)
	}
	each := int64(heap()-before) / n
	t.Logf("%d bytes an inode", each)
	if each > 400 {
		t.Errorf("%d bytes an inode, want less than 400", each)
	}
	for _, id := range nodes {
		s.Forget(id, 1)
	}
	if e, code := r.lookup(r.tree, "a file with number 0"); !code.Ok() || e.NodeId == nodes[0] {
		t.Errorf("a node id was used again: %v", code)
	}
	if len(s.table.byKey) != 2 {
		t.Errorf("%d inodes are left, want 2", len(s.table.byKey))
	}
	var open fuse.OpenOut
	if code := s.OpenDir(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: nodes[0]}}, &open); code != fuse.Status(unix.ESTALE) {
		t.Errorf("a forgotten node: %v", code)
	}
}
