package pstable

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"runv/libvm/ctl"
)

// columns are those of ps -o, by each of their names.
func columns() map[string]column {
	left := func(header string, width int, f func(*rows, ctl.Process) string) column {
		return column{header, width, false, f}
	}
	right := func(header string, width int, f func(*rows, ctl.Process) string) column {
		return column{header, width, true, f}
	}
	number := func(f func(ctl.Process) int) func(*rows, ctl.Process) string {
		return func(_ *rows, p ctl.Process) string { return strconv.Itoa(f(p)) }
	}
	user := func(r *rows, p ctl.Process) string { return r.user(p.UID) }
	comm := left("COMMAND", 15, func(_ *rows, p ctl.Process) string { return p.Comm })
	args := left("COMMAND", 27, func(_ *rows, p ctl.Process) string {
		return cmp.Or(p.Args, "["+p.Comm+"]")
	})
	cmd := left("CMD", 27, args.value)
	tty := left("TT", 8, func(_ *rows, p ctl.Process) string { return terminal(p.TTY) })
	tname := left("TTY", 8, tty.value)
	pcpu := right("%CPU", 4, func(_ *rows, p ctl.Process) string { return permille(cpu(p)) })
	pmem := right("%MEM", 4, func(_ *rows, p ctl.Process) string { return permille(min(int(p.Memory), 1000)) })
	vsz := right("VSZ", 6, number(func(p ctl.Process) int { return int(p.VSize >> 10) }))
	rss := right("RSS", 5, number(func(p ctl.Process) int { return int(p.RSS >> 10) }))
	state := left("S", 1, func(_ *rows, p ctl.Process) string { return (p.Stat + "?")[:1] })
	nice := right("NI", 3, number(func(p ctl.Process) int { return int(p.Nice) }))
	pgid := right("PGID", 7, number(func(p ctl.Process) int { return p.Pgid }))
	sid := right("SID", 7, number(func(p ctl.Process) int { return p.Sid }))
	threads := right("NLWP", 4, number(func(p ctl.Process) int { return int(p.Threads) }))
	cputime := right("TIME", 8, func(_ *rows, p ctl.Process) string { return clock(p.CPUMs/1000, true) })
	return map[string]column{
		"uid":  right("UID", 5, number(func(p ctl.Process) int { return int(p.UID) })),
		"euid": right("EUID", 5, number(func(p ctl.Process) int { return int(p.UID) })),
		"user": left("USER", 8, user), "euser": left("EUSER", 8, user),
		"pid":  right("PID", 7, number(func(p ctl.Process) int { return p.ContainerPID })),
		"ppid": right("PPID", 7, func(r *rows, p ctl.Process) string { return strconv.Itoa(r.inside[p.PPID]) }),
		"pgid": pgid, "pgrp": {"PGRP", 7, true, pgid.value}, "sid": sid, "sess": {"SESS", 7, true, sid.value},
		"c":    right("C", 2, number(func(p ctl.Process) int { return min(cpu(p)/10, 99) })),
		"pcpu": pcpu, "%cpu": pcpu, "pmem": pmem, "%mem": pmem,
		"vsz": vsz, "vsize": vsz, "rss": rss, "rssize": rss, "rsz": {"RSZ", 5, true, rss.value},
		"tty": tty, "tt": tty, "tname": tname,
		"stat": left("STAT", 4, func(_ *rows, p ctl.Process) string { return p.Stat }),
		"s":    state, "state": state, "ni": nice, "nice": nice, "nlwp": threads, "thcount": {"THCNT", 5, true, threads.value},
		"time": cputime, "cputime": cputime,
		"bsdtime": right("TIME", 6, func(_ *rows, p ctl.Process) string {
			return fmt.Sprintf("%d:%02d", p.CPUMs/60_000, p.CPUMs/1000%60)
		}),
		"etime":    right("ELAPSED", 11, func(_ *rows, p ctl.Process) string { return clock(p.ElapsedMs/1000, false) }),
		"etimes":   right("ELAPSED", 7, number(func(p ctl.Process) int { return int(p.ElapsedMs / 1000) })),
		"stime":    right("STIME", 5, func(r *rows, p ctl.Process) string { return r.started(p, "15:04") }),
		"bsdstart": right("START", 6, func(r *rows, p ctl.Process) string { return r.started(p, "15:04") }),
		"start":    right("STARTED", 8, func(r *rows, p ctl.Process) string { return r.started(p, "15:04:05") }),
		"lstart":   right("STARTED", 24, func(r *rows, p ctl.Process) string { return r.start(p).Format(time.ANSIC) }),
		"comm":     comm, "ucmd": {"CMD", 15, false, comm.value}, "ucomm": comm,
		"args": args, "command": args, "cmd": cmd,
	}
}

func (r *rows) start(p ctl.Process) time.Time {
	return r.now.Add(-time.Duration(min(p.ElapsedMs, 1<<40)) * time.Millisecond)
}

// started is the time of the start in a form for today's, else the day.
func (r *rows) started(p ctl.Process, today string) string {
	t := r.start(p)
	if r.now.Sub(t) < 24*time.Hour && t.Day() == r.now.Day() {
		return t.Format(today)
	}
	return t.Format("Jan02")
}

// cpu is the time used of that since the start, in thousandths.
func cpu(p ctl.Process) int {
	return int(p.CPUMs * 1000 / max(p.ElapsedMs, 1))
}

func permille(n int) string { return fmt.Sprintf("%d.%d", n/10, n%10) }

// clock is a time as ps shows it: [days-][hours:]minutes:seconds.
func clock(seconds uint64, hours bool) string {
	d, h, m, s := seconds/86400, seconds/3600%24, seconds/60%60, seconds%60
	switch {
	case d > 0:
		return fmt.Sprintf("%d-%02d:%02d:%02d", d, h, m, s)
	case hours || h > 0:
		return fmt.Sprintf("%02d:%02d:%02d", h, m, s)
	}
	return fmt.Sprintf("%02d:%02d", m, s)
}

// terminal is the name of a terminal by its number (proc_pid_stat(5), tty_nr).
func terminal(number uint32) string {
	major, minor := number>>8&0xfff, number&0xff|number>>12&0xfff00
	switch {
	case number == 0:
		return "?"
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", (major-136)<<8|minor)
	case major == 5 && minor == 1:
		return "console"
	case major == 4 && minor >= 64:
		return fmt.Sprintf("ttyS%d", minor-64)
	case major == 4:
		return fmt.Sprintf("tty%d", minor)
	}
	return fmt.Sprintf("%d:%d", major, minor)
}
