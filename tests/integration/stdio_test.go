package integration

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

// TestSlowReader: what a container prints arrives whole and in order however
// slow its reader is, and nobody collects it in memory meanwhile.
func TestSlowReader(t *testing.T) {
	const total = 100 << 20
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("cat", "/data"))
	data := make([]byte, total)
	rand.Read(data) //nolint:errcheck // never fails
	if err := os.WriteFile(b.Rootfs+"/data", data, 0o600); err != nil {
		t.Fatal(err)
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close() //nolint:errcheck // a pipe
	c := r.Create(b, nil, pw)
	pw.Close() //nolint:errcheck // the container has its own
	free := available(t, c)
	c.Start()

	// Nobody reads: the writer has to stop with all buffers full.
	taken := 0
	harness.Within(t, harness.Limit, "the writer stops", func() bool {
		before := taken
		if taken = position(c); taken == 0 || taken != before {
			time.Sleep(300 * time.Millisecond) // over which a writer that goes on shows
			return false
		}
		return true
	})
	if taken > 16<<20 {
		t.Errorf("%d bytes were taken from the writer before anybody read", taken)
	}
	if used := free - available(t, c); used > 32<<10 {
		t.Errorf("the guest uses %d kB more with a writer that waits", used)
	}
	idle := anonymous(t, c.PID)
	var most int
	for got := 0; got < total; {
		n, err := pr.Read(data[:64<<10]) // the file has another copy
		if err != nil {
			t.Fatalf("after %d bytes of %d: %v", got, total, err)
		}
		if !sameAs(t, b.Rootfs+"/data", got, data[:n]) {
			t.Fatalf("other bytes at %d", got)
		}
		if got>>22 != (got+n)>>22 {
			most = max(most, anonymous(t, c.PID))
			time.Sleep(20 * time.Millisecond) // a reader with other things to do
		}
		got += n
	}
	if n, err := pr.Read(data); n != 0 || err != io.EOF {
		t.Errorf("behind the end: %d bytes, %v", n, err)
	}
	if got := c.Wait(); got != 0 {
		t.Errorf("status: got %d, want 0", got)
	}
	t.Logf("taken before the first read: %d bytes; monitor's memory: %d kB idle, %d kB at most", taken, idle, most)
	if most > idle+16<<10 || most > 64<<10 {
		t.Errorf("monitor's memory: %d kB idle, %d kB at most", idle, most)
	}
	c.Delete()
}

// sameAs compares bytes with those of a file at an offset.
func sameAs(t *testing.T, path string, offset int, got []byte) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	want := make([]byte, len(got))
	if _, err := f.ReadAt(want, int64(offset)); err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(got, want)
}

// position is how far PID 1 has read the first file that it opened, in bytes.
func position(c *harness.Container) int {
	n, err := strconv.Atoi(c.Output("sed -n 's/^pos:[[:space:]]*//p' /proc/1/fdinfo/3"))
	if err != nil {
		return 0
	}
	return n
}

