package state

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func sample(id string) State {
	self, err := Self()
	if err != nil {
		panic(err)
	}
	return State{
		Public: Public{
			Version: "1.3.0", ID: id, PID: self.PID, Status: Running, Bundle: "/b", Rootfs: "/b/rootfs",
			Created: time.Date(2026, 11, 23, 1, 2, 3, 4, time.UTC), Annotations: map[string]string{"a": "b"},
		},
		StartTime: self.StartTime,
		Cgroup:    Cgroup{Path: "/x", Paths: map[string]string{"": "/sys/fs/cgroup/x"}, Made: []string{"/sys/fs/cgroup/x"}},
	}
}

func create(t *testing.T, root, id string) *Dir {
	t.Helper()
	d, err := Create(root, id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestSaveLoad(t *testing.T) {
	root := filepath.Join(t.TempDir(), "new", "root")
	d := create(t, root, "c1")
	if _, err := d.Load(); !errors.Is(err, ErrNotExist) {
		t.Fatalf("Load of nothing: got %v, want %v", err, ErrNotExist)
	}
	want := sample("c1")
	if err := d.Save(want); err != nil {
		t.Fatal(err)
	}
	got, err := d.Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	names, err := d.names()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"state.json"}, names); diff != "" {
		t.Errorf("files left: %s", diff)
	}
	if ids, err := List(root); err != nil || !cmp.Equal(ids, []string{"c1"}) {
		t.Errorf("List: got %q, %v", ids, err)
	}
}

