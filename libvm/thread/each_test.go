package thread

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openProc(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// comms returns the names of the process's threads.
func comms(t *testing.T) (list []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/comm")
	if err != nil || len(files) < 2 {
		t.Fatalf("threads: %v, %v", files, err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil { // or it has ended
			list = append(list, string(b))
		}
	}
	return list
}

// TestWriteEach: all threads are changed, be they waiting in the kernel, busy, or
// made meanwhile, and go on as if nothing had happened.
func TestWriteEach(t *testing.T) {
	proc := openProc(t)
	for end := time.Now().Add(10 * time.Second); slices.Contains(comms(t), "poisoned\n") && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // threads of TestOwn end
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	// Whatever fails, who waits for it does not wait for ever.
	defer func() { unix.Write(pipe[1], []byte{0}) }()
	read := make(chan error, 1)
	wg.Go(func() { // in a system call that a signal interrupts, and that goes on
		runtime.LockOSThread()
		_, err := unix.Read(pipe[0], make([]byte, 1))
		read <- err
	})
	for range 4 {
		wg.Go(func() { // in the middle of a sum, and making threads
			for sum := 0; ; sum++ {
				select {
				case <-stop:
					return
				default:
				}
				if sum%1000 == 0 {
					if err := Own(func() error { time.Sleep(time.Microsecond); return nil }); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for _, name := range []string{"first", "second", "third"} {
		// The main thread's is the process's, as ps shows it.
		if err := WriteEach(proc, "comm", name); err != nil {
			t.Fatal(err)
		}
		for _, got := range comms(t) {
			if got != name+"\n" {
				t.Errorf("a thread after %q: %q", name, got)
			}
		}
	}
	if _, err := unix.Write(pipe[1], []byte{0}); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil {
		t.Errorf("the interrupted call: %v", err)
	}
}

// TestWriteEachFails: the kernel's refusal is told, and signals are Go's again.
func TestWriteEachFails(t *testing.T) {
	proc := openProc(t)
	if err := WriteEach(proc, "oom_score", "1"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a file that takes nothing: %v", err)
	}
	if err := WriteEach(proc, "no/such", "x"); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "no/such") {
		t.Errorf("a file that is not there: %v", err)
	}
}
