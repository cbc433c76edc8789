package cgroup

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// File is a file of a cgroup, or one beside it that says what a container uses.
type File struct {
	Name    string
	Content []byte
}

// maxMetric bounds a file: io.stat has a line for each disk.
const maxMetric = 64 << 10 // bytes

// Metrics reads the files that say what the cgroup uses, and how much it may.
func (g *Group) Metrics() []File {
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return nil
	}
	var out []File
	for _, e := range entries {
		controller, rest, _ := strings.Cut(e.Name(), ".")
		if e.IsDir() || !isMetric(controller, rest) {
			continue
		}
		if f, err := ReadMetric(g.dir+"/"+e.Name(), e.Name()); err == nil {
			out = append(out, f)
		}
	}
	return out
}

// isMetric names the files by controller and what follows it.
func isMetric(controller, rest string) bool {
	switch controller {
	case "cpu":
		return rest == "stat" || rest == "pressure"
	case "memory":
		switch rest {
		case "stat", "current", "max", "peak", "pressure", "swap.current", "swap.max", "swap.peak", "events":
			return true
		}
	case "pids":
		return rest == "current" || rest == "max"
	case "io":
		return rest == "stat" || rest == "pressure"
	case "hugetlb":
		return strings.HasSuffix(rest, ".current") || strings.HasSuffix(rest, ".events")
	}
	return false
}

// ReadMetric reads a file of the kernel's as one of a given name.
func ReadMetric(path, name string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMetric))
	return File{Name: name, Content: b}, err
}

// CheckMemory refuses a limit of memory, or of memory and swap, that is not above
// what is in use. The words are runc's.
func (g *Group) CheckMemory(limit, swap *int64) error {
	b, err := os.ReadFile(g.dir + "/memory.current")
	if err != nil {
		return nil // nothing is counted
	}
	used, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return nil
	}
	if n := deref(swap); n > 0 && n <= used {
		return fmt.Errorf("rejecting memory+swap limit %d <= usage %d", n, used)
	}
	if n := deref(limit); n > 0 && n <= used {
		return fmt.Errorf("rejecting memory limit %d <= usage %d", n, used)
	}
	return nil
}
