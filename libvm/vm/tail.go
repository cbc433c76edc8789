package vm

import "sync"

// Tail is an io.Writer that keeps the last bytes written to it, however much
// a guest prints. The zero Tail keeps nothing; use NewTail.
type Tail struct {
	mu    sync.Mutex
	buf   []byte
	next  int  // where the next byte goes
	whole bool // buf has wrapped at least once
}

// NewTail returns a Tail of size bytes.
func NewTail(size int) *Tail { return &Tail{buf: make([]byte, size)} }

// Write keeps the tail of p and never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if len(p) >= len(t.buf) {
		copy(t.buf, p[len(p)-len(t.buf):])
		t.next, t.whole = 0, true
		return n, nil
	}
	k := copy(t.buf[t.next:], p)
	if k < len(p) || t.next+k == len(t.buf) {
		t.whole = true
	}
	copy(t.buf, p[k:])
	t.next = (t.next + len(p)) % len(t.buf)
	return n, nil
}

// Bytes returns a copy of what is kept, oldest byte first.
func (t *Tail) Bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.whole {
		return append([]byte(nil), t.buf[:t.next]...)
	}
	return append(append([]byte(nil), t.buf[t.next:]...), t.buf[:t.next]...)
}
