package state

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// Process identifies a process for longer than its pid does.
type Process struct {
	PID       int    `json:"pid"`       // in the pid namespace of /proc
	StartTime uint64 `json:"startTime"` // clock ticks since boot
	Dead      bool   `json:"-"`         // a zombie, or about to be one
}

// Self is the calling process as the mounted /proc sees it: for a monitor that
// is PID 1 of its own namespace, with the host's /proc still mounted, the pid
// that the host knows.
func Self() (Process, error) { return readProcess("/proc/self/stat") }

// Find looks a process up in /proc. The error is os.ErrNotExist if there is
// none of that pid.
func Find(pid int) (Process, error) {
	return readProcess(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
}

// Alive reports whether the process pid runs and started at start (clock ticks
// since boot; 0: any). A zombie is not alive: its status is all that is left.
func Alive(pid int, start uint64) bool {
	if pid <= 0 {
		return false
	}
	p, err := Find(pid)
	return err == nil && !p.Dead && (start == 0 || p.StartTime == start)
}

func readProcess(path string) (Process, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Process{}, err
	}
	return parseStat(b)
}

// exiting is PF_EXITING of the kernel's include/linux/sched.h.
const exiting = 0x4

// parseStat reads a line of /proc/pid/stat. The second field, the command's
// name in parentheses, may itself contain spaces and parentheses; the rest
// may not (proc(5)).
func parseStat(b []byte) (Process, error) {
	var p Process
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return p, errors.New("parse /proc/pid/stat: no command name")
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b[:open])))
	if err != nil {
		return p, fmt.Errorf("parse /proc/pid/stat: pid: %w", err)
	}
	rest := bytes.Fields(b[end+1:]) // from field 3, the state, on
	if len(rest) < 21 {
		return p, fmt.Errorf("parse /proc/pid/stat: %d fields after the name", len(rest))
	}
	start, err := strconv.ParseUint(string(rest[19]), 10, 64) // field 22
	if err != nil {
		return p, fmt.Errorf("parse /proc/pid/stat: start time: %w", err)
	}
	p.PID, p.StartTime = pid, start
	flags, err := strconv.ParseUint(string(rest[6]), 10, 32) // field 9
	if err != nil {
		return p, fmt.Errorf("parse /proc/pid/stat: flags: %w", err)
	}
	switch rest[0][0] {
	case 'Z', 'X', 'x':
		p.Dead = true
	case 'S':
		// The first process of a pid namespace, and the last of its threads, sleeps
		// until others have reaped theirs in there: its memory and files are gone.
		p.Dead = flags&exiting != 0 && string(rest[20]) == "0" // field 23, vsize
	}
	return p, nil
}
