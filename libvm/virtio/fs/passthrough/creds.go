package passthrough

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// as runs f, which creates a file, as the given user and group, so that the file
// is theirs from the first moment and no time passes in which it is root's. The
// thread keeps its capabilities: whether they may create is the guest's to say.
func (s *Server) as(dir *inode, uid, gid uint32, f func() error) error {
	uid, gid, err := dir.vol.ids.caller(uid, gid)
	if err != nil {
		return err
	}
	if uid == 0 && gid == 0 {
		return f()
	}
	if !s.ids {
		return unix.EPERM
	}
	runtime.LockOSThread()
	err = switchIDs(int(uid), int(gid), f)
	if !restoreIDs() {
		// The thread is poisoned: do not unlock it, so that it ends with this
		// goroutine, and do not go on with it.
		panic("passthrough: cannot become root again")
	}
	runtime.UnlockOSThread()
	return err
}

// switchIDs runs f with the ids. setfsuid drops the file capabilities of the
// thread's effective set, which capset gives back.
func switchIDs(uid, gid int, f func() error) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		return err
	}
	if setFSID(unix.SYS_SETFSGID, gid) != gid || setFSID(unix.SYS_SETFSUID, uid) != uid {
		return unix.EINVAL // an id that has no mapping here
	}
	if err := unix.Capset(&hdr, &caps[0]); err != nil {
		return err
	}
	return f()
}

// restoreIDs makes the thread root again; setfsuid(0) gives the capabilities back.
func restoreIDs() bool {
	return setFSID(unix.SYS_SETFSUID, 0) == 0 && setFSID(unix.SYS_SETFSGID, 0) == 0
}

// setFSID sets a file system id of the thread and returns what it then is: the
// call itself reports no errors.
func setFSID(trap uintptr, id int) int {
	unix.RawSyscall(trap, uintptr(id), 0, 0) //nolint:errcheck // it reports none
	now, _, _ := unix.RawSyscall(trap, ^uintptr(0), 0, 0)
	return int(int32(now))
}

// canSwitchIDs reports whether this process may create files for others.
func canSwitchIDs() bool {
	if unix.Geteuid() != 0 || unix.Getegid() != 0 {
		return false
	}
	runtime.LockOSThread()
	err := switchIDs(1, 1, func() error { return nil })
	if !restoreIDs() {
		return false // poisoned: stays locked
	}
	runtime.UnlockOSThread()
	return err == nil
}
