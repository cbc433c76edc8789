package vsock

// minRing is the size, in bytes, of a connection's first receive buffer.
const minRing = 4 << 10

// ring holds what the guest has sent and nobody has read yet. Its counters are
// those of flow control: r is our fwd_cnt, w what the guest must have as tx_cnt.
// Both run free and wrap at 2^32, of which the buffer's size is a divisor.
type ring struct {
	buf  []byte // its length is 0 or a power of two
	r, w uint32 // bytes ever taken out, bytes ever put in
}

// len returns the bytes that wait to be read.
func (b *ring) len() int { return int(b.w - b.r) }

// write appends parts. The caller has bounded the sum: the ring grows as needed.
func (b *ring) write(parts [][]byte, n int) {
	b.grow(b.len() + n)
	mask := uint32(len(b.buf) - 1)
	for _, p := range parts {
		for len(p) > 0 {
			k := copy(b.buf[b.w&mask:], p)
			p = p[k:]
			b.w += uint32(k)
		}
	}
}

// grow makes room for n bytes in all. The old buffer is left as it is: WriteTo
// may be reading from it.
func (b *ring) grow(n int) {
	if n <= len(b.buf) {
		return
	}
	size := max(minRing, len(b.buf))
	for size < n {
		size *= 2
	}
	old := *b
	b.buf = make([]byte, size)
	b.w = b.r
	for old.len() > 0 {
		p := old.peek()
		k := copy(b.buf[b.w&uint32(size-1):], p)
		b.w += uint32(k)
		old.discard(k)
	}
}

// peek returns the bytes that come next, as many as lie together.
func (b *ring) peek() []byte {
	if b.len() == 0 {
		return nil
	}
	at := int(b.r) & (len(b.buf) - 1)
	return b.buf[at:min(at+b.len(), len(b.buf))]
}

// discard takes n bytes out, which must be there.
func (b *ring) discard(n int) { b.r += uint32(n) }

// read takes out up to len(p) bytes.
func (b *ring) read(p []byte) (n int) {
	for n < len(p) && b.len() > 0 {
		k := copy(p[n:], b.peek())
		b.discard(k)
		n += k
	}
	return n
}

// pass counts n bytes as received and read: nobody will read them.
func (b *ring) pass(n int) {
	b.w += uint32(n)
	b.r = b.w
}

// drop forgets what was not read and frees the buffer.
func (b *ring) drop() {
	b.r = b.w
	b.buf = nil
}
