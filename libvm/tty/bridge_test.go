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
	// POLLOUT alone does not tell: the line discipline takes some of a full
	// buffer later, and wakes no writer until somebody reads.
	refused := 0
	for end := time.Now().Add(20 * time.Second); refused < 20 && time.Now().Before(end); {
		_ = raw.Control(func(fd uintptr) {
			if _, err := unix.Write(int(fd), make([]byte, 4096)); err == unix.EAGAIN {
				refused++
			} else {
				refused = 0
			}
		})
		time.Sleep(5 * time.Millisecond)
	}
	if refused < 20 {
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
