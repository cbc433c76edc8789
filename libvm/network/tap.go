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
	file  *os.File
	index int // of its interface; 0: none yet
}

var _ net.Link = (*tap)(nil)

// openTap opens the device. The tap will be in the caller's network namespace.
func openTap() (*tap, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w: %w", tunDevice, err, errNoTun)
	}
	return &tap{file: os.NewFile(uintptr(fd), tunDevice)}, nil
}

// make makes the interface, which vanishes with the descriptor.
func (t *tap) make() (name string, err error) {
	ifr, err := unix.NewIfreq(tapPrefix + "%d")
	if err != nil {
		return "", err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	fd := t.FD()
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return "", fmt.Errorf("make a tap: %w", os.NewSyscallError("TUNSETIFF", err))
	}
	size := int32(net.HeaderBytes)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETVNETHDRSZ, uintptr(unsafe.Pointer(&size))); e != 0 {
		return "", fmt.Errorf("header of a tap: %w", os.NewSyscallError("TUNSETVNETHDRSZ", e))
	}
	return ifr.Name(), nil
}

// FD returns the descriptor.
func (t *tap) FD() int { return int(t.file.Fd()) }

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
	if err := unix.IoctlSetInt(t.FD(), unix.TUNSETOFFLOAD, flags); err != nil {
		return fmt.Errorf("offload of a tap: %w", os.NewSyscallError("TUNSETOFFLOAD", err))
	}
	return nil
}

func (t *tap) close() { t.file.Close() } //nolint:errcheck // nothing is buffered

// ours says whether an interface is a tap of a monitor's.
func ours(name string) bool { return strings.HasPrefix(name, tapPrefix) }
