// Package thread runs what changes the state of an operating system thread.
package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Own runs f on a thread that ends with it, as f leaves it in a state in which
// nothing else may run, and returns what f returns. The main thread never ends,
// and /proc shows its namespaces and capabilities as the process's, so f never
// gets that one.
func Own(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			result <- f() // never unlocked: the thread ends with the goroutine
			return
		}
		defer runtime.UnlockOSThread()
		result <- Own(f) // on another one: this is taken
	}()
	return <-result
}
