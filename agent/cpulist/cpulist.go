// Package cpulist reads the kernel's lists of CPUs: numbers and ranges between
// commas (cpuset(7) "List format").
package cpulist

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxCPU is how many CPUs a unix.CPUSet has room for. It drops what is above.
const maxCPU = uint64(unsafe.Sizeof(unix.CPUSet{}) * 8)

// Parse reads a list as "0-3,5"; nil for an empty one. Spaces around the numbers
// and superfluous commas are fine, as for runc.
func Parse(list string) (*unix.CPUSet, error) {
	if list == "" {
		return nil, nil
	}
	set := new(unix.CPUSet)
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		from, to, isRange := strings.Cut(part, "-")
		first, err := number(from)
		if err != nil {
			return nil, err
		}
		last := first
		if isRange {
			if last, err = number(to); err != nil {
				return nil, err
			}
		}
		if first > last {
			return nil, errors.New("invalid range: " + part)
		}
		for i := first; i <= last; i++ {
			set.Set(i)
		}
	}
	if set.Count() == 0 {
		return nil, fmt.Errorf("no members found in set %q", list)
	}
	return set, nil
}

func number(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, err
	}
	if n >= maxCPU {
		return 0, fmt.Errorf("values larger than %d are not supported", maxCPU-1)
	}
	return int(n), nil
}
