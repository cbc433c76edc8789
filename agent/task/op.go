package task

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"
)

// Op is one system call of a Script.
type Op struct {
	// Name is the text of an error: "setresuid 1000".
	Name string

	nr   uintptr
	args [6]uintptr
	// keep holds the memory that args point to.
	keep [2]unsafe.Pointer
	// min is the least result that is a success.
	min uintptr
	// allow are errors that let the script go on.
	allow [2]syscall.Errno
	// retry marks a call that is made only if an earlier one with the same
	// mark failed with an allowed error; see Script.Retry.
	first, retry bool
}

// Allow lets the script go on when the call fails with one of up to two errors.
func (o Op) Allow(errs ...syscall.Errno) Op {
	copy(o.allow[:], errs)
	return o
}

// Call is a system call whose arguments are plain numbers.
func Call(name string, nr uintptr, args ...uintptr) Op {
	o := Op{Name: name, nr: nr}
	copy(o.args[:], args)
	return o
}

// pointer sets argument i to p, which must point to memory that is neither on a
// stack nor changed before the script has run.
func (o Op) pointer(i int, p unsafe.Pointer) Op {
	o.args[i] = uintptr(p)
	if o.keep[0] == nil {
		o.keep[0] = p
	} else {
		o.keep[1] = p
	}
	return o
}

// Script is a list of system calls, made in order. The first that fails with an
// error that is not allowed ends it.
type Script []Op

// failure is what a forked child writes when a call of its script fails.
type failure struct {
	index uint32 // into the script
	errno uint32
}

// Error is a call of a script that failed.
type Error struct {
	Op    string
	Errno syscall.Errno
}

func (e *Error) Error() string { return e.Op + ": " + e.Errno.Error() }

// Unwrap returns the error number, for errors.Is.
func (e *Error) Unwrap() error { return e.Errno }

func (s Script) failed(f failure) error {
	if int(f.index) >= len(s) {
		return fmt.Errorf("step %d: %w", f.index, syscall.Errno(f.errno))
	}
	return &Error{Op: s[f.index].Name, Errno: syscall.Errno(f.errno)}
}

// Run makes the calls on the calling thread, which the caller has locked. A
// script that ends with execve returns only if it failed.
func (s Script) Run() error {
	f, ok := s.run()
	runtime.KeepAlive(s)
	if ok {
		return nil
	}
	return s.failed(f)
}

// run is also the child of a fork: it must not allocate, grow the stack, or
// call anything that might. RawSyscall6 does not; the linker checks that all of
// it fits into what a function without a stack check may use.
//
//go:nosplit
//go:norace
//go:nocheckptr
func (s Script) run() (failure, bool) {
	again := false
	for i := 0; i < len(s); i++ {
		o := &s[i]
		if o.retry && !again {
			continue
		}
		r, _, e := syscall.RawSyscall6(o.nr, o.args[0], o.args[1], o.args[2], o.args[3], o.args[4], o.args[5])
		for e == syscall.EINTR {
			r, _, e = syscall.RawSyscall6(o.nr, o.args[0], o.args[1], o.args[2], o.args[3], o.args[4], o.args[5])
		}
		if e == 0 && r < o.min {
			e = syscall.EPIPE
		}
		if e == 0 {
			continue
		}
		if e == o.allow[0] || e == o.allow[1] {
			again = again || o.first
			continue
		}
		return failure{index: uint32(i), errno: uint32(e)}, false
	}
	return failure{}, true
}
