package queue

import (
	"encoding/binary"
	"fmt"

	"runv/libvm/mem"
)

// maxChainBytes bounds the sum of the lengths of one chain's descriptors, which
// may overlap and so are not bounded by the guest's memory (v1.2 §2.7.5 lets a
// chain be up to 2^32 bytes).
const maxChainBytes = 1<<32 - 1

// maxIndirect bounds the descriptors of an indirect table, which may lie
// anywhere and be shared by every chain on the ring: each costs the device 24
// bytes for as long as the chain is in flight. It is what QEMU allows, too
// (VIRTQUEUE_MAX_SIZE), so that drivers stay below it.
const maxIndirect = 1024

// Chain is one buffer from the driver: what it wrote for the device, then where
// the device writes its answer. The slices are guest memory, and the guest may
// change them at any time: copy, check, use the copy.
type Chain struct {
	head uint16
	// Readable are the device-readable parts, in order.
	Readable [][]byte
	// Writable are the device-writable parts, in order.
	Writable [][]byte

	few [8][]byte // room for the parts of most chains, without an allocation each
}

// newChain returns an empty chain.
func newChain(head uint16) *Chain {
	c := &Chain{head: head}
	half := len(c.few) / 2
	c.Readable, c.Writable = c.few[:0:half], c.few[half:half]
	return c
}

// ReadableLen returns the sum of the readable parts, in bytes.
func (c *Chain) ReadableLen() int { return total(c.Readable) }

// WritableLen returns the sum of the writable parts, in bytes.
func (c *Chain) WritableLen() int { return total(c.Writable) }

func total(parts [][]byte) (n int) {
	for _, p := range parts {
		n += len(p)
	}
	return n
}

// chain walks the descriptors from head. A chain of more descriptors than its
// table has is a loop.
func (q *Queue) chain(head uint16) (*Chain, error) {
	c := newChain(head)
	w := walk{mem: q.mem, size: q.size, table: q.desc, count: uint32(q.size), left: uint32(q.size)}
	for i := uint32(head); ; {
		d, err := w.read(i)
		if err != nil {
			return nil, err
		}
		if d.flags&descFIndirect != 0 {
			if !q.indirect || w.nested || d.flags&descFNext != 0 {
				return nil, fmt.Errorf("descriptor %d: indirect where it must not be: %w", i, ErrBadRing)
			}
			if err := w.enter(d); err != nil {
				return nil, err
			}
			i = 0
			continue
		}
		if err := w.add(c, d); err != nil {
			return nil, err
		}
		if d.flags&descFNext == 0 {
			return c, nil
		}
		i = uint32(d.next)
	}
}

// descriptor is a copy of struct virtq_desc (v1.2 §2.7.5).
type descriptor struct {
	addr  mem.GPA
	len   uint32 // bytes
	flags uint16
	next  uint16
}

// walk is the state of reading one chain.
type walk struct {
	mem    *mem.Memory
	size   uint16 // of the queue, in descriptors
	table  []byte
	count  uint32 // descriptors in table
	left   uint32 // descriptors that may still follow: bounds a loop
	bytes  uint64 // sum of the lengths so far
	nested bool   // table is an indirect one
}

func (w *walk) read(i uint32) (descriptor, error) {
	if i >= w.count {
		return descriptor{}, fmt.Errorf("descriptor %d of %d: %w", i, w.count, ErrBadRing)
	}
	if w.left == 0 {
		return descriptor{}, fmt.Errorf("descriptor chain longer than its table of %d: %w", w.count, ErrBadRing)
	}
	w.left--
	var b [descBytes]byte // one copy: the guest may write while we look
	copy(b[:], w.table[uint64(i)*descBytes:])
	return descriptor{
		addr:  mem.GPA(binary.LittleEndian.Uint64(b[0:])),
		len:   binary.LittleEndian.Uint32(b[8:]),
		flags: binary.LittleEndian.Uint16(b[12:]),
		next:  binary.LittleEndian.Uint16(b[14:]),
	}, nil
}

// enter goes on in the indirect table that d describes.
func (w *walk) enter(d descriptor) error {
	if d.len == 0 || d.len%descBytes != 0 || d.len/descBytes > max(maxIndirect, uint32(w.size)) {
		return fmt.Errorf("indirect table of %d bytes: %w", d.len, ErrBadRing)
	}
	t, err := w.mem.Slice(d.addr, uint64(d.len))
	if err != nil {
		return fmt.Errorf("indirect table: %w: %w", ErrBadRing, err)
	}
	w.table, w.count, w.left, w.nested = t, d.len/descBytes, d.len/descBytes, true
	return nil
}

// add appends the part that d describes to c.
func (w *walk) add(c *Chain, d descriptor) error {
	if w.bytes += uint64(d.len); w.bytes > maxChainBytes {
		return fmt.Errorf("descriptor chain of more than %d bytes: %w", uint64(maxChainBytes), ErrBadRing)
	}
	part, err := w.mem.Slice(d.addr, uint64(d.len))
	if err != nil {
		return fmt.Errorf("descriptor: %w: %w", ErrBadRing, err)
	}
	if d.flags&descFWrite != 0 {
		if len(part) > 0 {
			c.Writable = append(c.Writable, part)
		}
		return nil
	}
	if len(c.Writable) > 0 {
		return fmt.Errorf("readable descriptor behind a writable one: %w", ErrBadRing)
	}
	if len(part) > 0 {
		c.Readable = append(c.Readable, part)
	}
	return nil
}
