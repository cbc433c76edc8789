package monitor

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/task"
	"runv/libvm/apparmor"
	"runv/libvm/state"
	"runv/libvm/thread"
)

// A monitor is always the first process of a pid namespace of its own, in a mount
// namespace and the user namespace that suit it. If the config asks for others,
// another process stands in for the container: its pid is the container's, and
// it is in the namespaces that the config asks for, and in the monitor's else. It
// does nothing but this, over a socket pair:
//
//	engine ── signal ──► stand-in                         monitor
//	                        │  its number, one byte ─────────►│ to the workload
//	                        │◄───────── exit status, one byte │ everything is closed
//	engine ◄── exits so ────┘  (end of file: ────────────────►│ killed: so is the VM)

// StandInCommand is the hidden command of the stand-in.
const StandInCommand = "stand-in"

// fdStandIn is its end of the socket pair.
const fdStandIn = 3

// StandIn says in which namespaces a stand-in is.
type StandIn struct {
	shared  uintptr     // CLONE_NEW* of those that it shares with the monitor
	join    []Namespace // by their paths; the others are the caller's
	user    *specs.Linux
	offsets map[string]specs.LinuxTimeOffset // nil: not in a time namespace of its own
	chroot  bool                             // it is not where the monitor's root is
}

// standInOf is what the config's namespaces ask for that a monitor cannot be in;
// nil if that is nothing.
func standInOf(l *specs.Linux, list []specs.LinuxNamespace) *StandIn {
	const inMonitor = unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	s := &StandIn{shared: inMonitor, chroot: true}
	for _, ns := range list {
		switch ns.Type {
		case specs.MountNamespace, specs.PIDNamespace:
			if ns.Path != "" {
				s.join = append(s.join, Namespace{ns.Type, ns.Path})
			} else {
				s.shared |= cloneFlag(ns.Type)
			}
		case specs.UserNamespace:
			s.user = l
		case specs.TimeNamespace:
			s.offsets = maps.Clone(l.TimeOffsets)
			if s.offsets == nil {
				s.offsets = map[string]specs.LinuxTimeOffset{}
			}
		}
	}
	s.chroot = s.shared&unix.CLONE_NEWNS == 0
	const own = unix.CLONE_NEWNS | unix.CLONE_NEWPID
	if s.shared&own == own && s.user == nil && s.offsets == nil {
		return nil
	}
	slices.SortStableFunc(s.join, func(a, b Namespace) int { return order(a) - order(b) })
	return s
}

// start starts the stand-in of a monitor that has not got its launch yet. socket
// is its end of the pair.
func (s *StandIn) start(id, rootfs, label, profile string, monitor int, socket *os.File) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close() //nolint:errcheck // the child has its own
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"GOMAXPROCS=1", "GODEBUG=disablethp=1"},
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), socket.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if s.chroot {
		attr.Env = append(attr.Env, rootVariable+"="+rootfs)
	}
	if s.user != nil {
		a := attr.Sys
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings, a.GidMappings = idMap(s.user.UIDMappings), idMap(s.user.GIDMappings)
		a.GidMappingsEnableSetgroups = true
		a.Credential = &syscall.Credential{NoSetGroups: true}
	}
	fork := syscall.ForkExec
	if s.offsets != nil {
		fork = task.ForkExec
	}
	var process *os.Process
	err = thread.Own(func() error {
		if err := s.enter(monitor); err != nil {
			return err
		}
		if err := labelChild(label); err != nil {
			return err
		}
		if err := apparmor.OnExec(profile); err != nil {
			return err
		}
		exe, err := executable(label == "" && apparmor.None(profile), s.shared&unix.CLONE_NEWNS == 0)
		if err != nil {
			return err
		}
		pid, err := fork(exe, []string{"runv", StandInCommand, id}, attr)
		if pid > 0 {
			process, _ = os.FindProcess(pid) // never fails on Linux
		}
		return err
	})
	if err != nil {
		if process != nil {
			process.Kill() //nolint:errcheck // it may have ended by itself
			process.Wait() //nolint:errcheck // its status tells nothing new
		}
		return nil, fmt.Errorf("start the container's stand-in: %w", err)
	}
	return process, nil
}

