package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes of the work, in bytes, and counts.
const (
	bigFile     = 64 << 20
	block       = 1 << 20
	page        = 4 << 10
	randomPages = 2000 // of the big file, read and written each
)

// part is how much of it is done: 1 is all, 2 is half of it …
func part() (int, error) {
	s := os.Getenv("BENCH_PART")
	if s == "" {
		return 1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > randomPages {
		return 0, fmt.Errorf("BENCH_PART=%s: want 1 to %d", s, randomPages)
	}
	return n, nil
}

// work does the steps, each with nothing of the files in the guest's cache.
func work() error {
	part, err := part()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir+"/tree", 0o755); err != nil {
		return err
	}
	big := dir + "/big"
	for _, s := range [...]struct {
		name string
		do   func() error
	}{
		{"write-1M", func() error { return sequential(big, part, os.O_WRONLY|os.O_CREATE, (*os.File).Write) }},
		{"read-1M", func() error {
			return sequential(big, part, os.O_RDONLY, func(f *os.File, b []byte) (int, error) { return io.ReadFull(f, b) })
		}},
		{"randwrite-4k", func() error { return random(big, part, unix.O_WRONLY, unix.Pwrite) }},
		{"randread-4k", func() error { return random(big, part, unix.O_RDONLY, unix.Pread) }},
		{"tar-x", func() error { return busybox("tar", "xf", archive, "-C", dir+"/tree") }},
		{"find", func() error { return busybox("find", dir+"/tree", "-type", "f", "-size", "+0") }},
		{"rm-r", func() error { return busybox("rm", "-r", dir+"/tree") }},
	} {
		unix.Sync()
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
			return err
		}
		begin := time.Now()
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Printf("step %s %d\n", s.name, time.Since(begin).Nanoseconds())
	}
	return os.RemoveAll(dir)
}

// sequential reads or writes the big file from its beginning to its end.
func sequential(path string, part, flags int, do func(*os.File, []byte) (int, error)) error {
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return err
	}
	buf := bytes.Repeat([]byte("0123456789abcdef"), block/16)
	for range bigFile / part / block {
		if _, err := do(f, buf); err != nil {
			f.Close() //nolint:errcheck // it failed
			return err
		}
	}
	return f.Close()
}

// random reads or writes single pages of the big file, past the guest's cache:
// each is a request to the file server.
func random(path string, part, flags int, do func(int, []byte, int64) (int, error)) error {
	fd, err := unix.Open(path, flags|unix.O_DIRECT, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(fd) //nolint:errcheck // every write was checked
	// O_DIRECT wants an aligned buffer.
	buf, err := unix.Mmap(-1, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	r := rand.New(rand.NewPCG(1, 2)) // the same pages each time
	for range randomPages / part {
		n, err := do(fd, buf, r.Int64N(int64(bigFile/part/page))*page)
		if err != nil || n != page {
			return fmt.Errorf("%d bytes: %w", n, err)
		}
	}
	return nil
}

// busybox runs an applet of the root file system.
func busybox(args ...string) error {
	cmd := exec.Cmd{Path: "/bin/busybox", Args: append([]string{"busybox"}, args...), Env: []string{}}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, stderr.Bytes())
	}
	return nil
}
