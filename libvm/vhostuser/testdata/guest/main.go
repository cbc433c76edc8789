// Command guest is PID 1 of the virtual machine of TestQEMU. It reads random
// bytes from the host's device, makes the driver let go of the device and take
// it again, reads once more, says what it saw on the console, and ends.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("guest: error:", err)
	} else {
		fmt.Println("guest: done")
	}
	unix.Sync()
	fmt.Println(unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
}

func run() error {
	for _, fs := range []string{"devtmpfs /dev", "sysfs /sys"} {
		kind, dir, _ := strings.Cut(fs, " ")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(kind, dir, kind, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	for range 2 {
		if err := random(); err != nil {
			return err
		}
		if err := rebind(); err != nil {
			return err
		}
	}
	return random()
}

// random prints which generator the kernel uses, and what it gives.
func random() error {
	name, err := os.ReadFile("/sys/class/misc/hw_random/rng_current")
	if err != nil {
		return err
	}
	f, err := os.Open("/dev/hwrng")
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	b := make([]byte, 16)
	if _, err := f.Read(b); err != nil {
		return err
	}
	fmt.Printf("guest: %s %x\n", strings.TrimSpace(string(name)), b)
	return nil
}

// rebind resets the device: the driver is taken off, and put on again.
func rebind() error {
	const driver = "/sys/bus/virtio/drivers/virtio_rng"
	devs, err := filepath.Glob(driver + "/virtio*")
	if err != nil || len(devs) != 1 {
		return fmt.Errorf("devices of virtio_rng: %q %v", devs, err)
	}
	for _, file := range []string{"unbind", "bind"} {
		if err := os.WriteFile(filepath.Join(driver, file), []byte(filepath.Base(devs[0])), 0); err != nil {
			return err
		}
	}
	return nil
}
