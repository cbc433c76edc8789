package thread

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// eachCall is what the handler of eachSignal needs (each_amd64.s).
type eachCall struct {
	dir    uint64 // descriptor
	path   *byte  // below it, with a nul
	value  *byte
	length uint64
	failed int64 // -errno of a thread that failed
}

var each eachCall

// handlers returns the addresses of the handler, and of its restorer.
func handlers() (handler, restorer uintptr)

// eachSignal is taken from Go for as long as WriteEach runs: nobody else uses the
// last of the real-time signals.
const eachSignal = 64

// eachLimit bounds the wait for threads that do not get to run.
const eachLimit = time.Minute

// writing guards the above.
var writing sync.Mutex

// WriteEach writes value to the file name of every thread of this process: name
// is below a thread's directory of proc, the root of a procfs of the caller's pid
// namespace. It is for attributes that a thread can change only for itself, and
// that its children inherit; what is read in it must be another than before.
//
// There is no system call for that, and no place in a Go program that is reached by
// every thread of it. So each but the caller's does it in a signal handler, which runs no Go code,
// until no thread is found that has the old value. The caller's comes last, as
// the new value may keep it from looking. If an error is returned, some threads may have
// the new value.
func WriteEach(proc *os.File, name, value string) error {
	writing.Lock()
	defer writing.Unlock()
	// A locked thread makes no others: Go has one for that.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	w := &eachWriter{proc: int(proc.Fd()), name: name, own: unix.Gettid(), signalled: map[int]bool{}}
	own, err := w.open(w.own, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(own) //nolint:errcheck // only read from
	if w.before, err = readAt(own); err != nil {
		return err
	}
	restore, err := w.handle(value)
	if err != nil {
		return err
	}
	err = w.others()
	if err := restore(); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	return w.self(own, value)
}

// eachWriter is one call of WriteEach.
type eachWriter struct {
	proc      int
	name      string
	own       int    // the caller's thread
	before    string // what each has that was not changed
	after     string // what another thread has that was; empty: there was none
	signalled map[int]bool
}

// kernelAction lays out struct kernel_sigaction of x86-64 (arch/x86/include/asm/signal.h).
type kernelAction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// SA_* of asm/signal.h.
const (
	saRestorer = 0x04000000
	saOnStack  = 0x08000000
	saRestart  = 0x10000000
)

// handle installs the handler; restore takes it away.
func (w *eachWriter) handle(value string) (restore func() error, err error) {
	path, err := unix.BytePtrFromString("thread-self/" + w.name)
	if err != nil {
		return nil, err
	}
	b := append([]byte(value), 0)
	each = eachCall{dir: uint64(w.proc), path: path, value: &b[0], length: uint64(len(value))}
	action := kernelAction{flags: saOnStack | saRestart | saRestorer, mask: ^uint64(0)}
	action.handler, action.restorer = handlers()
	var old kernelAction
	if err := sigaction(&action, &old); err != nil {
		return nil, err
	}
	return func() error { return sigaction(&old, nil) }, nil
}

func sigaction(action, old *kernelAction) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, eachSignal, uintptr(unsafe.Pointer(action)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("rt_sigaction", errno)
	}
	return nil
}

// others has all threads but the caller's write. A thread that has not yet done
// so may have made another one meanwhile, and a directory that changes may not
// show all: so two looks in a row must find all of them changed.
func (w *eachWriter) others() error {
	deadline := time.Now().Add(eachLimit)
	for clean := 0; clean < 2; {
		left, err := w.look()
		switch {
		case err != nil:
			return err
		case left == 0:
			clean++
			continue
		case time.Now().After(deadline):
			return fmt.Errorf("%d threads did not take %s within %v", left, w.name, eachLimit)
		}
		clean = 0
		time.Sleep(50 * time.Microsecond) // they have to run
	}
	return nil
}

// look signals each thread that is as before, once, and counts them.
func (w *eachWriter) look() (left int, err error) {
	fd, err := unix.Openat(w.proc, "self/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: "self/task", Err: err}
	}
	dir := os.NewFile(uintptr(fd), "self/task")
	defer dir.Close() //nolint:errcheck // only read from
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0, err
	}
	for _, n := range names {
		tid, err := strconv.Atoi(n)
		if err != nil || tid == w.own {
			continue
		}
		value, err := w.read(tid)
		switch {
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH):
			continue // it has ended
		case err != nil:
			return 0, err
		case value == w.before:
			left++
			if err := w.signal(tid); err != nil {
				return 0, err
			}
		case w.after == "":
			w.after = value
		case value != w.after:
			return 0, fmt.Errorf("threads differ in %s: %q and %q", w.name, w.after, value)
		}
	}
	if e := atomic.LoadInt64(&each.failed); e != 0 {
		return 0, &os.PathError{Op: "write", Path: w.name, Err: unix.Errno(-e)}
	}
	return left, nil
}

func (w *eachWriter) signal(tid int) error {
	if w.signalled[tid] {
		return nil
	}
	w.signalled[tid] = true
	if err := unix.Tgkill(unix.Getpid(), tid, eachSignal); err != nil && err != unix.ESRCH {
		return os.NewSyscallError("tgkill", err)
	}
	return nil
}

// self changes the caller's own thread, and compares it with the others.
func (w *eachWriter) self(own int, value string) error {
	fd, err := w.open(w.own, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // written to at once
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return &os.PathError{Op: "write", Path: w.name, Err: err}
	}
	got, err := readAt(own)
	if err != nil {
		return err
	}
	if w.after != "" && got != w.after {
		return fmt.Errorf("threads differ in %s: %q and %q", w.name, w.after, got)
	}
	return nil
}

func (w *eachWriter) open(tid, flags int) (int, error) {
	path := "self/task/" + strconv.Itoa(tid) + "/" + w.name
	fd, err := unix.Openat(w.proc, path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

func (w *eachWriter) read(tid int) (string, error) {
	fd, err := w.open(tid, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd) //nolint:errcheck // only read from
	return readAt(fd)
}

// readAt reads a small file from its beginning.
func readAt(fd int) (string, error) {
	var b [4096]byte
	n, err := unix.Pread(fd, b[:], 0)
	if err != nil {
		return "", os.NewSyscallError("pread", err)
	}
	return string(b[:n]), nil
}
