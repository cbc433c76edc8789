package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"runv/libvm/state"
)

// OOM lets a monitor die as its workload did, for want of memory: engines learn
// that by the host's cgroup alone (an eventfd on memory.oom_control of cgroup v1,
// memory.events of v2), and the workload was killed by the guest's kernel. A nil
// OOM is of a group without a memory controller.
type OOM struct {
	limit, usage, swap, score *os.File
	v2                        bool
}

// OpenOOM opens what Kill needs, as no path leads there later. It is nil if the
// group was not made for the container, or does not count memory.
func OpenOOM(place state.Cgroup) (*OOM, error) {
	dir, v2 := place.Paths["memory"], false
	if dir == "" && len(place.Paths) == 1 {
		dir, v2 = place.Paths[""], true
	}
	if dir == "" || !slices.Contains(place.Made, dir) {
		return nil, nil
	}
	o := &OOM{v2: v2}
	files := []struct {
		to   **os.File
		path string
		flag int
	}{
		{&o.limit, filepath.Join(dir, "memory.limit_in_bytes"), os.O_WRONLY},
		{&o.usage, filepath.Join(dir, "memory.usage_in_bytes"), os.O_RDONLY},
		{&o.swap, filepath.Join(dir, "memory.swappiness"), os.O_WRONLY},
		{&o.score, "/proc/self/oom_score_adj", os.O_WRONLY},
	}
	if v2 {
		files[0].path, files[1].path = filepath.Join(dir, "memory.max"), filepath.Join(dir, "memory.current")
		files[2].path = filepath.Join(dir, "memory.swap.max")
	}
	for _, f := range files {
		file, err := os.OpenFile(f.path, f.flag, 0)
		if os.IsNotExist(err) && f.to == &o.swap {
			continue // a kernel without swap
		} else if os.IsNotExist(err) {
			o.Close()
			return nil, nil // a hierarchy without the controller
		} else if err != nil {
			o.Close()
			return nil, err
		}
		*f.to = file
	}
	return o, nil
}

// Close gives it up.
func (o *OOM) Close() {
	if o == nil {
		return
	}
	for _, f := range []*os.File{o.limit, o.usage, o.swap, o.score} {
		if f != nil {
			f.Close() //nolint:errcheck // of the kernel
		}
	}
}

// What is allocated is more than what the limit leaves.
const (
	oomRoom  = 1 << 20  // bytes
	oomNeeds = 32 << 20 // bytes
)

// Kill has the kernel kill the calling process, which must be the last one in the
// group and have nothing left to do. It returns only if the kernel did not.
func (o *OOM) Kill() {
	if o == nil {
		return
	}
	write := func(f *os.File, text string) {
		if f != nil {
			f.WriteString(text) //nolint:errcheck // without it another process may be chosen, or some of us is swapped out
		}
	}
	write(o.score, "1000")
	write(o.swap, "0") // no swap at all (v2), or none before the group's end (v1)
	if o.v2 {
		// Whatever is above the limit after that was reclaimed is killed
		// (cgroup-v2.rst, "memory.max").
		write(o.limit, "0")
		return
	}
	b := make([]byte, 32)
	n, err := o.usage.ReadAt(b, 0)
	used, parseErr := strconv.ParseInt(strings.TrimSpace(string(b[:n])), 10, 64)
	if n == 0 && err != nil || parseErr != nil {
		return
	}
	if _, err := o.limit.WriteString(strconv.FormatInt(used+oomRoom, 10)); err != nil {
		return
	}
	mem, err := unix.Mmap(-1, 0, oomNeeds, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return
	}
	for i := 0; i < len(mem); i += os.Getpagesize() {
		mem[i] = 1
	}
}
