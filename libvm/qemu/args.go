package qemu

import (
	"encoding/binary"
	"fmt"
	"net"
	"strconv"
	"strings"

	"runv/libvm/virtio"
	"runv/libvm/vm"
)

// queueSize is the number of descriptors of a vhost-user-fs queue. A request
// of 1 MiB takes 257 of them, and a power of two is needed.
const queueSize = 1024

// tbSize bounds TCG's cache of translated code, in MiB. QEMU's default is an
// eighth of the guest's RAM up to 1 GiB, and it is all resident once used.
const tbSize = 64

// accelerator is what runs the guest's instructions.
type accelerator string

const (
	accelKVM accelerator = "kvm"
	accelTCG accelerator = "tcg"
)

// arguments collects the command line of QEMU. Each fd that QEMU inherits is
// given by its number in QEMU.
type arguments struct {
	args []string
}

func (a *arguments) add(args ...string) { a.args = append(a.args, args...) }

// machine adds what every guest has: microvm without legacy parts, memory that
// the vhost-user devices can map, and no configuration from the host. tscKHz is
// the frequency of the host's TSC, in kHz, 0 if unknown or not needed; ram is the path
// of the memory.
func (a *arguments) machine(c vm.Config, accel accelerator, tscKHz uint32, ram string) {
	// The CMOS clock stays: a kernel that does not find one waits 1 s for it.
	machine := "microvm,isa-serial=on,memory-backend=mem,acpi=" + onOff(c.ACPI)
	if tscKHz != 0 {
		machine += ",pit=off"
	}
	a.add("-M", machine)
	switch accel {
	case accelKVM:
		a.add("-accel", "kvm", "-cpu", "host")
	case accelTCG:
		// TCG runs "rep movsb" byte by byte; without these features the guest's
		// kernel copies by words.
		a.add("-accel", fmt.Sprintf("tcg,thread=multi,tb-size=%d", tbSize), "-cpu", "max,-erms,-fsrm")
	}
	a.add(
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-sandbox", sandbox,
		"-smp", strconv.Itoa(c.CPUs),
		"-m", fmt.Sprintf("%dM", c.Most()/vm.MiB),
		"-object", fmt.Sprintf("memory-backend-file,id=mem,size=%dM,share=on,mem-path=%s", c.Most()/vm.MiB, ram),
		// The vhost-user devices have no legacy interface.
		"-global", "virtio-mmio.force-legacy=false",
		"-append", commandLine(c, tscKHz),
	)
}

// commandLine is the guest kernel's: what the caller wants, and what this
// machine makes possible. agent/kernel/README.md says what each option is for.
func commandLine(c vm.Config, tscKHz uint32) string {
	params := []string{c.Cmdline, "reboot=t", "no_timer_check", "lapic_timer_khz=1000000"}
	if !c.ACPI {
		params = append(params, "acpi=off")
	}
	if c.Most() > c.Memory {
		params = append(params, fmt.Sprintf("mem=%dM", vm.Address(c.Memory)/vm.MiB))
	}
	if c.CPUs == 1 {
		params = append(params, "noreplace-smp")
	}
	if tscKHz != 0 {
		params = append(params, fmt.Sprintf("tsc_early_khz=%d", tscKHz), "tsc=reliable")
	}
	return strings.Join(params, " ")
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// chardev adds a socket chardev over an inherited fd.
func (a *arguments) chardev(id string, fd int) {
	a.add("-chardev", fmt.Sprintf("socket,id=%s,fd=%d", id, fd))
}

// chardevAt adds a socket chardev that QEMU connects to a path.
func (a *arguments) chardevAt(id, path string) {
	a.add("-chardev", fmt.Sprintf("socket,id=%s,path=%s", id, path))
}

// ownDevice adds what QEMU does itself, without a back-end of ours: it has no
// vhost-user frontend of a balloon.
func (a *arguments) ownDevice(d virtio.Device) bool {
	if d.ID() != virtio.IDBalloon {
		return false
	}
	a.add("-device", "virtio-balloon-device,free-page-reporting=on")
	return true
}

// device adds the frontend of d, whose backend is at the other end of chardev.
func (a *arguments) device(d virtio.Device, chardev string) error {
	switch d.ID() {
	case virtio.IDVsock:
		// Its context id is in the configuration space, which QEMU asks us for.
		a.add("-device", "vhost-user-vsock-device,chardev="+chardev)
	case virtio.IDFS:
		tag, err := fsTag(d)
		if err != nil {
			return err
		}
		a.add("-device", fmt.Sprintf("vhost-user-fs-device,chardev=%s,tag=%s,queue-size=%d", chardev, tag, queueSize))
	case virtio.IDBlock:
		a.add("-device", "vhost-user-blk,num-queues=1,queue-size=256,chardev="+chardev)
	case virtio.IDNet:
		mac, pairs, err := netConfig(d)
		if err != nil {
			return err
		}
		// The control queue is QEMU's; what it would filter or switch off there, no
		// back-end hears of. How many pairs the guest uses it tells by enabling them.
		a.add("-netdev", fmt.Sprintf("vhost-user,id=%s,chardev=%s,queues=%d", netdev(chardev), chardev, pairs),
			"-device", fmt.Sprintf("virtio-net-device,netdev=%s,mac=%s,mq=%s,ctrl_guest_offloads=off", netdev(chardev), mac, onOff(pairs > 1)))
	case virtio.IDRNG:
		a.add("-device", "vhost-user-rng,chardev="+chardev)
	default:
		return fmt.Errorf("qemu: no vhost-user frontend for virtio device type %d", d.ID())
	}
	return nil
}

// netdev is the name of the network card behind a chardev.
func netdev(chardev string) string { return "net-" + chardev }

// netConfig reads the Ethernet address and the number of pairs of queues from the
// configuration space of a network card (v1.2 §5.1.4).
func netConfig(d virtio.Device) (mac net.HardwareAddr, pairs int, err error) {
	const address, pairsOffset = 6, 8 // bytes
	c := d.Config()
	if len(c) < pairsOffset+2 {
		return nil, 0, fmt.Errorf("qemu: network card with %d bytes of configuration", len(c))
	}
	return net.HardwareAddr(c[:address]), int(binary.LittleEndian.Uint16(c[pairsOffset:])), nil
}

// fsTagBytes is the length of the tag in struct virtio_fs_config (v1.2 §5.11.4).
const fsTagBytes = 36

// fsTag reads the tag from the configuration space of a file system device.
func fsTag(d virtio.Device) (string, error) {
	c := d.Config()
	if len(c) < fsTagBytes {
		return "", fmt.Errorf("qemu: file system device with %d bytes of configuration", len(c))
	}
	tag, _, _ := strings.Cut(string(c[:fsTagBytes]), "\x00")
	if tag == "" || strings.ContainsAny(tag, ",=") {
		return "", fmt.Errorf("qemu: file system tag %q cannot be passed on", tag)
	}
	return tag, nil
}
