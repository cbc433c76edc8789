// Command guest is PID 1 of the virtual machine of TestQEMU. It mounts the file
// system with tag "runv", does the same work in it as a container might, says on
// the console how long each step took, and ends.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("guest: error:", err)
	} else {
		fmt.Println("guest: done")
	}
	fmt.Println(unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
}

func run() error {
	for _, m := range []string{"devtmpfs /dev", "proc /proc", "virtiofs /mnt"} {
		kind, dir, _ := strings.Cut(m, " ")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		source := kind
		if kind == "virtiofs" {
			source = "runv"
		}
		if err := unix.Mount(source, dir, kind, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	dir := "/mnt"
	for _, word := range strings.Fields(string(cmdline)) {
		if d, ok := strings.CutPrefix(word, "dir="); ok {
			dir = d
		}
	}
	// As the agent does it: a bind of the tree, so that its name shows in mountinfo.
	if err := os.MkdirAll("/tree", 0o755); err != nil {
		return err
	}
	if err := unix.Mount(dir, "/tree", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", dir, err)
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(info), "\n") {
		if strings.Contains(line, " /tree ") {
			fmt.Println("guest: mountinfo", line)
		}
	}
	return work("/tree")
}

const big = 64 << 20 // bytes

func work(dir string) error {
	block := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	tree := filepath.Join(dir, "many")
	steps := []struct {
		name string
		f    func() error
	}{
		{"write", func() error { return writeBig(dir+"/big", block) }},
		{"read", func() error { return readBig(dir+"/big", block) }},
		{"random", func() error { return random(dir + "/big") }},
		{"create", func() error { return create(tree) }},
		{"find", func() error { return find(tree, false) }},
		{"stat", func() error { return find(tree, true) }},
		{"cat", func() error { return cat(tree) }},
		{"remove", func() error { return os.RemoveAll(tree) }},
	}
	for _, s := range steps {
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
			return err
		}
		start := time.Now()
		if err := s.f(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Printf("guest: step %s %d us\n", s.name, time.Since(start).Microseconds())
	}
	return check(dir)
}

func writeBig(path string, block []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // checked below
	for range big / len(block) {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return f.Close()
}

func readBig(path string, block []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	buf := make([]byte, len(block))
	for range big / len(block) {
		if _, err := io.ReadFull(f, buf); err != nil {
			return err
		}
		if !bytes.Equal(buf, block) {
			return errors.New("read something else")
		}
	}
	return nil
}

// random reads 4 KiB at a time, past the guest's page cache.
func random(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	for range 4000 {
		if _, err := unix.Pread(fd, page, rand.Int64N(big/4096)*4096); err != nil {
			return err
		}
	}
	return nil
}

func create(tree string) error {
	for d := range 20 {
		dir := fmt.Sprintf("%s/%d", tree, d)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for f := range 100 {
			if err := os.WriteFile(fmt.Sprintf("%s/file%d", dir, f), []byte("some content"), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func find(tree string, stat bool) error {
	n := 0
	err := filepath.WalkDir(tree, func(_ string, e fs.DirEntry, err error) error {
		n++
		if err == nil && stat {
			_, err = e.Info()
		}
		return err
	})
	if err == nil && n != 1+20+2000 {
		err = fmt.Errorf("found %d", n)
	}
	return err
}

func cat(tree string) error {
	return filepath.WalkDir(tree, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		if err == nil && string(b) != "some content" {
			err = fmt.Errorf("%s has %q", p, b)
		}
		return err
	})
}

// check tries what is not about speed.
func check(dir string) error {
	p := dir + "/check"
	if err := errors.Join(os.WriteFile(p, []byte("x"), 0o640), os.Chown(p, 12, 34), os.Symlink("check", p+"-link"),
		unix.Mkfifo(p+"-fifo", 0o600), unix.Setxattr(p, "user.x", []byte("y"), 0), os.Remove(dir+"/big")); err != nil {
		return err
	}
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	m[0] = 'm'
	if err := errors.Join(unix.Munmap(m), f.Close()); err != nil {
		return err
	}
	unix.Sync()
	return unix.Unmount("/tree", 0)
}
