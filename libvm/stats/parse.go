package stats

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
)

// Parse reads the files of a cgroup of the guest (Documentation/admin-guide/cgroup-v2.rst)
// by their names, and "net/dev" (proc_pid_net(5)). A file that is not there counts
// nothing; one that is not as the kernel writes it is an error.
func Parse(files map[string]string) (*Stats, error) {
	s := &Stats{Hugetlb: map[string]Hugetlb{}}
	for _, part := range []func(map[string]string, *Stats) error{parseCPU, parseMemory, parsePids, parseBlkio, parseHugetlb, parseNetwork} {
		if err := part(files, s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// OOMKills reads memory.events: how many processes were killed for want of memory.
func OOMKills(files map[string]string) (uint64, error) {
	events, err := keyed(files, "memory.events")
	return events["oom_kill"], err
}

// number reads a file with one number; "max", and a file that is not there, are none.
func number(files map[string]string, name string, none uint64) (uint64, error) {
	text := strings.TrimSpace(files[name])
	if text == "" || text == "max" {
		return none, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s of the guest: %w", name, err)
	}
	return n, nil
}

// keyed reads a file of lines "name number".
func keyed(files map[string]string, name string) (map[string]uint64, error) {
	out := map[string]uint64{}
	for line := range strings.Lines(files[name]) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s of the guest: %w", name, err)
		}
		out[key] = n
	}
	return out, nil
}

// pressure reads a file of lines "some avg10=0.00 …"; nil if there is none.
func pressure(files map[string]string, name string) (*cgroups.PSIStats, error) {
	text, ok := files[name]
	if !ok {
		return nil, nil
	}
	out := &cgroups.PSIStats{}
	for line := range strings.Lines(text) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		data := &out.Some
		if kind == "full" {
			data = &out.Full
		} else if kind != "some" {
			continue
		}
		for field := range strings.FieldsSeq(rest) {
			if err := pressureField(data, field); err != nil {
				return nil, fmt.Errorf("%s of the guest: %w", name, err)
			}
		}
	}
	return out, nil
}

func pressureField(d *cgroups.PSIData, field string) (err error) {
	key, value, _ := strings.Cut(field, "=")
	average := map[string]*float64{"avg10": &d.Avg10, "avg60": &d.Avg60, "avg300": &d.Avg300}[key]
	switch {
	case average != nil:
		*average, err = strconv.ParseFloat(value, 64)
		if err == nil && (math.IsNaN(*average) || math.IsInf(*average, 0)) {
			err = fmt.Errorf("%s is %s", key, value)
		}
	case key == "total":
		d.Total, err = strconv.ParseUint(value, 10, 64)
	}
	return err
}

func parseCPU(files map[string]string, s *Stats) error {
	const usec = 1000 // ns
	stat, err := keyed(files, "cpu.stat")
	if err != nil {
		return err
	}
	s.CPU.Usage = CPUUsage{Total: stat["usage_usec"] * usec, Kernel: stat["system_usec"] * usec, User: stat["user_usec"] * usec}
	s.CPU.Throttling = Throttling{Periods: stat["nr_periods"], ThrottledPeriods: stat["nr_throttled"], ThrottledTime: stat["throttled_usec"] * usec}
	s.CPU.PSI, err = pressure(files, "cpu.pressure")
	return err
}

func parseMemory(files map[string]string, s *Stats) (err error) {
	m := &s.Memory
	if m.Raw, err = keyed(files, "memory.stat"); err != nil {
		return err
	}
	m.Cache = m.Raw["file"]
	if m.Usage, err = memoryEntry(files, "memory"); err != nil {
		return err
	}
	if m.Swap, err = memoryEntry(files, "memory.swap"); err != nil {
		return err
	}
	// As cgroup v1 has it: both together, of which nobody knows the peak.
	m.Swap.Usage += m.Usage.Usage
	if m.Swap.Limit != math.MaxUint64 {
		m.Swap.Limit += m.Usage.Limit
	}
	m.Swap.Max = 0
	m.PSI, err = pressure(files, "memory.pressure")
	return err
}

