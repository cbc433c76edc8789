package network

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"runv/libvm/virtio/net"
)

// tapPrefix begins the name of each tap of ours.
const tapPrefix = "runv-tap"

// tunDevice makes taps (tun.txt of the kernel, "Universal TUN/TAP device driver").
const tunDevice = "/dev/net/tun"

// errNoTun says what a host without taps lacks.
var errNoTun = errors.New("the network of a VM needs taps (load the tun module)")

// tap is the host's end of a card. Before make it is only the right to have one.
type tap struct {
	queues   []*os.File // each takes and gives frames
	attached int        // of them, the first ones
	index    int        // of its interface; 0: none yet
}

var _ net.Link = (*tap)(nil)

// openTap opens the device for a tap of so many queues. It will be in the caller's
// network namespace.
func openTap(queues int) (*tap, error) {
	t := &tap{}
	for range queues {
		fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			t.close()
			return nil, fmt.Errorf("open %s: %w: %w", tunDevice, err, errNoTun)
		}
		t.queues = append(t.queues, os.NewFile(uintptr(fd), tunDevice))
	}
	return t, nil
}

// make makes the interface, which vanishes with the descriptors.
func (t *tap) make() (name string, err error) {
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if len(t.queues) > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	name = tapPrefix + "%d"
	for i := range t.queues {
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return "", err
		}
		ifr.SetUint16(flags)
		if err := unix.IoctlIfreq(t.FD(i), unix.TUNSETIFF, ifr); err != nil {
			return "", fmt.Errorf("make a tap, queue %d: %w", i, os.NewSyscallError("TUNSETIFF", err))
		}
		name = ifr.Name()
	}
	t.attached = len(t.queues)
	size := int32(net.HeaderBytes)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(t.FD(0)), unix.TUNSETVNETHDRSZ, uintptr(unsafe.Pointer(&size))); e != 0 {
		return "", fmt.Errorf("header of a tap: %w", os.NewSyscallError("TUNSETVNETHDRSZ", e))
	}
	return name, nil
}

// FD returns the descriptor of a queue.
func (t *tap) FD(queue int) int { return int(t.queues[queue].Fd()) }

// SetQueues has the kernel use the first n queues: it divides flows among them.
func (t *tap) SetQueues(n int) error {
	for ; t.attached < n; t.attached++ {
		if err := t.setQueue(t.attached, unix.IFF_ATTACH_QUEUE); err != nil {
			return err
		}
	}
	for ; t.attached > n; t.attached-- {
		if err := t.setQueue(t.attached-1, unix.IFF_DETACH_QUEUE); err != nil {
			return err
		}
	}
	return nil
}

func (t *tap) setQueue(i int, flag uint16) error {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	ifr.SetUint16(flag)
	if err := unix.IoctlIfreq(t.FD(i), unix.TUNSETQUEUE, ifr); err != nil {
		return fmt.Errorf("queue %d of a tap: %w", i, os.NewSyscallError("TUNSETQUEUE", err))
	}
	return nil
}

// SetOffload has the kernel hand over frames as the guest takes them.
func (t *tap) SetOffload(o net.Offload) error {
	flags := 0
	for _, f := range []struct {
		on   bool
		flag int
	}{{o.Checksum, unix.TUN_F_CSUM}, {o.TSO4, unix.TUN_F_TSO4}, {o.TSO6, unix.TUN_F_TSO6}, {o.ECN && (o.TSO4 || o.TSO6), unix.TUN_F_TSO_ECN}} {
		if f.on {
			flags |= f.flag
		}
	}
	if !o.Checksum {
		flags = 0 // the rest needs it
	}
	if err := unix.IoctlSetInt(t.FD(0), unix.TUNSETOFFLOAD, flags); err != nil {
		return fmt.Errorf("offload of a tap: %w", os.NewSyscallError("TUNSETOFFLOAD", err))
	}
	return nil
}

func (t *tap) close() {
	for _, f := range t.queues {
		f.Close() //nolint:errcheck // nothing is buffered
	}
}

// ours says whether an interface is a tap of a monitor's.
func ours(name string) bool { return strings.HasPrefix(name, tapPrefix) }
