package vhostuser

import (
	"errors"
	"fmt"
)

// ring returns the ring with index i.
func (s *server) ring(i uint32) (*ring, error) {
	if uint64(i) >= uint64(len(s.rings)) {
		return nil, fmt.Errorf("ring %d of %d", i, len(s.rings))
	}
	return &s.rings[i], nil
}

// idleRing returns ring i, whose place may be changed: the device is stopped,
// or does not have it.
func (s *server) idleRing(i uint32) (*ring, error) {
	r, err := s.ring(i)
	if err == nil && s.run != nil && s.run.queues[i] != nil {
		return nil, fmt.Errorf("ring %d runs", i)
	}
	return r, err
}

// frontendSize is the size, in descriptors, up to which a ring is taken though
// the device asked for less: the protocol has no way to ask, and QEMU's
// virtio-mmio offers the guest 1024 (VIRTQUEUE_MAX_SIZE) whatever its device has.
const frontendSize = 1024

func (s *server) setVringNum(m *message) ([]byte, error) {
	v := parseVringState(m.payload)
	r, err := s.idleRing(v.index)
	if err != nil {
		return nil, err
	}
	if limit := max(s.sizes[v.index], frontendSize); v.num == 0 || v.num > uint32(limit) || v.num&(v.num-1) != 0 {
		return nil, fmt.Errorf("ring %d: size %d, want a power of two up to %d", v.index, v.num, limit)
	}
	r.size = uint16(v.num)
	return nil, nil
}

func (s *server) setVringAddr(m *message) ([]byte, error) {
	a := parseVringAddr(m.payload)
	r, err := s.idleRing(a.index)
	if err != nil {
		return nil, err
	}
	if a.flags != 0 {
		return nil, fmt.Errorf("ring %d: flags %#x (logging is not offered)", a.index, a.flags)
	}
	// The addresses are translated when the ring is used: the memory that they
	// are in may come later.
	r.addr, r.placed = a, true
	return nil, nil
}

func (s *server) setVringBase(m *message) ([]byte, error) {
	v := parseVringState(m.payload)
	r, err := s.idleRing(v.index)
	if err != nil {
		return nil, err
	}
	if v.num > 0xffff {
		return nil, fmt.Errorf("ring %d: base %d", v.index, v.num)
	}
	r.next = uint16(v.num)
	return nil, nil
}

// getVringBase stops the ring, and with it the whole device: what is in flight
// on this ring has ended before the answer goes out. The other rings are stopped
// by their own messages, which QEMU sends next.
func (s *server) getVringBase(m *message) ([]byte, error) {
	v := parseVringState(m.payload)
	r, err := s.ring(v.index)
	if err != nil {
		return nil, err
	}
	if err := s.stop(); err != nil {
		return nil, err
	}
	r.setKick(-1)
	r.enabled = false
	return vringState{index: v.index, num: uint32(r.next)}.append(nil), nil
}

func (s *server) setVringEnable(m *message) ([]byte, error) {
	v := parseVringState(m.payload)
	r, err := s.ring(v.index)
	if err != nil {
		return nil, err
	}
	if v.num > 1 {
		return nil, fmt.Errorf("ring %d: enable %d", v.index, v.num)
	}
	r.enabled = v.num == 1
	return nil, s.update()
}

// setVringFD takes a ring's kick, call or err eventfd.
func (s *server) setVringFD(m *message) ([]byte, error) {
	v := le64(m.payload, 0)
	if v&^(VHOST_USER_VRING_IDX_MASK|VHOST_USER_VRING_NOFD_MASK) != 0 {
		return nil, fmt.Errorf("ring %#x", v)
	}
	i := uint32(v & VHOST_USER_VRING_IDX_MASK)
	r, err := s.ring(i)
	if err != nil {
		return nil, err
	}
	fd := -1
	if v&VHOST_USER_VRING_NOFD_MASK == 0 {
		if fd, err = m.takeEvent(); err != nil {
			return nil, fmt.Errorf("ring %d: %w", i, err)
		}
	} else if len(m.fds) != 0 {
		return nil, fmt.Errorf("ring %d: a descriptor that is said to be absent", i)
	}
	switch m.request {
	case VHOST_USER_SET_VRING_CALL:
		r.known = true
		r.call.set(fd)
		if s.run != nil {
			// What was signalled on the old one may have been lost: QEMU masks
			// and unmasks interrupts so. One too many does no harm.
			r.call.signal()
		}
		return nil, nil
	case VHOST_USER_SET_VRING_ERR:
		r.fault.set(fd)
		return nil, nil
	}
	if fd < 0 {
		return nil, fmt.Errorf("ring %d: %w", i, errors.New("no kick descriptor, and polling is not supported"))
	}
	if s.run != nil && s.run.queues[i] != nil {
		if err := s.stop(); err != nil { // it sleeps on the old one
			r.setKick(fd)
			return nil, err
		}
	}
	r.known = true
	r.setKick(fd)
	return nil, s.update()
}

// takeEvent hands the message's eventfd to the caller, checked.
func (m *message) takeEvent() (int, error) {
	if len(m.fds) != 1 {
		return -1, fmt.Errorf("%d descriptors, want 1", len(m.fds))
	}
	if err := checkEvent(m.fds[0]); err != nil {
		return -1, err
	}
	fd := m.fds[0]
	m.fds = nil
	return fd, nil
}
