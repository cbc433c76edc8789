package monitor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/api"
	"runv/agent/mountopt"
	"runv/libvm/devfilter"
	"runv/libvm/mountfd"
	"runv/libvm/virtio/blk"
)

// disk is a block device of the host that the guest gets as one of virtio.
type disk struct {
	devfilter.Disk // Guest is known when the guest has told
	disk           *blk.Disk
}

// maxDisks bounds them: QEMU's microvm has places for 8 virtio devices, and some
// are for others.
const maxDisks = 4

// serial is how the guest names a disk to us.
func serial(i int) string { return "runv-disk-" + strconv.Itoa(i) }

// openDisks opens the block devices of the host that the config has nodes of, as
// far as its device rules let the container open them. One that cannot be opened
// has a node without a device in the guest, as on the host: engines give a
// privileged container all nodes that there are.
func (m *monitor) openDisks() error {
	for _, n := range blockNodes(&m.spec, m.launch.Bundle) {
		read, write, err := devfilter.Access(m.spec.Linux, n)
		if err != nil {
			return err
		}
		if !read && !write {
			continue
		}
		name := fmt.Sprintf("%d:%d", n.Major, n.Minor)
		if len(m.disks) == maxDisks {
			m.diskless = append(m.diskless, fmt.Errorf("%s: at most %d are", name, maxDisks))
			continue
		}
		d, err := openDisk(n, !write, serial(len(m.disks)))
		switch {
		case err != nil:
			m.diskless = append(m.diskless, fmt.Errorf("%s: %w", name, err))
		case d.Size() == 0:
			d.Close() //nolint:errcheck // an empty drive, a loop device without a file
		default:
			m.log.Debug("block device", "device", name, "bytes", d.Size(), "readonly", d.ReadOnly)
			m.disks = append(m.disks, &disk{Disk: devfilter.Disk{Host: n}, disk: d})
		}
	}
	return nil
}

// blockNodes lists the numbers of the block devices that linux.devices and binds
// name.
func blockNodes(spec *specs.Spec, bundle string) []devfilter.Number {
	var out []devfilter.Number
	seen := map[devfilter.Number]bool{}
	add := func(n devfilter.Number) {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	if spec.Linux != nil {
		for _, d := range spec.Linux.Devices {
			if d.Type == "b" {
				add(devfilter.Number{Major: uint32(d.Major), Minor: uint32(d.Minor)})
			}
		}
	}
	for _, m := range spec.Mounts {
		o := mountopt.Parse(m.Options)
		if !o.IsBind() || o.Flags&unix.MS_REMOUNT != 0 {
			continue
		}
		src := m.Source
		if !filepath.IsAbs(src) {
			src = filepath.Join(bundle, src)
		}
		var st unix.Stat_t
		if unix.Stat(src, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
			add(devfilter.Number{Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)})
		}
	}
	return out
}

// openDisk opens a block device by its number, whatever nodes of it there are.
func openDisk(n devfilter.Number, readOnly bool, serial string) (*blk.Disk, error) {
	dir, err := mountfd.New("tmpfs", 0) // mounted nowhere, and device nodes work on it
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir) //nolint:errcheck // takes the file system with it
	const name = "disk"
	if err := unix.Mknodat(dir, name, unix.S_IFBLK|0o600, int(unix.Mkdev(n.Major, n.Minor))); err != nil {
		return nil, os.NewSyscallError("mknod", err)
	}
	// O_DIRECT: the guest has a page cache already. O_EXCL is not for us: who has
	// mounted the device may give it to a container.
	flags := unix.O_RDWR | unix.O_DIRECT | unix.O_NONBLOCK | unix.O_CLOEXEC
	if readOnly {
		flags = flags&^unix.O_ACCMODE | unix.O_RDONLY
	}
	fd, err := unix.Openat(dir, name, flags, 0)
	if !readOnly && (errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES)) {
		readOnly = true // the device is
		fd, err = unix.Openat(dir, name, flags&^unix.O_ACCMODE|unix.O_RDONLY, 0)
	}
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.Openat(dir, name, flags&^unix.O_DIRECT, 0)
	}
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("%d:%d", n.Major, n.Minor))
	d, err := blk.NewDisk(f, readOnly, serial)
	if err != nil {
		f.Close() //nolint:errcheck // nothing was written
	}
	return d, err
}

// findDisks learns the numbers that the guest gave its disks.
func (m *monitor) findDisks(list []*api.Disk) error {
	for i, d := range m.disks {
		found := false
		for _, g := range list {
			if g.Serial == serial(i) {
				d.Guest, found = devfilter.Number{Major: g.Major, Minor: g.Minor}, true
			}
		}
		if !found {
			return fmt.Errorf("the guest does not see the block device %d:%d: its kernel has no virtio-blk", d.Host.Major, d.Host.Minor)
		}
	}
	return nil
}

// guestNumber is what a block device of the host is in the guest: the same if it
// is not one of its disks.
func (m *monitor) guestNumber(n devfilter.Number) devfilter.Number {
	for _, d := range m.disks {
		if d.Host == n {
			return d.Guest
		}
	}
	return n
}

// withDisks is a config with the guest's numbers of its disks.
func (m *monitor) withDisks(spec *specs.Spec) *specs.Spec {
	if len(m.disks) == 0 || spec.Linux == nil {
		return spec
	}
	s, l := *spec, *spec.Linux
	s.Linux, l.Devices = &l, append([]specs.LinuxDevice(nil), l.Devices...)
	for i, d := range l.Devices {
		if d.Type == "b" {
			n := m.guestNumber(devfilter.Number{Major: uint32(d.Major), Minor: uint32(d.Minor)})
			l.Devices[i].Major, l.Devices[i].Minor = int64(n.Major), int64(n.Minor)
		}
	}
	return &s
}

// guestDisks lists them for the device filter.
func (m *monitor) guestDisks() []devfilter.Disk {
	out := make([]devfilter.Disk, len(m.disks))
	for i, d := range m.disks {
		out[i] = d.Disk
	}
	return out
}
