package container

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ProcessInfo describes a process of a container.
type ProcessInfo struct {
	Pid, PPid    int    // in the guest's root pid namespace
	ContainerPid int    // in the container's
	UID          uint32 // effective
	Comm, Args   string

	TTY              uint32 // number of the terminal; 0: none
	ElapsedMs, CPUMs uint64
	Stat             string // as STAT of ps(1)
	Nice             int32
	Threads          uint32
	RSS, VSize       uint64 // bytes
	Pgid, Sid        int    // in the container's pid namespace
	Memory           uint32 // RSS, thousandths of the guest's memory
}

// maxArgs bounds what is told of a process's arguments, which it can change.
const maxArgs = 4096 // bytes

// Processes lists the processes of the container, in the order of their ids.
func (c *Container) Processes() ([]ProcessInfo, error) {
	pids, err := c.group.Procs()
	if err != nil {
		return nil, err
	}
	slices.Sort(pids)
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, os.NewSyscallError("sysinfo", err)
	}
	out := make([]ProcessInfo, 0, len(pids))
	for _, pid := range pids {
		if p, ok := inspect(pid, c.ns&unix.CLONE_NEWPID != 0); ok {
			p.Memory = uint32(p.RSS * 1000 / max(info.Totalram*uint64(info.Unit), 1))
			out = append(out, p)
		}
	}
	return out, nil
}

// inspect reads what /proc says; false if the process is gone.
func inspect(pid int, ownNS bool) (ProcessInfo, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	b, err := os.ReadFile(dir + "/status")
	if err != nil {
		return ProcessInfo{}, false
	}
	p := parseStatus(string(b), ownNS)
	p.Pid = pid
	if b, err = os.ReadFile(dir + "/stat"); err != nil {
		return ProcessInfo{}, false
	}
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // it is there
	p.addStat(string(b), uint64(now.Nano())/1e6)
	args, _ := os.ReadFile(dir + "/cmdline")
	if len(args) > maxArgs {
		args = args[:maxArgs]
	}
	p.Args = string(bytes.ReplaceAll(bytes.TrimRight(args, "\x00"), []byte{0}, []byte{' '}))
	if p.Args == "" {
		p.Args = "[" + p.Comm + "]" // as ps(1) shows what has no arguments
	}
	p.Comm, p.Args = strings.ToValidUTF8(p.Comm, "?"), strings.ToValidUTF8(p.Args, "?")
	return p, true
}

// parseStatus reads /proc/<pid>/status (proc_pid_status(5)).
func parseStatus(status string, ownNS bool) ProcessInfo {
	var p ProcessInfo
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		f := strings.Fields(value)
		if len(f) == 0 {
			continue
		}
		switch key {
		case "Name":
			p.Comm = strings.TrimPrefix(value, "\t")
		case "PPid":
			p.PPid, _ = strconv.Atoi(f[0])
		case "Uid": // real, effective, …
			n, _ := strconv.ParseUint(f[min(1, len(f)-1)], 10, 32)
			p.UID = uint32(n)
		case "NSpid":
			p.ContainerPid = inContainer(f, ownNS)
		case "NSpgid":
			p.Pgid = inContainer(f, ownNS)
		case "NSsid":
			p.Sid = inContainer(f, ownNS)
		}
	}
	return p
}

// inContainer takes a container's id from a list of them, which goes from the
// namespace of the reader, the guest's root, to that of the process.
func inContainer(ids []string, ownNS bool) int {
	i := 0
	if ownNS && len(ids) > 1 {
		i = 1
	}
	id, _ := strconv.Atoi(ids[i])
	return id
}

// tick is the unit of times in /proc/<pid>/stat: USER_HZ is 100 on x86-64.
const tick = 10 // ms

// addStat adds what /proc/<pid>/stat says (proc_pid_stat(5)), which has the
// command name in parentheses, and in that whatever it likes. now is the time
// since the boot, in ms.
func (p *ProcessInfo) addStat(stat string, now uint64) {
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const first = 3 // the manual page's number of f[0]
	number := func(field int) int64 {
		if field-first >= len(f) {
			return 0
		}
		n, _ := strconv.ParseInt(f[field-first], 10, 64)
		return n
	}
	if len(f) == 0 {
		return
	}
	p.TTY = uint32(number(7))
	p.CPUMs = uint64(number(14)+number(15)) * tick
	p.Nice, p.Threads = int32(number(19)), uint32(number(20))
	if started := uint64(number(22)) * tick; started < now {
		p.ElapsedMs = now - started
	}
	p.VSize, p.RSS = uint64(number(23)), uint64(number(24))*uint64(os.Getpagesize())
	p.Stat = strings.ToValidUTF8(f[0], "?")
	for _, mark := range []struct {
		letter string
		is     bool
	}{
		{"<", p.Nice < 0}, {"N", p.Nice > 0}, {"s", number(6) == int64(p.Pid)}, {"l", p.Threads > 1},
		{"+", number(8) > 0 && number(8) == number(5)},
	} {
		if mark.is {
			p.Stat += mark.letter
		}
	}
}
