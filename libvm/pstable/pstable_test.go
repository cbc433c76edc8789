package pstable

import (
	"strings"
	"testing"
	"time"

	"runv/libvm/ctl"
)

func listing() []ctl.Process {
	return []ctl.Process{
		{PID: 90, PPID: 1, ContainerPID: 1, UID: 4_000_000, Comm: "sh", Args: "sh -c 'a\tb\x1b[1m'", TTY: 34817, ElapsedMs: 100_000, CPUMs: 61_000,
			Stat: "Ss+", Nice: -5, Threads: 1, RSS: 3 << 20, VSize: 5 << 20, Pgid: 1, Sid: 1, Memory: 123},
		{PID: 95, PPID: 90, ContainerPID: 7, UID: 4_000_001, Comm: "worker", ElapsedMs: 90_061_000, Stat: "S", Threads: 4, Pgid: 7, Sid: 1},
	}
}

func TestTables(t *testing.T) {
	now := time.Date(2026, 11, 23, 20, 30, 0, 0, time.UTC)
	for options, want := range map[string]string{
		"": `UID          PID    PPID  C STIME TTY          TIME CMD
4000000        1       0 61 20:28 pts/1    00:01:01 sh -c 'a?b?[1m'
4000001        7       1  0 Nov22 ?        00:00:00 [worker]
`,
		"-A": `    PID TTY          TIME CMD
      1 pts/1    00:01:01 sh
      7 ?        00:00:00 worker
`,
		"aux": `USER         PID %CPU %MEM    VSZ   RSS TTY      STAT  START   TIME COMMAND
4000000        1 61.0 12.3   5120  3072 pts/1    Ss+   20:28   1:01 sh -c 'a?b?[1m'
4000001        7  0.0  0.0      0     0 ?        S     Nov22   0:00 [worker]
`,
		"ax": `    PID TTY      STAT   TIME COMMAND
      1 pts/1    Ss+    1:01 sh -c 'a?b?[1m'
      7 ?        S      0:00 [worker]
`,
		"-eo pid,etime,ni,s,nlwp,pgid,sid,comm=NAME": `    PID     ELAPSED  NI S NLWP    PGID     SID NAME
      1       01:40  -5 S    1       1       1 sh
      7  1-01:01:01   0 S    4       7       1 worker
`,
		"-opid -o uid": "    PID   UID\n      1 4000000\n      7 4000001\n",
	} {
		table, err := Parse(strings.Fields(options))
		if err != nil {
			t.Errorf("%q: %v", options, err)
			continue
		}
		var b strings.Builder
		if err := table.Write(&b, listing(), now); err != nil {
			t.Fatal(err)
		}
		if got := b.String(); got != want {
			t.Errorf("%q: got\n%swant\n%s", options, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for options, want := range map[string]string{
		"-o comm": "couldn't find PID field in ps output", "-o": "needs a list of columns", "-o pid,nosuch": `ps column "nosuch" is not supported`,
		"--forest": `ps option "--forest" is not supported`, "-p 5": `ps option "-p" is not supported`, "-o pid=X": "couldn't find PID",
	} {
		if _, err := Parse(strings.Fields(options)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", options, err, want)
		}
	}
}

// FuzzParse: any options and any guest's words make lines of printable text.
func FuzzParse(f *testing.F) {
	f.Add("-ef", "x")
	f.Add("aux -o pid,lstart,time=T", "\x00\n")
	f.Fuzz(func(t *testing.T, options, comm string) {
		table, err := Parse(strings.Fields(options))
		if err != nil {
			return
		}
		var b strings.Builder
		p := ctl.Process{Comm: comm, Args: comm, Stat: comm, ElapsedMs: uint64(len(comm)) << 50, CPUMs: 1 << 63}
		if err := table.Write(&b, []ctl.Process{p}, time.Unix(0, 0)); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(b.String(), "\n"); n != 2 {
			t.Errorf("%q: %d lines: %q", options, n, b.String())
		}
	})
}
