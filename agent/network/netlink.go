package network

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"runv/agent/rtattr"
)

// errMessage is the error of a message that is not one.
var errMessage = errors.New("malformed netlink message")

// socket talks to the kernel about the network namespace in which it was opened.
type socket struct {
	fd  int
	seq uint32
	buf [32 << 10]byte // what the kernel sends at a time is never more
}

func open() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return &socket{fd: fd}, nil
}

func (s *socket) close() { unix.Close(s.fd) }

// talk sends a message and waits until the kernel is done with it. The body of each
// answer is given to take.
func (s *socket) talk(m []byte, take func(body []byte)) error {
	s.seq++
	binary.NativeEndian.PutUint32(m[8:], s.seq)
	if err := unix.Sendto(s.fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	for {
		k, _, err := unix.Recvfrom(s.fd, s.buf[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		for rest := s.buf[:k]; len(rest) > 0; {
			var a []byte
			if a, rest, err = cut(rest); err != nil {
				return err
			}
			if binary.NativeEndian.Uint32(a[8:]) != s.seq {
				continue
			}
			switch binary.NativeEndian.Uint16(a[4:]) {
			case unix.NLMSG_DONE:
				return nil
			case unix.NLMSG_ERROR:
				if len(a) < headerBytes+4 {
					return errMessage
				}
				if e := -int32(binary.NativeEndian.Uint32(a[headerBytes:])); e != 0 {
					return unix.Errno(e)
				}
				return nil
			}
			if take != nil {
				take(a[headerBytes:])
			}
		}
	}
}

// find returns the index of the card that was made with an address; 0: there is
// none here.
func (s *socket) find(address []byte) (index uint32, err error) {
	m := request(unix.RTM_GETLINK, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfInfomsg))
	permanent := false
	err = s.talk(m, func(b []byte) {
		if len(b) < unix.SizeofIfInfomsg || permanent {
			return
		}
		at := binary.NativeEndian.Uint32(b[4:])
		rtattr.Each(b[unix.SizeofIfInfomsg:], func(kind uint16, data []byte) {
			switch {
			case !bytes.Equal(data, address):
			case kind == iflaPermAddress:
				index, permanent = at, true
			case kind == unix.IFLA_ADDRESS: // of a kernel before 5.6
				index = at
			}
		})
	})
	return index, err
}

// iflaPermAddress is IFLA_PERM_ADDRESS of linux/if_link.h.
const iflaPermAddress = 54

// link gives an interface a name, which it can have only while it is down, and
// takes it to another namespace, if ns is none of the negative numbers.
func (s *socket) link(index uint32, name string, ns int) error {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], index)
	binary.NativeEndian.PutUint32(b[12:], unix.IFF_UP) // change; the flag itself is not set
	if err := s.talk(request(unix.RTM_NEWLINK, unix.NLM_F_ACK, b), nil); err != nil {
		return err
	}
	b = rtattr.Append(b, unix.IFLA_IFNAME, append([]byte(name), 0))
	if ns >= 0 {
		b = rtattr.Append(b, unix.IFLA_NET_NS_FD, binary.NativeEndian.AppendUint32(nil, uint32(ns)))
	}
	return s.talk(request(unix.RTM_NEWLINK, unix.NLM_F_ACK, b), nil)
}

// headerBytes is the length of struct nlmsghdr: len u32, type u16, flags u16, seq
// u32, pid u32 (netlink(7)).
const headerBytes = unix.SizeofNlMsghdr

// request makes a message.
func request(kind, flags uint16, body []byte) []byte {
	m := binary.NativeEndian.AppendUint32(make([]byte, 0, headerBytes+len(body)), uint32(headerBytes+len(body)))
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = binary.NativeEndian.AppendUint16(m, flags|unix.NLM_F_REQUEST)
	return append(append(m, make([]byte, 8)...), body...)
}

// cut takes the first message off b.
func cut(b []byte) (m, rest []byte, err error) {
	if len(b) < headerBytes {
		return nil, nil, errMessage
	}
	n := int(binary.NativeEndian.Uint32(b))
	if n < headerBytes || n > len(b) {
		return nil, nil, errMessage
	}
	return b[:n], b[min(len(b), rtattr.Align(n)):], nil
}
