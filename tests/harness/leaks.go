package harness

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// grace is how long after a test what is ending may still be there: the last of
// the kernel's work for a pid namespace goes on after its PID 1 was reaped.
const grace = 5 * time.Second

// Things is what tests can leave behind, by name.
type Things map[string]bool

// snapshot lists what is there now.
func snapshot(t testing.TB) Things {
	t.Helper()
	w := Things{}
	for _, p := range Descendants(os.Getpid()) {
		w["process "+p.String()] = true
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		// runc 1.1, beside which some tests run, takes off the host's options of the
		// cgroup v2 tree as a whole.
		if mount, _, ok := strings.Cut(line, " - cgroup2 "); ok {
			line = mount + " - cgroup2\n"
		}
		w["mount "+line] = true
	}
	for _, dir := range []string{"/run", "/dev/shm"} {
		w.addTree(dir)
	}
	// What runv has found out about the host's KVM is true until its next boot.
	delete(w, "file /run/runv-kvm-probe")
	return w
}

// addTree adds every file below a directory.
func (w Things) addTree(dir string) {
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != dir {
			w["file "+path] = true
		}
		return nil
	})
}

// check reports what a test left, of what was not there before.
func (w Things) check(t testing.TB, r *Runtime) {
	t.Helper()
	w.Check(t, func() Things {
		now := snapshot(t)
		now.addTree(filepath.Join(r.Dir, "tmp"))
		now.addTree(r.Root)
		now.addCgroups(filepath.Base(r.Dir))
		return now
	})
}

// Check reports what is there now and is not among w, once what is ending has
// had the time to.
func (w Things) Check(t testing.TB, now func() Things) {
	t.Helper()
	var left []string
	end := time.Now().Add(grace)
	for {
		left = left[:0]
		for name := range now() {
			if !w[name] {
				left = append(left, name)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			break
		}
		time.Sleep(20 * time.Millisecond) // nothing tells about all of these
	}
	for _, name := range left {
		t.Errorf("left behind: %s", name)
	}
}

// addCgroups adds the control groups that are named after the test.
func (w Things) addCgroups(name string) {
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(d.Name(), name) {
			w["cgroup "+path] = true
		}
		return nil
	})
}

// endTime is how long what was killed may take to be gone.
const endTime = 5 * time.Second

// ReapAll collects what has ended or is about to, of the processes that were left to
// us, their subreaper, by whoever made them: an engine would do so.
func ReapAll() {
	for end := time.Now().Add(grace); time.Now().Before(end); {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err != nil {
			return // there are none
		}
		if pid == 0 {
			time.Sleep(5 * time.Millisecond) // nothing tells when
		}
	}
}

// cleanUp ends what a failed test did not end, and says so.
func (r *Runtime) cleanUp() {
	entries, _ := os.ReadDir(r.Root) // no test may have used it
	for _, e := range entries {
		r.T.Errorf("left behind: container %s", e.Name())
		r.Run("delete", "--force", e.Name())
	}
	for _, p := range Descendants(os.Getpid()) {
		if strings.Contains(p.Cmdline, filepath.Base(r.Dir)) || p.State == "Z" || len(entries) > 0 {
			r.T.Errorf("left behind: process %s", p)
			_ = unix.Kill(p.PID, unix.SIGKILL)
		}
	}
	// Whatever failed here shall not fail the tests behind it. A child that is the
	// test's own may live on.
	for end := time.Now().Add(endTime); r.T.Failed() && time.Now().Before(end); {
		if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
}

// Proc is a process as /proc shows it.
type Proc struct {
	PID, PPID int
	State     string // the letter of proc(5)
	Comm      string
	Cmdline   string // arguments, joined by spaces
}

func (p Proc) String() string {
	return strconv.Itoa(p.PID) + " (" + p.Comm + ", " + p.State + ") " + p.Cmdline
}

// Descendants lists the processes below pid, in no order.
func Descendants(pid int) []Proc {
	children := map[int][]Proc{}
	for _, p := range processes() {
		children[p.PPID] = append(children[p.PPID], p)
	}
	var all []Proc
	for queue := []int{pid}; len(queue) > 0; queue = queue[1:] {
		all = append(all, children[queue[0]]...)
		for _, c := range children[queue[0]] {
			queue = append(queue, c.PID)
		}
	}
	return all
}

func processes() []Proc {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []Proc
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, ok := process(pid); ok {
			all = append(all, p)
		}
	}
	return all
}

// process reads one process; one that has just ended is not ok.
func process(pid int) (Proc, bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Proc{}, false
	}
	// pid (comm) state ppid …; comm may contain anything.
	open, closing := strings.IndexByte(string(stat), '('), strings.LastIndexByte(string(stat), ')')
	if open < 0 || closing < open {
		return Proc{}, false
	}
	fields := strings.Fields(string(stat[closing+1:]))
	if len(fields) < 2 {
		return Proc{}, false
	}
	ppid, err := strconv.Atoi(fields[1])
	if err != nil {
		return Proc{}, false
	}
	cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline")) // it may have ended
	return Proc{
		PID: pid, PPID: ppid, State: fields[0], Comm: string(stat[open+1 : closing]),
		Cmdline: strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " ")),
	}, true
}