// memoryEntry reads the files of "memory" or "memory.swap".
func memoryEntry(files map[string]string, name string) (e MemoryEntry, err error) {
	if _, ok := files[name+".current"]; !ok {
		return e, nil
	}
	if e.Usage, err = number(files, name+".current", 0); err != nil {
		return e, err
	}
	if e.Limit, err = number(files, name+".max", math.MaxUint64); err != nil {
		return e, err
	}
	e.Max, err = number(files, name+".peak", 0)
	return e, err
}

func parsePids(files map[string]string, s *Stats) (err error) {
	if s.Pids.Current, err = number(files, "pids.current", 0); err != nil {
		return err
	}
	s.Pids.Limit, err = number(files, "pids.max", 0)
	return err
}

// parseBlkio reads io.stat, of lines "8:0 rbytes=1 wbytes=2 rios=3 wios=4 …".
func parseBlkio(files map[string]string, s *Stats) (err error) {
	for line := range strings.Lines(files["io.stat"]) {
		device, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		majorText, minorText, ok := strings.Cut(device, ":")
		major, errMajor := strconv.ParseUint(majorText, 10, 32)
		minor, errMinor := strconv.ParseUint(minorText, 10, 32)
		if !ok || errMajor != nil || errMinor != nil {
			continue // a device without a number has nothing to count
		}
		for field := range strings.FieldsSeq(rest) {
			key, value, _ := strings.Cut(field, "=")
			table := map[string]*[]BlkioEntry{
				"rbytes": &s.Blkio.ServiceBytes, "wbytes": &s.Blkio.ServiceBytes, "rios": &s.Blkio.Serviced, "wios": &s.Blkio.Serviced,
			}[key]
			if table == nil {
				continue
			}
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return fmt.Errorf("io.stat of the guest: %w", err)
			}
			op := map[byte]string{'r': "Read", 'w': "Write"}[key[0]]
			*table = append(*table, BlkioEntry{Major: major, Minor: minor, Op: op, Value: n})
		}
	}
	s.Blkio.PSI, err = pressure(files, "io.pressure")
	return err
}

func parseHugetlb(files map[string]string, s *Stats) error {
	for name := range files {
		size, isHuge := strings.CutPrefix(name, "hugetlb.")
		size, isEvents := strings.CutSuffix(size, ".events")
		if !isHuge || !isEvents {
			continue
		}
		events, err := keyed(files, name)
		if err != nil {
			return err
		}
		used := "hugetlb." + size + ".rsvd.current"
		if _, ok := files[used]; !ok {
			used = "hugetlb." + size + ".current"
		}
		n, err := number(files, used, 0)
		if err != nil {
			return err
		}
		s.Hugetlb[size] = Hugetlb{Usage: n, Failcnt: events["max"]}
	}
	return nil
}

// parseNetwork reads net/dev: two lines of headings, then "name: " and sixteen
// numbers.
func parseNetwork(files map[string]string, s *Stats) error {
	const perDirection = 8
	for line := range strings.Lines(files["net/dev"]) {
		name, rest, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); !ok || name == "lo" {
			continue
		}
		var n [2 * perDirection]uint64
		fields := strings.Fields(rest)
		for i := range min(len(fields), len(n)) {
			var err error
			if n[i], err = strconv.ParseUint(fields[i], 10, 64); err != nil {
				return fmt.Errorf("net/dev of the guest: %w", err)
			}
		}
		s.Interfaces = append(s.Interfaces, &Interface{
			Name: name, RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3],
			TxBytes: n[perDirection], TxPackets: n[perDirection+1], TxErrors: n[perDirection+2], TxDropped: n[perDirection+3],
		})
	}
	return nil
}
