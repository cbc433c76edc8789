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
	Pid, PPid    int // in the guest's root pid namespace
	ContainerPid int // in the container's
	UID          uint32
	Comm, Args   string
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
	out := make([]ProcessInfo, 0, len(pids))
	for _, pid := range pids {
		if p, ok := inspect(pid, c.ns&unix.CLONE_NEWPID != 0); ok {
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
		case "Uid":
			n, _ := strconv.ParseUint(f[0], 10, 32)
			p.UID = uint32(n)
		case "NSpid":
			// From the namespace of the reader to that of the process;
			// ours is the guest's root, the next the container's.
			i := 0
			if ownNS && len(f) > 1 {
				i = 1
			}
			p.ContainerPid, _ = strconv.Atoi(f[i])
		}
	}
	return p
}
