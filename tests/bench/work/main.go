// Command work is the load of `make bench` in a guest: it reads and writes files
// of a shared directory and says how long each step took, one line a step:
// "step <name> <nanoseconds>". With BENCH_NETWORK it talks to the servers at that
// address instead, from eth0 with the address BENCH_ADDRESS if it has none yet; with
// BENCH_IPERF it runs iperf3 there.
//
// In a container it is the workload. As PID 1 of a bare virtual machine it
// mounts the virtio-fs device "bench", makes that its root, and does the same.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// tag is the virtio-fs tag of the bare machine's share.
const tag = "bench"

// dir is where the files are made. The source tree is at archive.
const (
	dir     = "/data"
	archive = "/src.tar"
)

func main() {
	inVM := os.Getpid() == 1 && os.Getenv("BENCH_CONTAINER") == ""
	var err error
	if host := os.Getenv("BENCH_NETWORK"); host != "" {
		err = plug(os.Getenv("BENCH_ADDRESS"))
		switch role := os.Getenv("BENCH_IPERF"); {
		case err != nil:
		case role != "":
			err = iperf(role, host, inVM)
		default:
			err = network(host)
		}
	} else if err = enter(inVM); err == nil {
		err = work()
	}
	if err != nil {
		fmt.Println("work:", err)
	} else {
		fmt.Println("work: done")
	}
	if inVM {
		// On a machine without firmware a reset is what ends it.
		unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) //nolint:errcheck // nothing is left to do
	}
	if err != nil {
		os.Exit(1)
	}
}

// enter makes the share the root of a bare machine; a container has it already.
func enter(inVM bool) error {
	if !inVM {
		return nil
	}
	const mount = "/tmp"
	if err := unix.Mount(tag, mount, "virtiofs", 0, ""); err != nil {
		return fmt.Errorf("mount the share: %w", err)
	}
	// Our file server has trees below its root, virtiofsd one that is it.
	root := mount + "/bench/root"
	if _, err := os.Stat(root); err != nil {
		root = mount
	}
	for _, m := range [...]struct{ source, target, kind string }{
		{"proc", root + "/proc", "proc"},
		{"dev", root + "/dev", "devtmpfs"},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
		}
	}
	if err := unix.Chroot(root); err != nil {
		return os.NewSyscallError("chroot", err)
	}
	return os.NewSyscallError("chdir", unix.Chdir("/"))
}
