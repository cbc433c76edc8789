package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"

	"runv/libvm/virtio"
)

// request is how one type of message is handled.
type request struct {
	size  int  // of the payload, in bytes; anySize: the handler checks it
	fds   int  // descriptors at most
	reply bool // the handler returns a payload, and the front-end expects it
	do    func(*server, *message) ([]byte, error)
}

const anySize = -1

// lookup returns how requests of type id are handled.
func lookup(id uint32) (request, bool) {
	switch id {
	case VHOST_USER_GET_FEATURES:
		return request{reply: true, do: (*server).getFeatures}, true
	case VHOST_USER_SET_FEATURES:
		return request{size: u64Bytes, do: (*server).setFeatures}, true
	case VHOST_USER_GET_PROTOCOL_FEATURES:
		return request{reply: true, do: (*server).getProtocolFeatures}, true
	case VHOST_USER_SET_PROTOCOL_FEATURES:
		return request{size: u64Bytes, do: (*server).setProtocolFeatures}, true
	case VHOST_USER_SET_OWNER:
		return request{do: func(*server, *message) ([]byte, error) { return nil, nil }}, true
	case VHOST_USER_RESET_OWNER, VHOST_USER_RESET_DEVICE:
		return request{do: (*server).reset}, true
	case VHOST_USER_GET_QUEUE_NUM:
		return request{reply: true, do: (*server).getQueueNum}, true
	case VHOST_USER_SET_MEM_TABLE:
		return request{size: anySize, fds: VHOST_USER_MAX_RAM_SLOTS, do: (*server).setMemTable}, true
	case VHOST_USER_SET_VRING_NUM:
		return request{size: vringBytes, do: (*server).setVringNum}, true
	case VHOST_USER_SET_VRING_ADDR:
		return request{size: vringAddrBytes, do: (*server).setVringAddr}, true
	case VHOST_USER_SET_VRING_BASE:
		return request{size: vringBytes, do: (*server).setVringBase}, true
	case VHOST_USER_GET_VRING_BASE:
		return request{size: vringBytes, reply: true, do: (*server).getVringBase}, true
	case VHOST_USER_SET_VRING_ENABLE:
		return request{size: vringBytes, do: (*server).setVringEnable}, true
	case VHOST_USER_SET_VRING_KICK, VHOST_USER_SET_VRING_CALL, VHOST_USER_SET_VRING_ERR:
		return request{size: u64Bytes, fds: 1, do: (*server).setVringFD}, true
	case VHOST_USER_GET_CONFIG:
		return request{size: anySize, reply: true, do: (*server).getConfig}, true
	case VHOST_USER_SET_CONFIG:
		return request{size: anySize, do: (*server).setConfig}, true
	}
	return request{}, false
}

// handle does what m asks, and answers it.
func (s *server) handle(m *message) error {
	r, ok := lookup(m.request)
	var reply []byte
	var err error
	switch {
	case !ok:
		err = errors.New("not supported")
	case r.size != anySize && len(m.payload) != r.size:
		err = fmt.Errorf("payload of %d bytes, want %d", len(m.payload), r.size)
	case len(m.fds) > r.fds:
		err = fmt.Errorf("%d descriptors, want %d at most", len(m.fds), r.fds)
	default:
		reply, err = r.do(s, m)
	}
	if err != nil {
		err = fmt.Errorf("request %d: %w", m.request, err)
	}
	ack := m.flags&VHOST_USER_NEED_REPLY_MASK != 0 && s.negotiated(VHOST_USER_PROTOCOL_F_REPLY_ACK)
	switch {
	case r.reply && err == nil:
	case ack && err == nil:
		reply = u64(0)
	case ack:
		reply = u64(1)
	default:
		return err
	}
	return errors.Join(err, writeReply(s.conn, m.request, reply))
}

func u64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

func (s *server) getFeatures(*message) ([]byte, error) {
	return u64(s.deviceFeatures() | 1<<VHOST_USER_F_PROTOCOL_FEATURES), nil
}

func (s *server) setFeatures(m *message) ([]byte, error) {
	f := le64(m.payload, 0)
	if extra := f &^ (s.deviceFeatures() | 1<<VHOST_USER_F_PROTOCOL_FEATURES); extra != 0 {
		return nil, fmt.Errorf("features %#x were not offered", extra)
	}
	if s.run != nil && f != s.features {
		return nil, errors.New("device runs")
	}
	s.features = f
	return nil, nil
}

func (s *server) getProtocolFeatures(*message) ([]byte, error) {
	return u64(s.protocolFeatures()), nil
}

// setProtocolFeatures comes before SET_FEATURES: QEMU counts it as the proof
// that both ends know VHOST_USER_F_PROTOCOL_FEATURES, and so do we.
func (s *server) setProtocolFeatures(m *message) ([]byte, error) {
	p := le64(m.payload, 0)
	if extra := p &^ s.protocolFeatures(); extra != 0 {
		return nil, fmt.Errorf("protocol features %#x were not offered", extra)
	}
	if s.run != nil && p != s.protocol {
		return nil, errors.New("device runs")
	}
	s.protocol = p
	s.features |= 1 << VHOST_USER_F_PROTOCOL_FEATURES
	return nil, nil
}

func (s *server) getQueueNum(*message) ([]byte, error) { return u64(uint64(len(s.rings))), nil }

func (s *server) reset(*message) ([]byte, error) {
	if err := s.stop(); err != nil {
		return nil, err
	}
	for i := range s.rings {
		s.rings[i].reset()
	}
	return nil, nil
}

// setMemTable replaces the memory. A running device is stopped for it, and
// starts again in the new memory; QEMU sends the table anew, unchanged, each
// time that the guest's driver starts.
func (s *server) setMemTable(m *message) ([]byte, error) {
	regions, err := parseMemTable(m.payload)
	if err != nil {
		return nil, err
	}
	if s.table.same(regions, m.fds) {
		return nil, nil
	}
	t, err := mapTable(regions, m.fds)
	if err != nil {
		return nil, err
	}
	if err := s.stop(); err != nil {
		t.unmap()
		return nil, err
	}
	s.table.unmap()
	s.table = t
	return nil, s.update()
}

// getConfig answers with no payload what it cannot answer (as the protocol has
// it), and the connection goes on.
func (s *server) getConfig(m *message) ([]byte, error) {
	c, _, err := parseConfig(m.payload)
	if err != nil {
		return nil, err
	}
	space := s.dev.Config()
	if uint64(c.offset)+uint64(c.size) > uint64(len(space)) {
		return nil, nil
	}
	reply := append([]byte(nil), m.payload[:configBytes]...)
	return append(reply, space[c.offset:c.offset+c.size]...), nil
}

func (s *server) setConfig(m *message) ([]byte, error) {
	c, data, err := parseConfig(m.payload)
	if err != nil {
		return nil, err
	}
	w, ok := s.dev.(virtio.ConfigWriter)
	if !ok || c.flags != 0 {
		return nil, errors.New("configuration space is read-only")
	}
	return nil, w.WriteConfig(c.offset, data)
}
