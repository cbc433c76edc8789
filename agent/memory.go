package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// memoryDir is where the kernel is told of memory (Linux 6.1,
// Documentation/admin-guide/mm/memory-hotplug.rst).
const memoryDir = "/sys/devices/system/memory"

// addMemory has the kernel take a block of memory, of so many bytes at a guest physical
// address, by the files in dir. A block that it has is only set online.
func addMemory(dir string, address, bytes uint64) error {
	size, err := os.ReadFile(filepath.Join(dir, "block_size_bytes"))
	if errors.Is(err, os.ErrNotExist) {
		return errors.New("the guest's kernel takes no memory while it runs (it needs CONFIG_MEMORY_HOTPLUG)")
	}
	if err != nil {
		return err
	}
	if have, err := strconv.ParseUint(strings.TrimSpace(string(size)), 16, 64); err != nil || have != bytes || bytes == 0 {
		return fmt.Errorf("the guest's kernel takes memory by %#q bytes (hexadecimal), want %#x", strings.TrimSpace(string(size)), bytes)
	}
	err = poke(filepath.Join(dir, "probe"), fmt.Sprintf("%#x", address))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("the guest's kernel takes no memory while it runs (it needs CONFIG_ARCH_MEMORY_PROBE, which runv's own has)")
	case err != nil && !errors.Is(err, unix.EEXIST):
		return err
	}
	state := filepath.Join(dir, "memory"+strconv.FormatUint(address/bytes, 10), "state")
	if now, err := os.ReadFile(state); err == nil && strings.TrimSpace(string(now)) == "online" {
		return nil
	}
	return poke(state, "online")
}

// poke writes to a file that exists, by one call.
func poke(path, s string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(s)
	return errors.Join(err, f.Close())
}
