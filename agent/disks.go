package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"runv/agent/rpc"
)

// disks lists the block devices that have a serial number: by that the host knows
// which of its own each is.
func disks() ([]rpc.Disk, error) {
	const dir = "/sys/block/"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []rpc.Disk
	for _, e := range entries {
		serial, err := os.ReadFile(dir + e.Name() + "/serial")
		if err != nil {
			continue // not of virtio
		}
		number, err := os.ReadFile(dir + e.Name() + "/dev")
		if err != nil {
			return nil, err
		}
		major, minor, _ := strings.Cut(strings.TrimSpace(string(number)), ":")
		a, err := strconv.ParseUint(major, 10, 32)
		b, err2 := strconv.ParseUint(minor, 10, 32)
		if err != nil || err2 != nil {
			return nil, fmt.Errorf("number of %s: %q", e.Name(), number)
		}
		out = append(out, rpc.Disk{Serial: strings.TrimSpace(string(serial)), Major: uint32(a), Minor: uint32(b)})
	}
	return out, nil
}