// prepareStandIn makes the socket pair of a stand-in, if there is to be one, and
// adds the monitor's end to its files.
func prepareStandIn(o *Options, files *[]*os.File) (socket *os.File, err error) {
	if o.Namespaces.StandIn == nil {
		return nil, nil
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	*files = append(*files, os.NewFile(uintptr(fds[1]), "stand-in"))
	return os.NewFile(uintptr(fds[0]), "monitor"), nil
}

// startStandIn starts the stand-in of a monitor that waits for its launch.
func (p *Process) startStandIn(o *Options, socket *os.File) error {
	var err error
	if p.standIn, err = o.Namespaces.StandIn.start(o.ID, o.Rootfs, o.Label, o.Profile, p.cmd.Process.Pid, socket); err != nil {
		return err
	}
	found, err := state.Find(p.standIn.Pid)
	o.StandIn = &found
	return err
}

// endStandIn ends and reaps the stand-in of a monitor that has ended or was killed:
// the first process of a pid namespace does not go before the others are reaped.
func (p *Process) endStandIn() {
	if p.standIn != nil {
		p.standIn.Kill() //nolint:errcheck // it ends with the monitor
		p.standIn.Wait() //nolint:errcheck // the monitor's status counts
	}
}

func idMap(m []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, len(m))
	for i, e := range m {
		out[i] = syscall.SysProcIDMap{ContainerID: int(e.ContainerID), HostID: int(e.HostID), Size: int(e.Size)}
	}
	return out
}

// enter puts the calling thread where the stand-in is to be.
func (s *StandIn) enter(monitor int) error {
	if err := s.newClocks(); err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(monitor, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(pidfd) //nolint:errcheck // not written to
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Setns(pidfd, int(s.shared)); err != nil {
		return fmt.Errorf("enter the monitor's namespaces: %w", os.NewSyscallError("setns", err))
	}
	return enter(s.join)
}

// newClocks makes a time namespace for the children of the calling thread
// (time_namespaces(7)).
func (s *StandIn) newClocks() error {
	if s.offsets == nil {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return fmt.Errorf("make a time namespace: %w", os.NewSyscallError("unshare", err))
	}
	for clock, o := range s.offsets {
		line := fmt.Sprintf("%s %d %d", clock, o.Secs, o.Nanosecs)
		path := "/proc/" + strconv.Itoa(unix.Gettid()) + "/timens_offsets"
		if err := os.WriteFile(path, []byte(line), 0); err != nil {
			return fmt.Errorf("linux.timeOffsets.%s: %w", clock, err)
		}
	}
	return nil
}

// rootVariable has the rootfs, which is to be the stand-in's root.
const rootVariable = "RUNV_STAND_IN_ROOT"

// StandInMain is the hidden command; it returns the exit status.
func StandInMain() int {
	signals := catchSignals()
	f := os.NewFile(fdStandIn, "monitor")
	conn, err := net.FileConn(f)
	f.Close() //nolint:errcheck // FileConn made a duplicate
	if err != nil {
		fmt.Fprintf(os.Stderr, "runv: %s is not a command for users\n", StandInCommand) //nolint:errcheck // nobody else to tell
		return statusFailed
	}
	if root := os.Getenv(rootVariable); root != "" {
		if err := errors.Join(unix.Chroot(root), unix.Chdir("/")); err != nil {
			return statusFailed // the monitor notices
		}
	}
	// Its root is the host's until the monitor has pivoted, and others may be in its
	// pid namespace: without capabilities anybody of its user could trace it.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return statusFailed
	}
	if err := dropCapabilities(0); err != nil {
		return statusFailed
	}
	go func() { // ends with the process
		for s := range signals {
			conn.Write([]byte{byte(s.(unix.Signal))}) //nolint:errcheck // the monitor is ending
		}
	}()
	var status [1]byte
	if _, err := io.ReadFull(conn, status[:]); err != nil {
		return statusLost
	}
	return int(status[0])
}

// standInEnd is how long the monitor waits for its stand-in to have gone: where
// that is of its pid namespace it would kill it.
const standInEnd = 5 * time.Second

// attendStandIn takes the signals that the stand-in gets for this process's own.
// Its death is the monitor's.
func (m *monitor) attendStandIn() {
	defer close(m.standInGone)
	var b [1]byte
	for {
		if _, err := m.standIn.Read(b[:]); err != nil {
			break
		}
		m.signals <- unix.Signal(b[0])
	}
	if !m.ending.Load() {
		os.Exit(statusLost) // and everything that is in the pid namespace
	}
}

// endStandIn lets the stand-in exit with the workload's status.
func (m *monitor) endStandIn(status int) {
	if m.standIn == nil {
		return
	}
	m.ending.Store(true)
	if _, err := m.standIn.Write([]byte{byte(status)}); err != nil {
		return // it has been killed
	}
	select {
	case <-m.standInGone:
	case <-time.After(standInEnd):
	}
}

// stateProcess is the process whose pid is the container's.
func (m *monitor) stateProcess(self state.Process) state.Process {
	if p := m.launch.StandIn; p != nil {
		return *p
	}
	return self
}
