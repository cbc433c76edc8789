package thread

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOwn(t *testing.T) {
	want := errors.New("of f")
	for range 20 {
		err := Own(func() error {
			if unix.Gettid() == unix.Getpid() {
				t.Error("f runs on the main thread")
			}
			return os.WriteFile("/proc/thread-self/comm", []byte("poisoned"), 0)
		})
		if err != nil {
			t.Fatal(err)
		}
		// No goroutine gets a thread on which f has run.
		comm, err := os.ReadFile("/proc/thread-self/comm")
		if err != nil || strings.HasPrefix(string(comm), "poisoned") {
			t.Fatalf("name of a thread behind Own: got %q, %v", comm, err)
		}
	}
	if got := Own(func() error { return want }); !errors.Is(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
