package kvm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// cacheName is the file in which Usable keeps what Probe found out.
const cacheName = "runv-kvm-probe"

// verdict is what a probe found out, until the host boots again.
type verdict struct {
	BootID string `json:"bootID"`
	Slow   string `json:"slow,omitempty"` // why guests are slow; empty: they are not
}

// slow is the text of an ErrSlow that was kept.
type slow string

func (s slow) Error() string      { return string(s) }
func (slow) Is(target error) bool { return target == ErrSlow }

// Usable says why guests should not run on KVM here, or nil. That it executes them
// at the speed of the processor is found out as by Probe, once after each boot of
// the host, and kept in the directory dir. Where dir cannot be written it is found
// out anew.
func (b *Backend) Usable(ctx context.Context, dir *os.File) error {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("boot id of the host: %w", err)
	}
	bootID := string(bytes.TrimSpace(id))
	if v, ok := readVerdict(dir); ok && v.BootID == bootID {
		if v.Slow != "" {
			return slow(v.Slow)
		}
		return nil
	}
	err = b.Probe(ctx)
	switch {
	case err == nil:
		writeVerdict(dir, verdict{BootID: bootID})
	case errors.Is(err, ErrSlow):
		writeVerdict(dir, verdict{BootID: bootID, Slow: err.Error()})
	} // what else went wrong may not do so again
	return err
}

// readVerdict reads the cache. One that is missing or broken says nothing.
func readVerdict(dir *os.File) (v verdict, ok bool) {
	fd, err := unix.Openat(int(dir.Fd()), cacheName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return v, false
	}
	f := os.NewFile(uintptr(fd), cacheName)
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	return v, err == nil && json.Unmarshal(b, &v) == nil
}

// writeVerdict writes the cache. A part of it, should that ever be all, is
// broken JSON, and so nothing.
func writeVerdict(dir *os.File, v verdict) {
	b, err := json.Marshal(v)
	if err != nil {
		return
	}
	fd, err := unix.Openat(int(dir.Fd()), cacheName, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), cacheName)
	f.Write(b) //nolint:errcheck // it is a cache
	f.Close()  //nolint:errcheck // it is a cache
}
