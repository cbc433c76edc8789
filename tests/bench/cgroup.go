package main

import (
	"bufio"
	"fmt"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// crun is the runtime that refuses a host with cgroups of both versions.
const crun = "crun"

// unifyCgroups makes, on such a host, a mount namespace in which there is only
// version 2, and keeps it until release. crun runs in it (1 ms for nsenter).
func (b *bench) unifyCgroups() (release func(), err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return func() {}, nil
	}
	holder := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c",
		"mount -t cgroup2 cgroup2 /sys/fs/cgroup && echo ready && exec sleep infinity")
	holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := holder.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := holder.Start(); err != nil {
		return nil, fmt.Errorf("mount namespace for crun: %w", err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		b.progress("no cgroup version 2 to mount: crun may refuse this host")
	} else {
		b.unified = fmt.Sprintf("/proc/%d/ns/mnt", holder.Process.Pid)
	}
	return func() {
		holder.Process.Kill() //nolint:errcheck // it may have ended
		holder.Wait()         //nolint:errcheck // it was killed
	}, nil
}
