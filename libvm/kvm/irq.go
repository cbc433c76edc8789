package kvm

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"runv/libvm/kvm/uapi"
	"runv/libvm/mem"
)

// regQueueNotify is the offset of QueueNotify in a virtio-mmio device (v1.2
// §4.2.2): the driver writes the index of a queue, 32 bits.
const regQueueNotify = 0x050

// line is an interrupt of the guest that an eventfd raises (irqfd).
type line struct {
	event *os.File
}

// newLine connects an eventfd with the pin gsi of the VM's interrupt controllers.
func newLine(vmfd int, gsi uint32) (*line, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	l := &line{event: os.NewFile(uintptr(fd), "irqfd")}
	arg := uapi.Irqfd{FD: uint32(fd), GSI: gsi}
	if _, err := uapi.IoctlPtr(vmfd, uapi.KVM_IRQFD, &arg, "KVM_IRQFD"); err != nil {
		l.close()
		return nil, fmt.Errorf("interrupt %d: %w", gsi, err)
	}
	return l, nil
}

// raise raises the interrupt, once: it is edge triggered.
func (l *line) raise() error {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	if _, err := l.event.Write(one[:]); err != nil {
		return fmt.Errorf("raise interrupt: %w", err)
	}
	return nil
}

func (l *line) close() {
	l.event.Close() //nolint:errcheck // an eventfd
}

// slot is the place of one virtio device in the machine: what its transport
// needs of KVM. It is the mmio.Lines of the device.
type slot struct {
	vmfd int
	base mem.GPA
	irq  *line
}

// Notify has the kernel signal the eventfd fd when the driver notifies a queue,
// without an exit to us.
func (s *slot) Notify(queue uint16, fd int) error { return s.ioevent(queue, fd, 0) }

// Unnotify undoes Notify, with the same arguments.
func (s *slot) Unnotify(queue uint16, fd int) error {
	return s.ioevent(queue, fd, uapi.KVM_IOEVENTFD_FLAG_DEASSIGN)
}

func (s *slot) ioevent(queue uint16, fd int, flags uint32) error {
	arg := uapi.Ioeventfd{
		Datamatch: uint64(queue),
		Addr:      uint64(s.base) + regQueueNotify,
		Len:       4,
		FD:        int32(fd),
		Flags:     uapi.KVM_IOEVENTFD_FLAG_DATAMATCH | flags,
	}
	if _, err := uapi.IoctlPtr(s.vmfd, uapi.KVM_IOEVENTFD, &arg, "KVM_IOEVENTFD"); err != nil {
		return fmt.Errorf("notification of queue %d at gpa %#x: %w", queue, arg.Addr, err)
	}
	return nil
}

// Interrupt raises the device's interrupt.
func (s *slot) Interrupt() error { return s.irq.raise() }

// address is where b is in this process. b is mapped, not Go's: nothing moves it.
func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }
