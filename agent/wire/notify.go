package wire

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Sizes of linux/seccomp.h, in bytes.
const (
	NotifSize = 80 // struct seccomp_notif
	RespSize  = 24 // struct seccomp_notif_resp
	idSize    = 8  // of a notification, its first field in both
)

// The ioctls of a listener (linux/seccomp.h): '!' with their numbers, directions and
// sizes.
const (
	NotifRecv    = 3<<30 | NotifSize<<16 | '!'<<8    // SECCOMP_IOCTL_NOTIF_RECV
	NotifSend    = 3<<30 | RespSize<<16 | '!'<<8 | 1 // SECCOMP_IOCTL_NOTIF_SEND
	NotifIDValid = 1<<30 | idSize<<16 | '!'<<8 | 2   // SECCOMP_IOCTL_NOTIF_ID_VALID
)

// The stream of a seccomp listener. Each message is a byte that says what it is, and
// what follows has a fixed size. The agent answers Respond and Valid in their order.
//
//	agent                            host
//	  │ ── NotifyCall, seccomp_notif ──▶ │ a system call waits
//	  │ ◀ NotifyRespond, seccomp_notif_resp
//	  │ ◀──── NotifyValid, id ────────── │
//	  │ ──── NotifyResult, errno ──────▶ │ of one of the two
const (
	NotifyCall    = 'N'
	NotifyRespond = 'S'
	NotifyValid   = 'V'
	NotifyResult  = 'R'
)

// NotifyMessage is one message of that stream.
type NotifyMessage struct {
	Kind byte
	Data []byte // NotifSize, RespSize, 8 or 4 bytes
}

// notifySize is what follows a kind.
func notifySize(kind byte) (int, error) {
	switch kind {
	case NotifyCall:
		return NotifSize, nil
	case NotifyRespond:
		return RespSize, nil
	case NotifyValid:
		return idSize, nil
	case NotifyResult:
		return 4, nil
	}
	return 0, fmt.Errorf("seccomp listener: message %q", kind)
}

// ReadNotify reads a message.
func ReadNotify(r io.Reader) (NotifyMessage, error) {
	var kind [1]byte
	if _, err := io.ReadFull(r, kind[:]); err != nil {
		return NotifyMessage{}, err
	}
	n, err := notifySize(kind[0])
	if err != nil {
		return NotifyMessage{}, err
	}
	m := NotifyMessage{kind[0], make([]byte, n)}
	_, err = io.ReadFull(r, m.Data)
	return m, err
}

// Bytes is the message as it is sent.
func (m NotifyMessage) Bytes() []byte { return append([]byte{m.Kind}, m.Data...) }

// ResultMessage is the answer to a message of the host: an errno, 0 for none.
func ResultMessage(errno uint32) NotifyMessage {
	return NotifyMessage{NotifyResult, binary.LittleEndian.AppendUint32(nil, errno)}
}
