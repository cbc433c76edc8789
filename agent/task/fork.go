package task

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"structs"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What package syscall does around its own fork: no signal handler may run in
// the child, and no thread may be made in the parent meanwhile.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// cloneArgs lays out struct clone_args of linux/sched.h, version 2.
type cloneArgs struct {
	_          structs.HostLayout
	flags      uint64
	pidFD      uint64
	childTID   uint64
	parentTID  uint64
	exitSignal uint64
	stack      uint64
	stackSize  uint64
	tls        uint64
	setTID     uint64
	setTIDSize uint64
	cgroup     uint64
}

// Child is a process that Fork made. It runs its script up to the Gate.
type Child struct {
	Pid  int
	gate *os.File
	fail *os.File
	s    Script
}

// Pipes are the two pipes between a forked child and its parent: the child
// waits on the gate for the parent, and says on fail which call failed.
type Pipes struct {
	gateR, gateW *os.File
	failR, failW *os.File
	files        int // that the child keeps: its descriptors 0, 1, …
	buf          *byte
	report       *failure
}

// A child's gate and its way to say what failed are the descriptors behind those
// that it keeps. spareFDs is more than these two, and makes room for both.
const spareFDs = 7

// NewPipes makes the pipes of one child that keeps a number of files.
func NewPipes(files int) (*Pipes, error) {
	p := &Pipes{files: files, buf: new(byte), report: new(failure)}
	var err error
	if p.gateR, p.gateW, err = highPipe(files); err != nil {
		return nil, err
	}
	if p.failR, p.failW, err = highPipe(files); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Pipes) gateFD() uintptr { return uintptr(p.files) }

// GateFD is the child's end of the gate, for Settings.Hold.
func (p *Pipes) GateFD() uintptr { return p.gateFD() }

func (p *Pipes) failFD() uintptr { return uintptr(p.files) + 1 }

func highPipe(files int) (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	rfd, err := High(fds[0], files)
	if err != nil {
		return nil, nil, err
	}
	wfd, err := High(fds[1], files)
	if err != nil {
		unix.Close(rfd)
		return nil, nil, err
	}
	return os.NewFile(uintptr(rfd), "pipe"), os.NewFile(uintptr(wfd), "pipe"), nil
}

// High duplicates a descriptor to a number above all that the script of a child
// which keeps so many files gives away, so that none of its dup3 calls closes a
// descriptor that a later one reads.
func High(fd, files int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, files+spareFDs)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	return n, nil
}

// Close frees the pipes of a child that was not forked.
func (p *Pipes) Close() {
	for _, f := range []*os.File{p.gateR, p.gateW, p.failR, p.failW} {
		if f != nil {
			f.Close()
		}
	}
}

// Enter is the start of a child's script: the files become descriptors 0, 1, …,
// everything else of the parent is closed, at once and not at exec, so that no
// path of the container leads to it (CVE-2024-21626), and the child waits for
// Child.Open.
func (p *Pipes) Enter(files []int) Script {
	s := Script{}
	for i, fd := range files {
		s = append(s, Call("dup3", unix.SYS_DUP3, uintptr(fd), uintptr(i), 0))
	}
	s = append(s,
		Call("dup3", unix.SYS_DUP3, p.gateR.Fd(), p.gateFD(), unix.O_CLOEXEC),
		Call("dup3", unix.SYS_DUP3, p.failW.Fd(), p.failFD(), unix.O_CLOEXEC),
		Call("close_range", unix.SYS_CLOSE_RANGE, p.failFD()+1, uintptr(^uint32(0)), 0))
	wait := Call("wait for the agent", unix.SYS_READ, p.gateFD(), 0, 1).pointer(1, unsafe.Pointer(p.buf))
	wait.min = 1
	return append(s, wait)
}

// Fork makes a child that runs the script, which starts with Pipes.Enter,
// possibly after calls that join namespaces, and ends with Exec. The calling
// thread is locked; namespaces that it joined with setns(2) are the child's.
// ns are CLONE_NEW* flags of namespaces of its own. cgroup is an open cgroup v2
// directory to put it in, or -1. The pipes are
// the child's from then on, also after an error.
//
// The child shares no memory with its parent: what a process of the container
// could read of it by ptrace is a copy, and what it could write changes nothing.
func Fork(p *Pipes, ns uintptr, cgroup int, s Script) (*Child, error) {
	args := &cloneArgs{flags: uint64(ns), exitSignal: uint64(unix.SIGCHLD)}
	if cgroup >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(cgroup)
	}
	syscall.ForkLock.Lock()
	pid, errno := fork(args, s, [2]uintptr{p.failW.Fd(), p.failFD()}, p.report)
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(s)
	p.gateR.Close()
	p.failW.Close()
	if errno != 0 {
		p.gateW.Close()
		p.failR.Close()
		return nil, os.NewSyscallError("clone3", errno)
	}
	return &Child{Pid: pid, gate: p.gateW, fail: p.failR, s: s}, nil
}

// fork is the only function that returns twice, and its child never returns. fail
// is where the child reports, and the number to which Enter moves that: it is
// this only when the first is closed.
// Its caller holds syscall.ForkLock.
//
//go:noinline
//go:norace
//go:nocheckptr
func fork(args *cloneArgs, s Script, fail [2]uintptr, report *failure) (int, syscall.Errno) {
	beforeFork()
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0)
	if errno != 0 || pid != 0 {
		afterFork()
		return int(pid), errno
	}
	afterForkInChild()
	f, _ := s.run()
	*report = f
	_, _, errno = syscall.RawSyscall(unix.SYS_WRITE, fail[0], uintptr(unsafe.Pointer(report)), unsafe.Sizeof(*report))
	if errno == syscall.EBADF {
		syscall.RawSyscall(unix.SYS_WRITE, fail[1], uintptr(unsafe.Pointer(report)), unsafe.Sizeof(*report)) //nolint:errcheck // nobody else to tell
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 255, 0, 0) //nolint:errcheck // it does not return
	}
}

// Open lets the child go on from its gate, and waits until it exec'd. The error
// is the call that failed; the child has exited then.
func (c *Child) Open() error { return c.OpenWith(nil) }

// OpenWith is Open for a child that holds at Settings.Hold: take is called while it
// is on its way there, and lets it go on when it returns.
func (c *Child) OpenWith(take func()) error {
	defer c.fail.Close()
	_, err := c.gate.Write([]byte{1})
	if take != nil && err == nil {
		take()
		_, err = c.gate.Write([]byte{1})
	}
	c.gate.Close()
	if err != nil && !errors.Is(err, unix.EPIPE) {
		return fmt.Errorf("release the child: %w", err)
	}
	var b [unsafe.Sizeof(failure{})]byte
	n, err := io.ReadFull(c.fail, b[:])
	if n == 0 && errors.Is(err, io.EOF) {
		return nil // closed by execve, or the child was killed
	}
	if err != nil {
		return fmt.Errorf("read the child's report: %w", err)
	}
	return c.s.failed(*(*failure)(unsafe.Pointer(&b)))
}

// Abandon makes a child that has not passed its gate exit.
func (c *Child) Abandon() {
	c.gate.Close()
	c.fail.Close()
}
