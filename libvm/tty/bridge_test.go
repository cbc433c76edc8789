package tty

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A slave that stays open, and whose owner reads nothing, does not keep a bridge
// from its end.
func TestDrainWithInputThatNobodyReads(t *testing.T) {
	master, slave := pair(t)
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer inR.Close()
	defer inW.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	b, err := NewBridge(master, inR, null)
	if err != nil {
		t.Fatal(err)
	}
	go inW.Write(make([]byte, 1<<20)) //nolint:errcheck // ends with inR
	raw, err := b.master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	full := false
	for end := time.Now().Add(20 * time.Second); !full && time.Now().Before(end); {
		_ = raw.Control(func(fd uintptr) {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
			n, err := unix.Poll(poll, 0)
			full = err == nil && n == 0
		})
	}
	if !full {
		t.Fatal("the terminal takes any input")
	}
	drained := make(chan struct{})
	go func() { defer close(drained); b.Drain() }()
	select {
	case <-drained:
	case <-time.After(20 * time.Second):
		_ = slave.Close()
		t.Error("Drain waits for a reader of the input")
	}
}