func TestPublicIsRuncShaped(t *testing.T) {
	s := sample("x").Public
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "ociVersion": "1.3.0",
  "id": "x",
  "pid": ` + strconv.Itoa(os.Getpid()) + `,
  "status": "running",
  "bundle": "/b",
  "rootfs": "/b/rootfs",
  "created": "2026-11-23T01:02:03.000000004Z",
  "annotations": {
    "a": "b"
  },
  "owner": ""
}`
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Error(diff)
	}
}

func TestCheckID(t *testing.T) {
	for id, want := range map[string]error{
		"a": nil, "A_b+c-d.9": nil, "...": nil, "": ErrEmptyID,
		".": ErrInvalidID, "..": ErrInvalidID, "../x": ErrInvalidID, "a/b": ErrInvalidID, "a b": ErrInvalidID,
		"é": ErrInvalidID, "a\x00": ErrInvalidID, strings.Repeat("a", 2000): ErrInvalidID,
	} {
		if got := CheckID(id); !errors.Is(got, want) {
			t.Errorf("CheckID(%q): got %v, want %v", id, got, want)
		}
	}
}

func TestStatusFollowsTheProcess(t *testing.T) {
	d := create(t, t.TempDir(), "c")
	child := exec.Command("sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := Find(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	s := sample("c")
	s.PID, s.StartTime = p.PID, p.StartTime
	status := func(what string, want Status) {
		t.Helper()
		if err := d.Save(s); err != nil {
			t.Fatal(err)
		}
		got, err := d.Load()
		if err != nil || got.Status != want {
			t.Errorf("%s: got %q, %v, want %q", what, got.Status, err, want)
		}
	}
	status("alive", Running)
	s.StartTime++
	status("another process of that pid", Stopped)
	s.StartTime--
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// A zombie until it is waited for; WNOWAIT leaves it one.
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, child.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	status("zombie", Stopped)
	_ = child.Wait()
	status("gone", Stopped)
	s.PID = 0
	status("no pid", Stopped)
}

func TestCreateIsExclusive(t *testing.T) {
	root := t.TempDir()
	var wg sync.WaitGroup
	results := make(chan error, 20)
	for range cap(results) {
		wg.Go(func() {
			d, err := Create(root, "same")
			results <- err
			if err == nil {
				_ = d.Close()
			}
		})
	}
	wg.Wait()
	close(results)
	made := 0
	for err := range results {
		if err == nil {
			made++
		} else if !errors.Is(err, ErrExists) {
			t.Errorf("got %v, want %v", err, ErrExists)
		}
	}
	if made != 1 {
		t.Errorf("got %d directories, want 1", made)
	}
}

// Creates, deletes and saves of one name at once: whoever holds the lock has
// the directory of that name, and nobody removes the directory of another.
func TestRaces(t *testing.T) {
	root := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	held := 0
	work := func(open func(string, string) (*Dir, error)) {
		for range 100 {
			d, err := open(root, "c")
			if errors.Is(err, ErrExists) || errors.Is(err, ErrNotExist) {
				continue
			} else if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			held++
			if held != 1 {
				t.Errorf("%d hold the lock", held)
			}
			held--
			mu.Unlock()
			if err := d.Save(sample("c")); err != nil {
				t.Error(err)
			}
			if _, err := d.Load(); err != nil {
				t.Error(err)
			}
			if err := d.Remove(); err != nil {
				t.Error(err)
			}
			if err := d.Remove(); err != nil {
				t.Errorf("second Remove: %v", err)
			}
			_ = d.Close()
		}
	}
	openLocked := func(root, id string) (*Dir, error) {
		d, err := Open(root, id)
		if err != nil {
			return nil, err
		}
		if err := d.Lock(ctx); err != nil {
			_ = d.Close()
			return nil, err
		}
		return d, nil
	}
	for range 3 {
		wg.Go(func() { work(Create) })
		wg.Go(func() { work(openLocked) })
	}
	wg.Wait()
	if ids, err := List(root); err != nil || len(ids) != 0 {
		t.Errorf("left: %q, %v", ids, err)
	}
}

func TestLockTimesOut(t *testing.T) {
	root := t.TempDir()
	create(t, root, "c")
	d, err := Open(root, "c")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := d.Lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestRemoveOnlyOurs(t *testing.T) {
	root := t.TempDir()
	d := create(t, root, "c")
	for _, name := range []string{"state.json", tempMark + "1.x", "ctl.sock", "console.sock", "precious"} {
		if err := os.WriteFile(filepath.Join(root, "c", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Remove(); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("got %v, want ENOTEMPTY", err)
	}
	names, _ := d.names()
	if diff := cmp.Diff([]string{"precious"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestForeignDirectories(t *testing.T) {
	root := t.TempDir()
	if err := os.Symlink(t.TempDir(), filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"link", "file", "none"} {
		if d, err := Open(root, id); !errors.Is(err, ErrNotExist) {
			t.Errorf("Open(%q): got %v, %v", id, d, err)
		}
	}
	d := create(t, root, "c")
	if err := d.Save(sample("other")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load(); err == nil || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("state of another id: got %v", err)
	}
}

func TestParseStat(t *testing.T) {
	line := "42 (a) b (c) S 1" + strings.Repeat(" 0", 17) + " 777 0 0\n"
	got, err := parseStat([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Process{PID: 42, StartTime: 777}, got); diff != "" {
		t.Error(diff)
	}
	for stat, dead := range map[string]bool{"S 1 0 0 0 0 4 ": true, "D 1 0 0 0 0 4 ": false, "S 1 0 0 0 0 0 ": false, "Z 1 0 0 0 0 0 ": true} {
		got, err := parseStat([]byte("42 (x) " + stat + strings.Repeat("0 ", 12) + "777 0 0\n"))
		if err != nil || got.Dead != dead {
			t.Errorf("parseStat of %q: got %+v, %v, want dead %t", stat, got, err, dead)
		}
	}
	for _, bad := range []string{"", "1", "1 (x", "1 )x(", "1 (x) S 1", "x (x) S" + strings.Repeat(" 0", 20)} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q): no error", bad)
		}
	}
}

// TestAliveWithUnreaped: the first process of a pid namespace is not alive once it
// only waits for somebody to reap what was killed with it.
func TestAliveWithUnreaped(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("makes a pid namespace (try: as root)")
	}
	first := exec.Command("sleep", "1000")
	first.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	defer first.Wait() //nolint:errcheck // it was killed
	// The shell becomes a parent that never reaps, of a process in the namespace.
	pid := strconv.Itoa(first.Process.Pid)
	parent := exec.Command("nsenter", "--no-fork", "--pid=/proc/"+pid+"/ns/pid", "sh", "-c", "sleep 1000 & echo ready; exec sleep 1000")
	ready, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	defer parent.Wait()         //nolint:errcheck // it was killed
	defer parent.Process.Kill() //nolint:errcheck // it sleeps still
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if !Alive(first.Process.Pid, 0) {
		t.Fatal("not alive before its end")
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); Alive(first.Process.Pid, 0); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			stat, _ := os.ReadFile("/proc/" + pid + "/stat")
			t.Fatalf("it is alive still: %s", stat)
		}
	}
	if b, err := os.ReadFile("/proc/" + pid + "/stat"); err != nil || !strings.Contains(string(b), ") S ") {
		t.Errorf("it is said to have ended, but waits for nobody: %s, %v", b, err)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (a) b (c) S 1" + strings.Repeat(" 0", 17) + " 777 0 0\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseStat(b) })
}

// What Parse accepts, it also accepts after a round through Save's encoding,
// and is the same.
func FuzzParse(f *testing.F) {
	b, _ := json.Marshal(sample("c"))
	f.Add(b)
	f.Add([]byte(`{"status":"creating","pid":-1}`))
	f.Add([]byte(`{`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(s)
		if err != nil {
			return // a year that RFC 3339 cannot say
		}
		s2, err := Parse(again)
		if err != nil {
			t.Fatalf("second Parse of %s: %v", again, err)
		}
		if !s.Created.Equal(s2.Created) || s.PID != s2.PID || s.ID != s2.ID || s.Status != s2.Status {
			t.Errorf("got %+v, want %+v", s2, s)
		}
	})
}

// TestPublicIsWhole: what the specification's type of a state says, ours says by
// the same names. A member that is new in it fails this.
func TestPublicIsWhole(t *testing.T) {
	names := func(typ reflect.Type) map[string]reflect.Kind {
		out := map[string]reflect.Kind{}
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			out[name] = typ.Field(i).Type.Kind()
		}
		return out
	}
	ours, theirs := names(reflect.TypeFor[Public]()), names(reflect.TypeFor[specs.State]())
	if len(theirs) < 6 {
		t.Fatalf("%d members found, the walk is broken", len(theirs))
	}
	for name, kind := range theirs {
		if ours[name] != kind {
			t.Errorf("%s: %v, want %v", name, ours[name], kind)
		}
	}
}