// available is the memory that the guest could still use, in kB.
func available(t *testing.T, c *harness.Container) int {
	t.Helper()
	n, err := strconv.Atoi(c.Output("awk '/^MemAvailable/ {print $2}' /proc/meminfo"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// anonymous is the memory of a process that is only its own, in kB.
func anonymous(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`RssAnon:\s*(\d+) kB`).FindSubmatch(data)
	if m == nil {
		return 0 // it is ending
	}
	kb, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kb
}

// TestReaderGoesAway: the writer gets SIGPIPE, as it would with runc.
func TestReaderGoesAway(t *testing.T) {
	r := newRuntime(t)
	out := newOutput(t)
	// PID 1 would ignore the signal, so a child writes.
	c := r.Create(r.NewBundle(harness.Shell("(while :; do echo line; done); exit $?")), nil, out.w).Start()
	out.w.Close() //nolint:errcheck // the container has its own
	out.expect("line\n")
	out.r.Close() //nolint:errcheck // nobody reads from now on
	// The shell's own write fails with EPIPE if it ignores the signal.
	if got := c.Wait(); got != 128+int(unix.SIGPIPE) && got != 1 {
		t.Errorf("status: got %d, want %d", got, 128+int(unix.SIGPIPE))
	}
	c.Delete()

	e := sleeper(t)
	defer e.End()
	out = newOutput(t)
	pid := detached(t, e, out.w, nil, "yes")
	out.w.Close() //nolint:errcheck // the process has its own
	out.expect("y\n")
	out.r.Close() //nolint:errcheck // nobody reads from now on
	if got := harness.Reap(t, pid); got != 128+int(unix.SIGPIPE) && got != 1 {
		t.Errorf("status of exec: got %d, want %d", got, 128+int(unix.SIGPIPE))
	}
}

// TestClosesStdoutEarly: the reader sees the end while the container runs.
func TestClosesStdoutEarly(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Shell("echo last; exec >/dev/null; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo err >&2; exit 5"))
	out, errs := newOutput(t), newOutput(t)
	c := r.Create(b, nil, out.w, errs.w).Start()
	out.w.Close() //nolint:errcheck // the container has its own
	if err := out.r.SetReadDeadline(time.Now().Add(harness.Limit)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(out.r); err != nil || string(got) != "last\n" {
		t.Errorf("stdout: %q, %v", got, err)
	}
	if got := c.State().Status; got != "running" {
		t.Errorf("state: %s", got)
	}
	c.Output("touch /tmp/go")
	errs.expect("err\n")
	if got := c.Wait(); got != 5 {
		t.Errorf("status: got %d, want 5", got)
	}
	c.Delete()
}

// TestBackgroundChild: with PID 1 its children end, so its streams end, too.
func TestBackgroundChild(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Shell("sleep 1000 & echo main; exit 6"))
	got := r.Run("run", "--bundle", b.Dir, r.NewID())
	if got.Stdout != "main\n" || got.Status != 6 || got.Took > 30*time.Second {
		t.Errorf("got %+v", got)
	}
}

// TestStdin: its end reaches the workload, and what is not read does not hang.
func TestStdin(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Shell("read a; echo got $a; cat | wc -c"))
	if got := r.RunWith(strings.NewReader("line\nrest"), "run", "--bundle", b.Dir, r.NewID()); got.Stdout != "got line\n4\n" {
		t.Errorf("got %+v", got)
	}
	b.Change(t, harness.Shell("head -c 3; exit 4"))
	if got := r.RunWith(io.LimitReader(zeros{}, 1<<20), "run", "--bundle", b.Dir, r.NewID()); got.Stdout != "\x00\x00\x00" || got.Status != 4 {
		t.Errorf("got %+v", got)
	}
	// An open stdin that never says anything.
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close() //nolint:errcheck // a pipe
	defer pw.Close() //nolint:errcheck // a pipe
	b.Change(t, harness.Shell("echo done"))
	cmd := r.Command("run", "--bundle", b.Dir, r.NewID())
	cmd.Stdin = pr
	if got := r.Finish(cmd); got.Stdout != "done\n" || got.Status != 0 {
		t.Errorf("got %+v", got)
	}
	// None at all.
	b.Change(t, harness.Shell("cat; echo eof; readlink /proc/self/fd/0"))
	if got := r.Run("run", "--bundle", b.Dir, r.NewID()); got.Stdout != "eof\n/dev/null\n" {
		t.Errorf("got %+v", got)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestStuckReader: a container whose output nobody takes can be deleted.
func TestStuckReader(t *testing.T) {
	r := newRuntime(t)
	out := newOutput(t)
	c := r.Create(r.NewBundle(harness.Args("yes")), nil, out.w).Start()
	out.expect("y\n")
	begin := time.Now()
	r.Must("delete", "--force", c.ID)
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("delete --force took %v", took)
	}
	if got := c.Wait(); got != 137 {
		t.Errorf("status: got %d, want 137", got)
	}
}
